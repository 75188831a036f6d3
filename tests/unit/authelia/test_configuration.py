"""Authelia's configuration: reviewed texts, only keys that it knows, no secret in it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml

from tests.parity.test_templates import render_with_ansible
from tests.unit.authelia.cases import CASES, GOLDEN, ROLE, configuration, desired, files, service, variables

NAMED: dict[str, Any] = {"authelia_name": "auth.lab.home"}
# The keys that this release of the role writes, all of Authelia 4.39; `*` stands for names of the user's.
KNOWN = {
    "theme", "default_2fa_method", "certificates_directory",
    "server.address", "server.disable_healthcheck", "server.buffers.read", "server.buffers.write",
    "server.endpoints.authz.forward-auth.implementation",
    "server.endpoints.authz.forward-auth.authn_strategies[].name",
    "log.level", "log.format", "telemetry.metrics.enabled", "telemetry.metrics.address", "ntp.disable_startup_check",
    "totp.issuer", "totp.algorithm", "totp.digits", "totp.period",
    "webauthn.enable_passkey_login", "webauthn.display_name", "webauthn.selection_criteria.user_verification",
    "identity_validation.reset_password.jwt_lifespan",
    "identity_validation.elevated_session.code_lifespan", "identity_validation.elevated_session.elevation_lifespan",
    "identity_validation.elevated_session.require_second_factor",
    "identity_validation.elevated_session.skip_second_factor",
    "definitions.network.*",
    "authentication_backend.password_change.disable", "authentication_backend.password_reset.disable",
    "authentication_backend.refresh_interval",
    "authentication_backend.file.path", "authentication_backend.file.watch",
    "authentication_backend.file.search.email", "authentication_backend.file.search.case_insensitive",
    "authentication_backend.file.password.algorithm",
    *(f"authentication_backend.file.password.argon2.{key}"
      for key in ("variant", "iterations", "memory", "parallelism", "key_length", "salt_length")),
    *(f"authentication_backend.ldap.{key}"
      for key in ("implementation", "address", "tls.minimum_version", "tls.skip_verify", "base_dn", "user",
                  "users_filter", "attributes.mail")),
    "password_policy.zxcvbn.enabled", "password_policy.zxcvbn.min_score",
    "access_control.default_policy",
    *(f"access_control.rules[].{key}" for key in ("domain", "resources", "subject", "networks", "policy")),
    "session.name", "session.same_site", "session.inactivity", "session.expiration", "session.remember_me",
    *(f"session.cookies[].{key}" for key in ("domain", "authelia_url", "default_redirection_url")),
    "regulation.modes", "regulation.max_retries", "regulation.find_time", "regulation.ban_time",
    "storage.local.path",
    *(f"storage.postgres.{key}"
      for key in ("address", "database", "username", "tls.minimum_version", "tls.skip_verify")),
    "notifier.disable_startup_check", "notifier.filesystem.filename",
    *(f"notifier.smtp.{key}" for key in ("address", "username", "sender", "tls.minimum_version", "tls.skip_verify")),
    "identity_providers.oidc.jwks[].key", "identity_providers.oidc.enforce_pkce",
    "identity_providers.oidc.authorization_policies.*.default_policy",
    *(f"identity_providers.oidc.authorization_policies.*.rules[].{key}" for key in ("policy", "subject", "networks")),
    "identity_providers.oidc.claims_policies.*.id_token",
    *(f"identity_providers.oidc.clients[].{key}"
      for key in ("client_id", "client_name", "client_secret", "public", "token_endpoint_auth_method",
                  "authorization_policy", "claims_policy", "require_pkce", "pkce_challenge_method", "redirect_uris",
                  "scopes", "response_types", "grant_types")),
}  # fmt: skip
OPEN = (
    "definitions.network",
    "identity_providers.oidc.authorization_policies",
    "identity_providers.oidc.claims_policies",
)


def keys(value: Any, place: str = "") -> set[str]:
    """The places of all values; a list of dictionaries is followed, one of plain values is a value."""
    if isinstance(value, dict):
        inner = ((f"{place}.{'*' if place in OPEN else key}".lstrip("."), each) for key, each in value.items())
        return set().union(*(keys(each, where) for where, each in inner))
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return set().union(*(keys(each, f"{place}[]") for each in value))
    return {place}


@pytest.mark.parametrize("case", CASES)
def test_configurations_are_as_reviewed(case: str) -> None:
    """After a wanted change: RINGFENCE_WRITE_GOLDEN=1 pytest tests/unit/authelia, and read the diff."""
    text, path = files(variables(case))["configuration.yml"], GOLDEN / f"{case}.yml"
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_both_engines_write_the_same(case: str) -> None:
    given = ROLE.variables(variables(case))
    template = ROLE.directory / "templates" / "desired.json.j2"
    assert ROLE.render("desired.json.j2", given) == render_with_ansible(template, given)


@pytest.mark.parametrize("case", CASES)
def test_every_key_is_one_that_authelia_knows(case: str) -> None:
    """An unknown one keeps Authelia from starting, a misspelt one in a list would be a setting that is not made."""
    assert keys(configuration(variables(case))) - KNOWN == set()


def test_the_list_of_known_keys_has_nothing_that_is_never_written() -> None:
    more = {
        "authelia_backend": "ldap",
        "authelia_ldap": {"address": "ldap://x:389", "users_filter": "(uid={input})", "attributes": {"mail": "mail"}},
    }
    written = [configuration(variables(case)) for case in CASES] + [configuration(NAMED | more)]
    assert KNOWN - set().union(*map(keys, written)) == set()


@pytest.mark.parametrize("case", CASES)
def test_secrets_are_files_and_nowhere_else(case: str) -> None:
    given = variables(case)
    asked = desired(given)
    values = asked.pop("secrets")["authelia"]
    assert values == given.get("authelia_secrets", {})
    text = json.dumps(asked)
    assert not any(value in text for value in values.values())
    [project] = asked["projects"]
    environment = project["services"][0]["environment"]
    for secret in project["secrets"]:
        assert secret["owner"] == "9091"
        assert ("generate" in secret) != (secret["name"] in values)
        if secret["name"] == "oidc_key":
            assert "X_AUTHELIA_CONFIG_FILTERS" in environment
        else:
            assert f"/run/secrets/{secret['name']}" in environment.values()
    assert [secret["name"] for secret in project["secrets"]] == project["services"][0]["secrets"]


def test_without_a_name_nothing_runs_here() -> None:
    assert desired({})["projects"] == []


def test_the_container_may_nothing_that_it_does_not_need() -> None:
    found = service(NAMED)
    assert found["user"] == "9091:9091"
    # What is not said has the defaults of the role stack: no capability, a read-only file system.
    assert not {"capabilities", "read_only", "ports", "allow_forging"} & set(found)
    assert [volume["target"] for volume in found["volumes"]] == ["/data", "/people"]
    assert found["upgrade"] == {"backup": ["data"]}


def test_what_lies_elsewhere_is_not_mounted() -> None:
    found = service(variables("services"))
    assert found["volumes"] == []
    assert found["upgrade"] == {}


def test_a_password_can_be_reset_only_where_mail_proves_who_asks() -> None:
    assert configuration(NAMED)["authentication_backend"]["password_reset"] == {"disable": True}
    by_mail = NAMED | {"authelia_notifier": "smtp", "authelia_smtp": {"address": "submissions://m", "sender": "a@b.c"}}
    assert configuration(by_mail)["authentication_backend"]["password_reset"] == {"disable": False}
    assert "smtp_password" not in service(by_mail)["secrets"]  # nobody logs in there


def test_whoever_is_removed_is_out_within_a_minute() -> None:
    by_file = configuration(NAMED)["authentication_backend"]
    assert by_file["file"]["watch"] is True
    assert by_file["refresh_interval"] == "always"
    by_ldap = configuration(variables("services"))["authentication_backend"]
    assert by_ldap["refresh_interval"] == "30 seconds"


def test_only_the_cookie_logs_in_and_only_the_proxy_asks() -> None:
    endpoints = configuration(NAMED)["server"]["endpoints"]["authz"]
    assert list(endpoints) == ["forward-auth"]  # naming one takes the others away
    assert endpoints["forward-auth"]["authn_strategies"] == [{"name": "CookieSession"}]


def test_nothing_in_a_value_is_taken_for_authelias_template_language() -> None:
    text = files(variables("services"))["configuration.yml"]
    assert text.count("{{") == 1
    assert text.count('{{ secret "/run/secrets/oidc_key"') == 1
    odd = NAMED | {"authelia_default_url": 'https://home.lab.home/{{ env "PATH" }}{{{'}
    made = files(odd)["configuration.yml"]
    assert "{{" not in made
    assert yaml.safe_load(made)["session"]["cookies"][0]["default_redirection_url"] == odd["authelia_default_url"]


def test_an_open_client_has_a_policy_and_a_narrow_one_has_its_own() -> None:
    oidc = configuration(variables("services"))["identity_providers"]["oidc"]
    clients = {client["client_id"]: client for client in oidc["clients"]}
    assert clients["vaultwarden"]["authorization_policy"] == "two_factor"
    policy = oidc["authorization_policies"][clients["nextcloud"]["authorization_policy"]]
    assert policy["default_policy"] == "deny"
    assert policy["rules"] == [
        {"policy": "two_factor", "subject": [["group:family"], ["user:owner"]], "networks": ["lan"]}
    ]
    assert all(client["require_pkce"] for client in clients.values())
    assert "client_secret" not in clients["phone"]


def test_certificates_are_where_authelia_looks_for_them() -> None:
    given = variables("services")
    given["authelia_ldap"] = given["authelia_ldap"] | {"ca": "another"}
    assert set(files(given)) == {"configuration.yml", "certificates/lab.pem", "certificates/ldap.pem"}
    assert configuration(given)["certificates_directory"] == "/etc/authelia/certificates"
    assert "certificates_directory" not in configuration(NAMED)
