"""What a lab may ask for beyond the demo: client certificates, HTTP/3, another version of the portal."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.labs import Lab
from tests.live.proxy.client import Session, ask, root_of
from tests.live.proxy.quic import ask_by_http3
from tests.portal.parts import certificate

PKI = "/srv/ringfence/pki"


# -- HTTP/3


def test_by_http3_it_is_the_same(lab: Lab, nobody: Session, anna: Session) -> None:
    over_tcp = nobody.ask("cloud", "/some/page")
    assert 'h3=":443"' in over_tcp.headers["alt-svc"]  # browsers are told of it
    answer = ask_by_http3(lab, nobody.site("cloud"), "/some/page")
    assert (answer.status, answer.location) == (302, over_tcp.location)
    assert not answer.by_application
    inside = ask_by_http3(lab, anna.site("cloud"), "/headers", cookie=anna.cookie)
    assert (inside.status, inside.seen["remote-user"]) == (200, "anna")
    assert inside.seen["x-forwarded-for"] == lab.controller()


def test_by_http3_a_name_is_the_one_of_the_certificate_too(lab: Lab, anna: Session) -> None:
    other = ask_by_http3(lab, anna.site("vault"), "/headers", sni=anna.site("media"), cookie=anna.cookie)
    assert (other.status, other.by_application) == (421, False), other
    unknown = ask_by_http3(lab, "unknown.example.org")
    assert unknown.status == 0, unknown


# -- certificates of clients

BROKER = """\
persistence false
log_dest stdout
listener 8883
cafile /run/tls/ca.pem
certfile /run/tls/current/cert.pem
keyfile /run/tls/current/key.pem
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
allow_anonymous false
"""
HBA = """\
local     all all trust
hostssl   all all all       scram-sha-256 clientcert=verify-full
hostnossl all all 0.0.0.0/0 reject
"""
OTHER = "\\set secret `cat /run/secrets/postgres-password`\ncreate user other password :'secret';\n"


@pytest.fixture(scope="module")
def strict(lab: Lab) -> Iterator[Lab]:
    """The demo whose broker and one of whose databases want to see a certificate, as docs/tls.md says."""
    services = lab.variables()["lab_services"]
    broker, database, cloud = (services[name] for name in ("mosquitto", "nextcloud-db", "nextcloud"))
    files = {"/mosquitto/config/mosquitto.conf": BROKER}
    pair = {"PGSSLCERT": "/run/tls/current/cert.pem", "PGSSLKEY": "/run/tls/current/key.pem"}
    changed = {
        "mosquitto": {**broker, "tls": {**broker["tls"], "clients": ["hall-sensor"]}, "files": files},
        "nextcloud-db": {
            **database,
            "command": [*database["command"], "-cssl_ca_file=/run/tls/ca.pem"],
            "files": {"/etc/postgresql/pg_hba.conf": HBA},
        },
        "nextcloud": {**cloud, "environment": {**cloud["environment"], **pair}},
    }
    lab.declare(lab_services={**services, **changed})
    try:
        lab.pyinfra()
        yield lab
    finally:
        lab.undeclare()
        lab.pyinfra()


def pair_of(lab: Lab, folder: Path, name: str) -> tuple[Path, Path]:
    """A leaf of the host's, as somebody would bring it to a machine."""
    paths = (folder / "cert.pem", folder / "key.pem")
    for path in paths:
        path.write_text(lab.sh(f"cat {PKI}/{name}/current/{path.name}"))
    return paths


def greeted(lab: Lab, pair: tuple[Path, Path] | None, *, tls: bool = True) -> bool:
    """Whether the broker takes a client (MQTT 3.1.1's CONNECT and its answer)."""
    context = ssl.create_default_context(cadata=root_of(lab))
    if pair:
        context.load_cert_chain(*pair)
    try:
        with socket.create_connection((lab.address(), 8883), timeout=10) as plain:
            connection = context.wrap_socket(plain, server_hostname=f"mosquitto.{domain(lab)}") if tls else plain
            connection.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test")
            return connection.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False


def domain(lab: Lab) -> str:
    return str(lab.variables()["lab_domain"])


def test_the_broker_takes_who_shows_a_certificate_of_the_lab(strict: Lab, tmp_path: Path) -> None:
    assert greeted(strict, pair_of(strict, tmp_path, "hall-sensor"))
    assert not greeted(strict, None)
    assert not greeted(strict, None, tls=False)
    assert not greeted(strict, pair_of(strict, tmp_path, "vaultwarden"))  # one for servers only
    assert not greeted(strict, stranger(tmp_path))


def stranger(folder: Path) -> tuple[Path, Path]:
    """A pair that the lab's CA has not signed."""
    made = certificate(folder, "stranger")
    return made.cert, made.key


def test_a_database_takes_who_shows_the_certificate_of_its_user(strict: Lab, nobody: Session) -> None:
    database = "nextcloud-nextcloud-db-1 psql --set=ON_ERROR_STOP=1 --username nextcloud"
    assert nobody.ask("cloud", "/status.php").status == 200  # the application asks its database each time
    ask_it = (
        "import psycopg2, sys; secret = open('/run/secrets/nextcloud-db-password').read().strip(); "
        f"given = dict(host='nextcloud-db.{domain(strict)}', dbname='nextcloud', password=secret); "
        "print(psycopg2.connect(**given | dict(word.split('=') for word in sys.argv[1:])))"
    )

    def connects(*words: str) -> str:
        return strict.sh(f'docker exec nextcloud-nextcloud-1 python3 -c "{ask_it}" {" ".join(words)} 2>&1', check=False)

    assert "connection object" in connects("user=nextcloud")
    assert "connection requires a valid client certificate" in connects("user=nextcloud", "sslcert=/none")
    strict.sh(f"docker exec -i {database}", text=OTHER)
    try:
        # Whose password it knows, and whose certificate it does not have: the client is told nothing of that.
        assert 'authentication failed for user "other"' in connects("user=other")
        log = strict.sh("docker logs --since 1m nextcloud-nextcloud-db-1 2>&1")
        assert 'certificate validation (clientcert=verify-full) failed for user "other": CN mismatch' in log
    finally:
        strict.sh(f"docker exec -i {database}", text="drop user other")
    assert "does not match host name" in connects("user=nextcloud", "host=nextcloud-db")


def test_what_a_host_signs_for_anothers_name_is_refused(lab: Lab, tmp_path: Path) -> None:
    """By the intermediate's own key, as who has taken the host would."""
    for name, taken in (("nextcloud-db", True), ("somewhere-else", False)):
        full = f"{name}.{domain(lab)}"
        lab.sh(
            "cd $(mktemp -d) && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem"
            f" -subj /CN={full} 2>/dev/null | openssl x509 -req -days 1 -CA /etc/ringfence/pki/intermediate.pem"
            " -CAkey /etc/ringfence/pki/intermediate.key -CAcreateserial -out leaf.pem 2>/dev/null"
            f" -extfile /dev/fd/3 3<<<'subjectAltName=DNS:{full}' && rm -rf /run/forged && mkdir -m 700 /run/forged &&"
            " cat leaf.pem /etc/ringfence/pki/intermediate.pem > /run/forged/cert.pem && mv key.pem /run/forged/"
        )
        for path in (tmp_path / "cert.pem", tmp_path / "key.pem"):
            path.write_text(lab.sh(f"cat /run/forged/{path.name}"))
        lab.sh("rm -rf /run/forged")
        why = handshake(root_of(lab), tmp_path, full)
        assert (why == "") is taken, why
    assert "permitted subtree violation" in why


def handshake(root: str, folder: Path, name: str) -> str:
    """Let a client meet a server with the pair in a folder; why it will not, "" where it will."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cadata=root).wrap_bio(back, there, server_hostname=name)
    host = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for one in (client, host):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


# -- another version of the portal

SICK = """\
#!/bin/sh
case "$*" in *validate*) exit 0 ;; esac
echo 'half migrated' > /data/db.sqlite3
echo 'this version cannot start' >&2
exit 1
"""


def test_a_version_of_the_portal_that_does_not_start_gives_way(lab: Lab, anna: Session) -> None:
    image = str(lab.variables()["lab_portal"]["image"])
    sick = image.rpartition(":")[0] + ":4.99.0"
    kept = "docker exec authelia-authelia-1 sh -c 'cat /data/* | md5sum'"
    before = lab.sh(kept)
    lab.sh(
        f"cat > /run/sick && chmod 755 /run/sick && docker create --name sick {image} >/dev/null &&"
        f" docker cp -q /run/sick sick:/usr/local/bin/authelia && docker commit sick {sick} >/dev/null &&"
        " docker rm sick",
        text=SICK,
    )
    try:
        lab.declare(lab_portal={**lab.variables()["lab_portal"], "image": sick})
        run = lab.pyinfra(check=False)
        assert run.code != 0
        assert "this version cannot start" in run.text
        assert "the old version runs again, with its files and volumes as they were" in run.text
        assert image in lab.sh("docker inspect -f '{{.Config.Image}}' authelia-authelia-1")
        assert lab.sh(kept) == before
        # Who had registered a second factor has it still.
        assert Session(lab, "anna", second=True).ask("cloud").by_application
        assert not ask(lab, anna.site("cloud")).by_application
    finally:
        lab.undeclare()
        lab.pyinfra()
        lab.sh(f"docker rmi {sick}")
    lab.must_be_converged()
