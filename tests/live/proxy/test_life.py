"""What a day brings: changed passwords, people who leave, certificates that are renewed, runs that are killed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.hearing import heard
from tests.live.labs import Lab, waited_for
from tests.live.proxy.client import Answer, Session, ask

USERS = "/srv/ringfence/people/users.yml"
HERE = Path(__file__).parent


def people(lab: Lab) -> dict[str, Any]:
    return dict(lab.variables()["lab_people"])


def test_a_password_changed_in_the_portal_stays(lab: Lab) -> None:
    """And a second factor: neither engine has anything to change, and both still work."""
    changed = lab.variables()["lab_people"]["owner"]["password"]  # some other hash: that of ringfence-owner
    try:
        lab.sh(f"python3 - {USERS} anna '{changed}'", text=(HERE / "change.py").read_text())
        assert taken(lab, "anna", "ringfence-owner")
        lab.must_be_converged()
        assert lab.ansible().changed == []
        assert signs_in(lab, "anna", "ringfence-owner")
        # Another declared hash is an order, and wins.
        declared = people(lab)
        lab.declare(lab_people={**declared, "anna": {**declared["anna"], "password": declared["guest"]["password"]}})
        assert lab.pyinfra().changed == ["people | state"]
        assert taken(lab, "anna", "ringfence-guest")
    finally:
        lab.undeclare()
        lab.pyinfra()
    assert taken(lab, "anna", "ringfence-anna")


def taken(lab: Lab, person: str, password: str) -> bool:
    """Whether somebody can sign in, at once or a second later: a third failure would be a ban."""
    return waited_for(lambda: signs_in(lab, person, password), 0.5, 1)


def signs_in(lab: Lab, person: str, password: str) -> bool:
    try:
        Session(lab, person, password)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("how", ["removed", "disabled", "out of the group"])
def test_who_leaves_is_out_within_a_minute(lab: Lab, how: str) -> None:
    session = Session(lab, "guest" if how != "out of the group" else "anna")
    name = "guest" if how != "out of the group" else "anna"
    declared = people(lab)
    if how != "out of the group":
        declared = {**declared, "guest": {**declared["guest"], "groups": ["guests", "family"]}}
        lab.declare(lab_people=declared)
        lab.pyinfra()
        assert waited_for(lambda: session.ask("media").by_application, 60, 1)
    left = {
        "removed": {key: value for key, value in declared.items() if key != name},
        "disabled": {**declared, name: {**declared[name], "disabled": True}},
        "out of the group": {**declared, name: {**declared[name], "groups": ["others"]}},
    }[how]
    try:
        assert session.ask("media").by_application
        lab.declare(lab_people=left)
        lab.pyinfra()
        assert waited_for(lambda: not session.ask("media").by_application, 60, 1)
        assert session.ask("media").status in (302, 401, 403)
    finally:
        lab.undeclare()
        lab.pyinfra()


def test_adding_a_person_is_one_edit(lab: Lab) -> None:
    declared = people(lab)
    ben = {"email": "ben@lab.home", "groups": ["family"], "password": declared["guest"]["password"]}
    try:
        lab.declare(lab_people={**declared, "ben": ben})
        plan = lab.plan()
        done = lab.pyinfra()
        assert sorted(plan.changed) == sorted(done.changed)
        assert taken(lab, "ben", "ringfence-guest")
        assert Session(lab, "ben", "ringfence-guest").ask("media").by_application
    finally:
        lab.undeclare()
        lab.pyinfra()


# -- certificates


def test_nothing_passes_the_databases_bridge_in_plain_text(lab: Lab, nobody: Session) -> None:
    words = (b"select current_database", b"SCRAM-SHA-256", b"nextcloud\0")
    seen = heard(lab, "rf-backend", lambda: [nobody.ask("cloud", "/status.php") for _ in range(3)])
    assert len(seen) > 2000
    assert not [word for word in words if word in seen]


def test_nothing_passes_from_the_proxy_to_an_application_with_tls_in_plain_text(lab: Lab, nobody: Session) -> None:
    marks = {"vault": b"X-Ringfence-Mark: vault", "cloud": b"X-Ringfence-Mark: cloud"}

    def both() -> None:
        for label in marks:
            path = "/alive" if label == "vault" else "/status.php"
            nobody.ask(label, path, headers={"X-Ringfence-Mark": label})

    seen = heard(lab, "rf-frontend", both)
    assert marks["cloud"] in seen  # no TLS is declared there: the listener hears
    assert marks["vault"] not in seen


def test_a_client_without_tls_is_refused_by_the_database(lab: Lab) -> None:
    ask_it = (
        "import psycopg2, sys; secret = open('/run/secrets/nextcloud-db-password').read().strip(); "
        "print(psycopg2.connect(host='nextcloud-db', dbname='nextcloud', user='nextcloud', password=secret, "
        "sslmode=sys.argv[1]))"
    )
    for mode, works in (("require", True), ("disable", False)):
        said = lab.sh(f'docker exec nextcloud-nextcloud-1 python3 -c "{ask_it}" {mode} 2>&1', check=False)
        assert ("connection object" in said) == works, said
    assert "no encryption" in said


@contextlib.contextmanager
def asked_all_the_while(lab: Lab, session: Session) -> Iterator[list[Answer]]:
    """As browsers ask: a connection that ends without an answer is tried once more."""
    answers: list[Answer] = []
    ended = threading.Event()

    def go() -> None:
        while not ended.is_set():
            answer = ask(lab, session.site("cloud"), "/status.php")
            answers.append(answer if answer.status else ask(lab, session.site("cloud"), "/status.php"))

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def test_certificates_are_renewed_without_a_failed_request(lab: Lab, nobody: Session) -> None:
    """Of the proxy and of a database, both in use; by the host's own timer."""
    serial = "openssl x509 -noout -serial -in /srv/ringfence/pki/{}/current/cert.pem"

    def serials() -> list[str]:
        return [lab.sh(serial.format(name)) for name in ("caddy", "nextcloud-db")]

    try:
        lab.declare(pki_leaf_hours=0.02)
        lab.pyinfra()
        before = serials()
        with asked_all_the_while(lab, nobody) as answers:
            assert waited_for(lambda: not set(serials()) & set(before), 150, 1)
            count = len(answers)
            assert waited_for(lambda: len(answers) > count + 20, 60)
        assert [answer for answer in answers if not answer.by_application or answer.status != 200] == []
        assert served(lab, nobody.site("cloud")) == lab.sh(serial.format("caddy")).strip()
    finally:
        lab.undeclare()
        lab.pyinfra()
    lab.must_be_converged()


def served(lab: Lab, name: str) -> str:
    """The serial number of the certificate that the proxy shows."""
    ask_it = f"openssl s_client -connect {lab.address()}:443 -servername {name} </dev/null 2>/dev/null"
    return lab.sh(f"{ask_it} | openssl x509 -noout -serial").strip()


def test_the_roots_key_is_nowhere_on_the_host(lab: Lab) -> None:
    key = str(lab.variables()["pki_root_key"]).splitlines()[2]
    assert len(key) > 40
    found = lab.sh(f"grep -rlF '{key[:40]}' /etc /srv /opt /var/lib/ringfence /run /tmp /root 2>/dev/null || true")
    assert found.strip() == ""


# -- killed runs


@pytest.fixture(scope="module")
def edited(lab: Lab) -> Iterator[None]:
    """Edits, one after the other; in the end all of them are taken back, and nothing is left of them."""
    lab.unwatch()
    yield
    lab.undeclare()
    lab.pyinfra()
    assert lab.verify().changed == []


@pytest.mark.parametrize(
    ("role", "sign"),
    [
        ("people", f"cat {USERS}"),
        ("pki", "ls /srv/ringfence/pki /srv/ringfence/pki/*"),
        ("stack", "ls -la --time-style=full-iso /opt/ringfence/stacks/caddy/config/caddy/etc/caddy"),
    ],
)
@pytest.mark.usefixtures("edited")
def test_a_killed_run_lets_nobody_in_and_is_finished_by_the_next(
    lab: Lab, nobody: Session, role: str, sign: str
) -> None:
    lab.undeclare()  # the edit before gives way to this one in one run
    declared = people(lab)
    services = lab.variables()["lab_services"]
    name, site = f"ben-{role}", f"films-{role}"
    media = {**services["jellyfin"], "site": site, "tls": True}
    ben = {"email": "ben@lab.home", "groups": ["family"], "password": declared["guest"]["password"]}
    lab.declare(lab_services={**services, "jellyfin": media}, lab_people={**declared, name: ben})
    lab.kill_during(role, sign, poweroff=False)
    for label in ("cloud", "media", site, "vault"):
        answer = nobody.ask(label, "/headers")
        assert not answer.by_application, (label, answer)
    lab.pyinfra()
    lab.must_be_converged()
    assert nobody.ask(site).status == 302
    assert signs_in(lab, name, "ringfence-guest")
