"""The real program with the role's configuration and the real parts that it can be told to use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ringfence.compile.authelia import hashed
from tests.live.labs import waited_for
from tests.portal.conftest import need_real
from tests.portal.parts import (
    DOMAIN,
    SECRET,
    Certificate,
    Directory,
    certificate,
    database,
    directory,
    mail_server,
    portal,
    prepared,
    refusal,
)
from tests.portal.program import PASSWORD, Answer, Program, give_codes, started

pytestmark = [pytest.mark.authelia, pytest.mark.xdist_group("portal-parts")]
RULES = [
    {"name": "cloud.lab.home", "policy": "one_factor", "subjects": ["group:family"]},
    {"name": "vault.lab.home", "policy": "two_factor", "subjects": ["group:family"]},
]
ADDRESS = "192.0.2.7"


@pytest.fixture(autouse=True)
def _real() -> None:
    need_real()


@pytest.fixture
def tls(tmp_path: Path) -> Certificate:
    return certificate(tmp_path)


def asked(program: Program, name: str, cookie: str, address: str = ADDRESS) -> Answer:
    """What the proxy is told about a request."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": name, "X-Forwarded-Uri": "/"}
    headers |= {"X-Forwarded-For": address, "X-Forwarded-Method": "GET", "Cookie": f"authelia_session={cookie}"}
    return program.ask("GET", "/api/authz/forward-auth", headers | {"Accept": "text/html"})


# -- LDAP


def ldap(port: int) -> dict[str, Any]:
    """The variables for lldap's kind of directory, with what the role takes for granted."""
    told = {"address": f"ldaps://localhost:{port}", "base_dn": DOMAIN, "user": f"uid=authelia,ou=people,{DOMAIN}"}
    return {
        "authelia_backend": "ldap",
        "authelia_ldap": told,
        "authelia_rules": RULES,
        "authelia_secrets": {"ldap_password": SECRET},
    }


@pytest.fixture
def house(tmp_path: Path, tls: Certificate) -> Iterator[Directory]:
    with directory(tmp_path, tls, {"anna": PASSWORD, "ben": PASSWORD}) as found:
        yield found


def test_people_of_a_directory_sign_in(tmp_path: Path, tls: Certificate, house: Directory) -> None:
    given = ldap(house.port) | {"authelia_ca": tls.cert.read_text()}
    with portal(tmp_path / "it", given) as program:
        cookie = program.person("anna", address=ADDRESS)
        seen = asked(program, "cloud.lab.home", cookie)
        assert (seen.status, seen.header("Remote-User"), seen.header("Remote-Groups")) == (200, "anna", "family")
        assert asked(program, "vault.lab.home", cookie).status == 302  # the second factor
        assert asked(program, "other.lab.home", cookie).status == 403
        wrong = program.portal("/api/firstfactor", {"username": "ben", "password": "wrong"}, "", ADDRESS)
        assert wrong.status == 401
        # By her mail address as well, and the name is hers all the same.
        cookie = program.person("anna@lab.home", address=ADDRESS)
        assert asked(program, "cloud.lab.home", cookie).header("Remote-User") == "anna"


def test_who_leaves_a_directory_is_out_within_a_minute(tmp_path: Path, tls: Certificate, house: Directory) -> None:
    given = ldap(house.port) | {"authelia_ca": tls.cert.read_text()}
    with portal(tmp_path / "it", given) as program:
        anna, ben = (program.person(name, address=ADDRESS) for name in ("anna", "ben"))
        assert asked(program, "cloud.lab.home", anna).status == asked(program, "cloud.lab.home", ben).status == 200
        house.change(
            f"dn: cn=family,ou=groups,{DOMAIN}\nchangetype: modify\ndelete: member\n"
            f"member: uid=anna,ou=people,{DOMAIN}\n"
        )
        house.change(f"dn: uid=ben,ou=people,{DOMAIN}\nchangetype: delete\n")
        assert waited_for(lambda: asked(program, "cloud.lab.home", anna).status == 403, 60)
        assert waited_for(lambda: asked(program, "cloud.lab.home", ben).status == 302, 60)


def test_a_directory_with_another_certificate_is_not_believed(tmp_path: Path, house: Directory) -> None:
    given = ldap(house.port) | {"authelia_ca": certificate(tmp_path, "other").cert.read_text()}
    assert "certificate signed by unknown authority" in refusal(prepared(tmp_path / "it", given))


# -- Postgres


def postgres(port: int) -> dict[str, Any]:
    told = {"address": f"tcp://localhost:{port}", "database": "authelia", "username": "authelia"}
    return {
        "authelia_storage": "postgres",
        "authelia_postgres": told,
        "authelia_rules": RULES,
        "authelia_secrets": {"postgres_password": SECRET},
    }


def test_second_factors_are_kept_in_postgres(tmp_path: Path, tls: Certificate) -> None:
    with database(tmp_path, tls) as kept:
        program = prepared(tmp_path / "it", postgres(kept.port) | {"authelia_ca": tls.cert.read_text()})
        with started(program):
            give_codes(program, "owner")
            # Every connection of the portal's is encrypted.
            used = kept.ask("select distinct ssl, version from pg_stat_ssl join pg_stat_activity using (pid) "
                            "where usename = 'authelia'")  # fmt: skip
            assert used == "t|TLSv1.3"
        with started(program):
            cookie = program.person("owner", address=ADDRESS, code=True)
            assert asked(program, "vault.lab.home", cookie).header("Remote-User") == "owner"
        assert kept.ask("select distinct username from authentication_logs", "authelia") == "owner"
    assert not list((tmp_path / "it/data").glob("*.sqlite3"))


def test_a_database_with_another_certificate_is_not_believed(tmp_path: Path, tls: Certificate) -> None:
    with database(tmp_path, tls) as kept:
        given = postgres(kept.port) | {"authelia_ca": certificate(tmp_path, "other").cert.read_text()}
        assert "certificate signed by unknown authority" in refusal(prepared(tmp_path / "it", given))
        given["authelia_postgres"] |= {"tls": False}
        assert "no pg_hba.conf entry" in refusal(prepared(tmp_path / "plain", given))


# -- mail


def smtp(port: int) -> dict[str, Any]:
    told = {"address": f"submission://localhost:{port}", "username": "portal", "sender": "Portal <portal@lab.home>"}
    return {
        "authelia_notifier": "smtp",
        "authelia_smtp": told,
        "authelia_rules": RULES,
        "authelia_secrets": {"smtp_password": SECRET},
    }


def test_a_password_is_reset_by_mail(tmp_path: Path, tls: Certificate) -> None:
    given = {"authelia_ca": tls.cert.read_text()}
    with mail_server(tls) as mail, portal(tmp_path / "it", smtp(mail.port) | given) as program:
        for name in ("kid", "nobody-here"):
            answer = program.portal("/api/reset-password/identity/start", {"username": name}, "", ADDRESS)
            assert answer.json == {"status": "OK"}  # it does not tell who there is
        assert waited_for(lambda: len(mail.box.mails) == 1, 10)
        assert "kid@lab.home" in mail.box.mails[0]["To"]
        token = re.search(r"https://auth\.lab\.home/reset-password/step2\?token=(\S+)", mail.box.text())
        assert token, mail.box.text()
        answer = program.portal("/api/reset-password/identity/finish", {"token": token[1]}, "", ADDRESS)
        assert answer.json == {"status": "OK"}
        cookie = answer.cookie or ""
        weak = program.portal("/api/reset-password", {"password": "kid12345"}, cookie, ADDRESS)
        assert weak.json["status"] == "KO"
        answer = program.portal("/api/reset-password", {"password": "horse battery correct"}, cookie, ADDRESS)
        assert (answer.status, answer.body) == (200, b"")
        new = {"username": "kid", "password": "horse battery correct"}
        assert waited_for(lambda: program.portal("/api/firstfactor", new, "", ADDRESS).status == 200, 10)
        users = yaml.safe_load((program.folder / "people/users.yml").read_text())["users"]
        assert users["kid"]["password"].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        again = program.portal("/api/reset-password/identity/finish", {"token": token[1]}, "", ADDRESS)
        assert again.json["status"] == "KO"  # a link is good once


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_mail_server_without_tls_gets_no_password(tmp_path: Path) -> None:
    with mail_server(None) as mail, portal(tmp_path / "it", smtp(mail.port)) as program:
        program.portal("/api/reset-password/identity/start", {"username": "kid"}, "", ADDRESS)
        assert waited_for(lambda: "STARTTLS" in (program.folder / "log").read_text().upper(), 10)
        assert mail.box.mails == []


# -- OpenID Connect: an application's login

CALLBACK = "https://cloud.lab.home/apps/user_oidc/code"
VERIFIER = "ringfence" * 6
OUR_SECRET = "the applications secret"
OF_HIM, ELSEWHERE = "192.168.10.4", "198.51.100.9"


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A portal with one application: for the family, at home, with the second factor."""
    need_real()
    client = {
        "id": "nextcloud",
        "secret_hash": hashed("nextcloud", OUR_SECRET),
        "redirect_uris": [CALLBACK],
        "policy": "two_factor",
        "subjects": ["group:family"],
        "places": ["lan"],
    }
    given = {"authelia_clients": [client], "authelia_places": {"lan": ["192.168.10.0/24"]}, "authelia_rules": RULES}
    with portal(tmp_path_factory.mktemp("oidc") / "it", given) as program:
        give_codes(program, "kid", "owner", "t1", "t2", "t3", "t4", "guest")
        yield program


@pytest.fixture(scope="module")
def owner(signing: Program) -> str:
    return signing.person("owner", address=OF_HIM, code=True)


def authorization(**changed: str) -> str:
    """The address that an application sends a browser to."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
    asked_for = {
        "client_id": "nextcloud",
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid profile email groups",
        "state": "some-state-of-the-application",
        "nonce": "some-nonce-of-the-application",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    } | changed
    return "/api/oidc/authorization?" + urlencode({name: value for name, value in asked_for.items() if value})


def browse(program: Program, target: str, cookie: str, address: str) -> Answer:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "auth.lab.home", "X-Forwarded-For": address}
    headers |= {"X-Forwarded-Uri": target, "Cookie": f"authelia_session={cookie}"}
    return program.ask("GET", target, headers)


def query(answer: Answer) -> dict[str, str]:
    """What an answer's address has behind the question mark."""
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.header("Location") or "").query).items()}


def consented(program: Program, person: str, address: str, cookie: str = "", **changed: str) -> dict[str, str]:
    """Go the whole way of a browser, and return what the application is told."""
    cookie = cookie or program.person(person, address=address, code=True)
    answer = browse(program, authorization(**changed), cookie, address)
    if "error" in query(answer) or "flow_id" not in query(answer):
        # Back to the application where the address is its own, else to a page of the portal's.
        assert (answer.header("Location") or "").split("?")[0] in (CALLBACK, "https://auth.lab.home/consent/completion")
        return query(answer) or {"error": f"{answer.status} {answer.body!r}"}
    flow = query(answer)["flow_id"]
    body = {"flow_id": flow, "client_id": "nextcloud", "consent": True, "pre_configure": False, "claims": []}
    said = program.portal("/api/oidc/consent", body, cookie, address)
    assert said.json["status"] == "OK", said
    back = urlsplit(said.json["data"]["redirect_uri"])
    return query(browse(program, f"{back.path}?{back.query}", cookie, address))


def token(program: Program, code: str, secret: str = OUR_SECRET, verifier: str = VERIFIER) -> Answer:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": verifier}
    basic = base64.b64encode(urlencode({"nextcloud": secret}).replace("=", ":").encode()).decode()
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "auth.lab.home", "X-Forwarded-For": "172.20.0.9"}
    headers |= {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"}
    return program.ask("POST", "/api/oidc/token", headers, urlencode(form).encode())


def part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_an_application_signs_its_people_in(signing: Program) -> None:
    told = consented(signing, "kid", OF_HIM)
    assert told["state"] == "some-state-of-the-application"
    answer = token(signing, told["code"])
    assert answer.status == 200, answer
    head, claims, signature = answer.json["id_token"].split(".")
    [key] = browse(signing, "/jwks.json", "", OF_HIM).json["keys"]
    numbers = (int.from_bytes(part(key[name]), "big") for name in ("e", "n"))
    rsa.RSAPublicNumbers(*numbers).public_key().verify(
        part(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    said = json.loads(part(claims))
    assert (said["iss"], said["aud"]) == ("https://auth.lab.home", ["nextcloud"])
    assert said["nonce"] == "some-nonce-of-the-application"
    assert {"otp", "pwd"} <= set(said["amr"])
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "auth.lab.home"}
    headers |= {"Authorization": f"Bearer {answer.json['access_token']}"}
    info = signing.ask("GET", "/api/oidc/userinfo", headers).json
    assert (info["preferred_username"], info["groups"], info["email"]) == ("kid", ["family"], "kid@lab.home")
    # A code is good once.
    assert token(signing, told["code"]).status == 400


def test_what_an_application_is_told_needs_its_secret_and_its_proof(signing: Program) -> None:
    code = consented(signing, "t1", OF_HIM)["code"]
    assert token(signing, code, secret="another").status == 401
    assert token(signing, code, verifier="another" * 8).status in (400, 401)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"redirect_uri": "https://cloud.lab.home.evil.example/apps/user_oidc/code"}, "redirect"),
        ({"redirect_uri": f"{CALLBACK}/../other"}, "redirect"),
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain", "code_challenge": VERIFIER}, "invalid_request"),
        ({"client_id": "somebody"}, "invalid_client"),
        ({"scope": "openid offline_access"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_what_an_application_may_not_ask_for(signing: Program, owner: str, changed: dict[str, str], words: str) -> None:
    told = consented(signing, "owner", OF_HIM, owner, **changed)
    assert "code" not in told
    assert words in " ".join(told.values()), told


def test_whoever_is_not_of_the_application_gets_nowhere(signing: Program) -> None:
    assert consented(signing, "guest", OF_HIM).get("error") == "access_denied"  # the wrong group
    assert consented(signing, "t2", ELSEWHERE).get("error") == "access_denied"  # the wrong place


def test_one_factor_is_not_two_for_an_application_either(signing: Program) -> None:
    cookie = signing.person("t3", address=OF_HIM)
    answer = browse(signing, authorization(), cookie, OF_HIM)
    assert urlsplit(answer.header("Location") or "").hostname == "auth.lab.home"
    assert "code" not in query(answer)
