"""The real Authelia with the role's own configuration, and the real programs that it is told to use, on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as Mailbox
from aiosmtpd.smtp import AuthResult

from tests.live.labs import waited_for
from tests.portal.program import Program, people, started
from tests.unit.authelia.cases import desired
from tests.unit.authelia.test_real import a_key
from tests.unit.caddy.proxy import free_ports, listens

SECRET = "throwaway-secret"
DOMAIN = "dc=lab,dc=home"


@dataclass(frozen=True)
class Certificate:
    """One for localhost, signed by itself."""

    cert: Path
    key: Path


def certificate(folder: Path, name: str = "tls") -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*words.split(), "-addext", "subjectAltName=DNS:localhost", "-out", str(made.cert), "-keyout", str(made.key)],
        check=True,
        capture_output=True,
    )
    return made


def prepared(folder: Path, given: Mapping[str, Any]) -> Program:
    """What the role makes of variables, in a folder instead of a container; it does not run yet."""
    variables = {"authelia_name": "auth.lab.home", **given}
    [project] = (made := desired(variables))["projects"]
    [service] = project["services"]
    port, metrics = free_ports(2)
    for name in ("people", "data", "secrets", "certificates"):
        (folder / name).mkdir(parents=True)
    for secret in project["secrets"]:
        value = made["secrets"]["authelia"].get(secret["name"]) or (
            a_key() if secret.get("generate") == "rsa2048" else "0f" * 32
        )
        (folder / "secrets" / secret["name"]).write_text(value)

    def here(text: str) -> str:
        text = re.sub(r"/(etc/authelia/certificates|run/secrets|people/|data/)", lambda found: moved[found[1]], text)
        return text.replace("tcp://:9091/", f"tcp://127.0.0.1:{port}/").replace(
            "tcp://:9959/", f"tcp://127.0.0.1:{metrics}/"
        )

    moved = {
        "etc/authelia/certificates": f"{folder}/certificates",
        "run/secrets": f"{folder}/secrets",
        "people/": f"{folder}/people/",
        "data/": f"{folder}/data/",
    }
    for name, text in service["config"]["/etc/authelia"].items():
        (folder / name).write_text(here(text))
    program = Program([os.environ["RINGFENCE_AUTHELIA"]], folder, port, real=True)
    program.environment = {name: value for name, value in os.environ.items() if "AUTHELIA" not in name} | {
        name: here(str(value)) for name, value in service["environment"].items() if name != "X_AUTHELIA_CONFIG"
    }
    program.set_people(people())
    return program


@contextlib.contextmanager
def portal(folder: Path, given: Mapping[str, Any]) -> Iterator[Program]:
    with started(prepared(folder, given)) as program:
        yield program


def refusal(program: Program) -> str:
    """What a program says that does not start."""
    with contextlib.suppress(AssertionError), started(program):
        raise RuntimeError("it started")
    return (program.folder / "log").read_text()


@contextlib.contextmanager
def serving(command: list[str], log: Path, is_there: Callable[[], bool]) -> Iterator[None]:
    """A program that runs until the end, once it is there."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            assert waited_for(lambda: is_there() or process.poll() is not None, 30, 0.1), log.read_text()
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(20)


def need(package: str, pattern: str) -> Path:
    """The newest program of a Debian package that is not installed for CI, as CI has no real Authelia either."""
    found = sorted(Path("/").glob(pattern.lstrip("/")))
    if not found:
        pytest.skip(f"apt-get install {package}: the real Authelia was not tried with it")
    return found[-1]


# -- a directory (slapd in lldap's place, with lldap's kind of tree)

SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {cert}
TLSCertificateKeyFile {key}
database mdb
suffix {domain}
rootdn uid=authelia,ou=people,{domain}
rootpw {secret}
directory {folder}
access to attrs=userPassword by self write by anonymous auth by * none
access to * by users read
"""
TREE = """\
dn: {domain}
objectClass: organization
objectClass: dcObject
dc: lab
o: lab

dn: ou=people,{domain}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{domain}
objectClass: organizationalUnit
ou: groups

"""
PERSON = """\
dn: uid={name},ou=people,{domain}
objectClass: inetOrgPerson
uid: {name}
cn: {name}
sn: {name}
mail: {name}@lab.home
userPassword: {password}

"""
# lldap names the members of its groups in both ways; slapd has to be told that an entry may.
GROUP = """\
dn: cn={name},ou=groups,{domain}
objectClass: groupOfUniqueNames
objectClass: extensibleObject
cn: {name}
"""


@dataclass(frozen=True)
class Directory:
    port: int

    def change(self, text: str) -> None:
        """Change the tree as `ldapmodify` takes it."""
        words = ["ldapmodify", "-x", "-H", f"ldaps://localhost:{self.port}", "-D", f"uid=authelia,ou=people,{DOMAIN}"]
        done = subprocess.run(
            [*words, "-w", SECRET],
            input=text,
            env=os.environ | {"LDAPTLS_REQCERT": "never"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def directory(folder: Path, tls: Certificate, passwords: Mapping[str, str]) -> Iterator[Directory]:
    """An LDAP server with these people, all of them in the group family."""
    program, adds = need("slapd", "/usr/sbin/slapd"), need("slapd", "/usr/sbin/slapadd")
    need("ldap-utils", "/usr/bin/ldapmodify")
    (folder / "ldap").mkdir()
    words = {"cert": tls.cert, "key": tls.key, "domain": DOMAIN, "secret": SECRET, "folder": folder / "ldap"}
    (folder / "slapd.conf").write_text(SLAPD_CONF.format(**words))
    tree = TREE.format(domain=DOMAIN)
    tree += "".join(PERSON.format(name=n, password=p, domain=DOMAIN) for n, p in passwords.items())
    tree += GROUP.format(name="family", domain=DOMAIN)
    members = [f"uid={name},ou=people,{DOMAIN}" for name in passwords]
    tree += "".join(f"member: {one}\nuniqueMember: {one}\n" for one in members)
    subprocess.run(
        [str(adds), "-f", str(folder / "slapd.conf")], input=tree, text=True, check=True, capture_output=True
    )
    [port] = free_ports(1)
    command = [str(program), "-d", "0", "-f", str(folder / "slapd.conf"), "-h", f"ldaps://127.0.0.1:{port}/"]
    with serving(command, folder / "slapd.log", lambda: listens(port)):
        yield Directory(port)


# -- a database

HBA = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Database:
    port: int
    folder: Path

    def ask(self, statement: str, database: str = "postgres") -> str:
        words = ["psql", "-At", "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]
        words += ["-c", statement]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@contextlib.contextmanager
def database(folder: Path, tls: Certificate) -> Iterator[Database]:
    """A Postgres that takes TLS only, with the database authelia of the user authelia."""
    binaries = need("postgresql", "/usr/lib/postgresql/*/bin/initdb").parent
    data, [port] = folder / "db", free_ports(1)
    data.mkdir()
    # It refuses to run as root, and its user has to get to the folder.
    shutil.copy(tls.cert, data.parent / "db.pem")
    shutil.copy(tls.key, data.parent / "db.key")
    for path in (data, folder / "db.pem", folder / "db.key"):
        shutil.chown(path, "postgres", "postgres")
    for above in [folder, *folder.parents][:-2]:
        above.chmod(above.stat().st_mode | 0o111)
    own = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*own, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "--no-sync"], check=True, capture_output=True
    )
    (data / "pg_hba.conf").write_text(HBA)
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": data,
        "ssl": "on",
        "ssl_cert_file": folder / "db.pem",
        "ssl_key_file": folder / "db.key",
        "fsync": "off",
    }
    command = [*own, str(binaries / "postgres"), "-D", str(data)]
    found = Database(port, data)
    with serving(
        [*command, *(f"-c{name}={value}" for name, value in options.items())],
        folder / "postgres.log",
        lambda: listens(port) and (data / f".s.PGSQL.{port}").exists(),
    ):
        found.ask(f"create user authelia password '{SECRET}'")
        found.ask("create database authelia owner authelia")
        yield found


# -- a mail server


class Postbox(Mailbox):
    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)

    def text(self, number: int = -1) -> str:
        """The plain text of a mail."""
        parts = [part for part in self.mails[number].walk() if part.get_content_type() == "text/plain"]
        return bytes(parts[0].get_payload(decode=True)).decode()


@dataclass(frozen=True)
class MailServer:
    port: int
    box: Postbox


@contextlib.contextmanager
def mail_server(tls: Certificate | None) -> Iterator[MailServer]:
    """One that takes mail from who has signed in after STARTTLS; without a certificate it offers no TLS."""
    box = Postbox()
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)

    def signs_in(server: Any, session: Any, envelope: Any, mechanism: Any, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"portal", SECRET.encode()))

    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_ports(1)[0],
        tls_context=context,
        require_starttls=bool(tls),
        auth_required=True,
        auth_require_tls=bool(tls),
        authenticator=signs_in,
    )
    controller.start()
    try:
        yield MailServer(controller.port, box)
    finally:
        controller.stop()
