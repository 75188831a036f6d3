"""The real program judges what the role writes. It runs where RINGFENCE_AUTHELIA says where it is."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.authelia.cases import CASES, desired, variables

pytestmark = pytest.mark.authelia
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def authelia(tmp_path: Path) -> Run:
    program = os.environ.get("RINGFENCE_AUTHELIA", "")
    if not program:
        pytest.skip(
            "RINGFENCE_AUTHELIA does not say where the real Authelia is: its configuration was not judged by it"
        )

    def run(given: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
        [project] = desired(given)["projects"]
        [service] = project["services"]
        secrets = tmp_path / "secrets"
        secrets.mkdir(exist_ok=True)
        for secret in project["secrets"]:
            (secrets / secret["name"]).write_text(a_key() if secret.get("generate") == "rsa2048" else "0" * 64)
        environment = {
            name: str(value).replace("/run/secrets", str(secrets)).replace("/etc/authelia", str(tmp_path))
            for name, value in service["environment"].items()
        }
        text = service["config"]["/etc/authelia"]["configuration.yml"]
        text = text.replace("/run/secrets", str(secrets)).replace("/etc/authelia/certificates", str(tmp_path / "none"))
        (tmp_path / "none").mkdir(exist_ok=True)
        (tmp_path / "configuration.yml").write_text(text)
        command = [program, *words, "--config", str(tmp_path / "configuration.yml")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return run


def a_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


@pytest.mark.parametrize("case", CASES)
def test_it_takes_every_reviewed_configuration(authelia: Run, case: str) -> None:
    done = authelia(variables(case), "config", "validate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without errors" in done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("backend", ["lldap", "rfc2307bis", "custom"])
def test_it_takes_directories_of_other_kinds(authelia: Run, backend: str) -> None:
    ldap = {
        "address": "ldap://slapd:389",
        "implementation": backend,
        "base_dn": "dc=lab,dc=home",
        "user": "cn=authelia,dc=lab,dc=home",
        "additional_users_dn": "ou=people",
        "additional_groups_dn": "ou=groups",
        "users_filter": "(&({username_attribute}={input})(objectClass=inetOrgPerson))",
        "groups_filter": "(&(member={dn})(objectClass=groupOfNames))",
        "attributes": {"username": "uid", "display_name": "cn", "mail": "mail", "group_name": "cn"},
    }
    given = {"authelia_name": "auth.lab.home", "authelia_backend": "ldap", "authelia_ldap": ldap}
    done = authelia(given, "config", "validate")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"authelia_regulation": {"find_time": "1 hour"}}, "less than or equal to option 'ban_time'"),
        ({"authelia_rules": [{"name": "a.lab.home", "policy": "bypass", "subjects": ["user:x"]}]}, "bypass"),
        ({"authelia_rules": [{"name": "a.lab.home", "policy": "deny", "subjects": ["x"]}]}, "subject"),
        ({"authelia_backend": "ldap"}, "authentication_backend: ldap"),
        ({"authelia_domain": "lab"}, "session"),
    ],
)
def test_it_refuses_what_cannot_be(authelia: Run, wrong: dict[str, Any], words: str) -> None:
    """What the role leaves to it: these are the words that the user then sees."""
    done = authelia({"authelia_name": "auth.lab.home"} | wrong, "config", "validate")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "groups", "address", "policy"),
    [
        ("https://cloud.lab.home/", "family", "192.168.10.4", "one_factor"),
        ("https://cloud.lab.home/", "family", "8.8.8.8", "deny"),
        ("https://cloud.lab.home/status.php?x=1", "", "8.8.8.8", "bypass"),
        ("https://cloud.lab.home/STATUS.php", "", "8.8.8.8", "deny"),
        ("https://cloud.lab.home/settings/admin/x", "family", "192.168.10.4", "deny"),
        ("https://cloud.lab.home/SETTINGS/admin/%0A", "family", "192.168.10.4", "deny"),
        ("https://cloud.lab.home/settings/Admin/%0A", "admins", "192.168.10.4", "two_factor"),
        ("https://iot.lab.home/public/x", "", "8.8.8.8", "one_factor"),
        ("https://iot.lab.home/Public/x", "", "8.8.8.8", "deny"),
        ("https://iot.lab.home/", "family", "10.99.0.7", "deny"),
        ("https://other.lab.home/", "admins", "192.168.10.4", "deny"),
    ],
)
def test_it_decides_as_the_rules_mean(authelia: Run, url: str, groups: str, address: str, policy: str) -> None:
    words = ("access-control", "check-policy", "--url", url, "--username", "ben", "--groups", groups, "--ip", address)
    done = authelia(variables("file"), *words)
    found = re.search(r"The (?:default )?policy '(\w+)'", done.stdout)
    assert found, done.stdout + done.stderr
    assert found[1] == policy
