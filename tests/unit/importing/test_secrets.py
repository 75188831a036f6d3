"""What is secret goes into the vault, wherever it stands; what is not stays where people can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.importing import written
from ringfence.importing.confidential import Vault, is_secret, masked
from ringfence.importing.files import read
from ringfence.importing.translate import Imported, Wishes, translate

BCRYPT = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"
APR = "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"


def imported(tmp_path: Path, services: dict[str, Any], **more: Any) -> Imported:
    (tmp_path / "compose.yml").write_text(yaml.safe_dump({"services": services, **more}))
    return translate(read([tmp_path], name="home"), Wishes("atlas"))


def plain(found: Imported) -> str:
    return " ".join(written.part(found, "compose.yml").split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PW", "hunter2"),
        ("CS2_RCONPW", "changeme"),
        ("TV_PW", "x"),
        ("PLEX_CLAIM", "claim-abcDEF123"),
        ("OTP", "123456"),
        ("TOTP_SEED", "JBSWY3DP"),
        ("accessAuthCode", "abc"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T000/B000/XXXX"),
        ("DISCORD_WEBHOOK_URL", "https://relay.example.org/send/abcdefgh"),
        ("NOTIFY", "https://discord.com/api/webhooks/123/abc"),
        ("NOTIFY", "discord://token@id"),
        ("WATCHTOWER_NOTIFICATION_URL", "pover://shoutrrr:tok@user"),
        ("URLS", "https://a.example.org, tgram://123:abc/456"),
        ("BASIC_AUTH", "user:pw"),
        ("PROXY_AUTH", "user:pw"),
        ("X", "claim-abcDEF123"),
        ("CONFIG", "port 6379\nrequirepass abc\n"),
        ("CONFIG", "server:\n  api_key: abc\n"),
        ("ConnectionStrings__Default", "Server=db;User Id=sa;Password=Yukon900!;Encrypt=no"),
        ("DSN", "host=db user=x password=y1 dbname=z"),
        ("X", '{"user": "a", "password": "b"}'),
        ("HEADER", "Authorization: Basic dXNlcjpwdw=="),
        ("HEADER", "Bearer abcdef123456"),
        ("DSN", "u:p@tcp(mysql:3306)/x"),
        ("SENTRY", "https://0123456789abcdef0123@sentry.example.org/1"),
        ("MY_PASSWORD", "/abs/PassWord1"),
        ("DB_PASSWORD", "$ecret"),
        ("DB_PASSWORD", "$ECRET"),
        ("URL", "postgres://u:$ECRET@db/x"),
        ("USERS", f"admin:{APR}"),
        ("USERS", f"one:x,user:{BCRYPT}"),
        ("HASH", "$6$salt$abcdefghijklmnop"),
        ("OPTS", "-Xmx1g -Dapi.token=abc"),
        ("LINK", "https://example.org/feed?token=abcd"),
        ("LLDAP_KEY_SEED", "some words"),
        ("AWS_ACCESS_KEY_ID", "AKIA1"),
        ("VPN_IPSEC_PSK", "abc"),
        ("BOUNCER_KEY_traefik", "abc"),
        ("CREDS", "user:hunter2x"),
        ("SNMP_COMMUNITY", "abc"),
    ],
)
def test_what_is_secret(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "https://example.org:8443/a?b=c#d"),
        ("URL", "http://db:5432/x@y"),
        ("DATABASE_URL", "postgres://app@db/app"),
        ("SLACK_WEBHOOK_URL", ""),
        ("WEBHOOK_URL", "https://n8n.example.org/"),
        ("PUID", "1000"),
        ("TOKEN_EXPIRY", "3600"),
        ("PASSWORD_MIN_LENGTH", "8"),
        ("PASSWORD_MIN", "8"),
        ("ACCESS_TOKEN_TIMEOUT", "60"),
        ("MAX_TOKENS", "4096"),
        ("KEYCLOAK_HOSTNAME", "auth.example.org"),
        ("KEYMAP", "de"),
        ("DB_PASSWORD_FILE", "/run/secrets/x"),
        ("DB_PASSWORD", "/run/secrets/x"),
        ("FILE__PASSWORD", "/config/pw"),
        ("TLS_KEY", "/certs/tls.key"),
        ("PASSWORD_LOGIN", "false"),
        ("AUTH", "basic"),
        ("OAUTH", "https://id.example.org"),
        ("JAVA_OPTS", "-Xmx1g -Dfile.encoding=UTF-8 -Duser=app"),
        ("DSN", "host=db user=x dbname=y"),
        ("TEXT", "basic authentication is on"),
        ("USER", "1000:1000"),
        ("LOCALE", "sk-SK"),
        ("PWD", "/app"),
        ("OIDC_GROUPS_CLAIM", "groups"),
        ("traefik.http.middlewares.secret-mw.stripprefix.prefixes", "/api"),
        ("SPEC", "a:b@c"),
        ("PROMPT", "$USER: $PWD"),
        ("OPTS", "passwordFile=/run/secrets/x token_expiry=60"),
        ("KEY_TYPE", "ec256"),
        ("DKIM_KEY_SIZE", "2048"),
    ],
)
def test_what_is_not(name: str, value: str) -> None:
    assert not is_secret(name, value)


@pytest.mark.parametrize(
    ("service", "secrets"),
    [
        ({"command": ["--token", "tok3n"]}, ["tok3n"]),
        ({"command": ["--token=tok3n"]}, ["tok3n"]),
        ({"command": "--db-password=pw-x --verbose"}, ["pw-x"]),
        ({"command": ["--pilot.token=tok3n", "--log=info"]}, ["tok3n"]),
        ({"command": ["redis-server", "--requirepass", "reqpw"]}, ["reqpw"]),
        ({"command": "redis-server --requirepass 'reqpw'"}, ["reqpw"]),
        ({"command": ["--accessAuthCode=cod3"]}, ["cod3"]),
        ({"command": ["sh", "-c", "curl -u admin:pw4x http://x/"]}, ["pw4x"]),
        ({"command": ["sh", "-c", "PGPASSWORD=pw4x psql -h db"]}, ["pw4x"]),
        ({"entrypoint": ["run", "--api-key", "k3y"]}, ["k3y"]),
        ({"healthcheck": {"test": ["CMD", "redis-cli", "-a", "reqpw", "ping"]}}, ["reqpw"]),
        ({"healthcheck": {"test": "redis-cli -h localhost -a reqpw ping | grep PONG"}}, ["reqpw"]),
        ({"healthcheck": {"test": ["CMD", "mysqladmin", "ping", "-h", "localhost", "-pr00t"]}}, ["r00t"]),
        ({"healthcheck": {"test": "mysqladmin ping -u root -pr00t"}}, ["r00t"]),
        ({"healthcheck": {"test": ["CMD", "curl", "-fsSu", "admin:pw4x", "http://x"]}}, ["pw4x"]),
        ({"healthcheck": {"test": ["CMD-SHELL", "curl -H 'Authorization: Bearer abcd1234' x"]}}, ["abcd1234"]),
        ({"labels": {"homepage.widget.password": "hp-word", "homepage.widget.key": "hp-key"}}, ["hp-word", "hp-key"]),
        ({"labels": [f"traefik.http.middlewares.a.basicauth.users=admin:{APR},b:{BCRYPT}".replace("$", "$$")]}, [APR]),
        ({"logging": {"driver": "json-file", "options": {"splunk-token": "spl-tok"}}}, ["spl-tok"]),
        ({"environment": {"X": "$$6$$salt$$abcdefghijklmnop"}}, ["$6$salt$abcdefghijklmnop"]),
        # A part of another secret.
        (
            {"environment": {"URL": "redis://:sup3rs3cret@cache/0"}, "command": ["serve", "sup3rs3cret"]},
            ["sup3rs3cret"],
        ),
        ({"environment": {"C": "Server=x;Password=Yukon900!;", "Y": "Yukon900!"}}, ["Yukon900!"]),
        ({"environment": {"URL": "redis://:p%40ss-word1@cache/0"}, "command": ["serve", "p@ss-word1"]}, ["p@ss-word1"]),
        ({"command": ["--requirepass", "sup3rs3cret"], "labels": {"note": "sup3rs3cret"}}, ["sup3rs3cret"]),
    ],
)
def test_no_secret_is_in_the_part(tmp_path: Path, service: dict[str, Any], secrets: list[str]) -> None:
    found = imported(tmp_path, {"app": {"image": "x:1", **service}})
    for secret in secrets:
        assert secret not in plain(found)
        assert any(secret in value or value in secret for value in found.vault.values())


def test_a_part_of_a_secret_is_found_in_another_service(tmp_path: Path) -> None:
    services = {
        "app": {"image": "x:1", "environment": {"REDIS": "redis://:sup3rs3cret@cache:6379/0"}},
        "cache": {
            "image": "redis:8",
            "command": "redis-server --requirepass sup3rs3cret",
            "healthcheck": {"test": ["CMD-SHELL", "redis-cli -a sup3rs3cret ping"]},
        },
    }
    assert "sup3rs3cret" not in plain(imported(tmp_path, services))


@pytest.mark.parametrize(
    "service",
    [
        {"command": ["--user", "1000:1000", "--tls-key", "/certs/key.pem", "--token-expiry", "60", "--p", "x"]},
        {"command": ["sh", "-c", "mysqladmin ping -p$$MYSQL_ROOT_PASSWORD --silent"]},
        {"command": ["sh", "-c", "redis-cli -a $${REDIS_PASSWORD} ping"]},
        {"command": ["--password-file", "/run/secrets/x", "--password-file=/run/secrets/x"]},
        {"command": ["sh", "-c", "psql -p 5432 -U app"]},
        {"healthcheck": {"test": "curl -f http://localhost:8080/health?check=token || exit 1"}},
        {"labels": {"traefik.http.routers.a.rule": "Host(`a.example.org`)", "homepage.widget.type": "sonarr"}},
        {"environment": {"A_USER": "postgres", "B": "postgres"}, "command": ["postgres", "-c", "ssl=on"]},
    ],
)
def test_what_is_no_secret_stays(tmp_path: Path, service: dict[str, Any]) -> None:
    assert imported(tmp_path, {"app": {"image": "x:1", **service}}).vault == {}


def test_a_password_that_is_a_services_name_takes_no_other_text_with_it(tmp_path: Path) -> None:
    services = {
        "wiki-db1": {"image": "postgres:18", "environment": {"POSTGRES_PASSWORD": "wiki-db1"}},
        "app": {
            "image": "x:1",
            "environment": {"DB_HOST": "wiki-db1", "DB_PASSWORD": "postgres", "DB_USER": "postgres"},
        },
    }
    part = imported(tmp_path, services).part["services"]
    assert part["app"]["environment"]["DB_HOST"] == "wiki-db1"
    assert part["app"]["environment"]["DB_USER"] == "postgres"
    assert part["app"]["environment"]["DB_PASSWORD"].startswith("{{ vault_")


# -- what is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'postgres://usr:l1teralPw@${DBHOST}/x' needs DBHOST", "'postgres://usr:…@${DBHOST}/x' needs DBHOST"),
        ("'${DBPW:-defaultPw12}x${Y}' needs Y", "'${DBPW:-…}x${Y}' needs Y"),
        ("'${TZ:-Europe/Berlin}' ${PORT:-8080}", "'${TZ:-Europe/Berlin}' ${PORT:-8080}"),
        ("the command has --token=abc${X}, which", "the command has --token=…, which"),
        ("the command has --token=${X}, which", "the command has --token=${X}, which"),
        ("logging: driver: splunk, splunk-token: 0123abcd-ef", "logging: driver: splunk, splunk-token: …"),
        (
            "https://u:pw@hooks.slack.com/services/T/B token=https://u:pw@x and so on",
            "https://u:…@hooks.slack.com/services/T/B token=… and so on",
        ),
        ("secrets.db_password: it is in the vault", "secrets.db_password: it is in the vault"),
        ("write the value (a secret belongs into the vault)", "write the value (a secret belongs into the vault)"),
        ("import again with --profile token, or do without", "import again with --profile token, or do without"),
        ("https://me@example.org:8080/x", "https://me@example.org:8080/x"),
    ],
)
def test_what_people_are_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("service", "secret", "told"),
    [
        ({"environment": {"X": "postgres://usr:l1teralPw@${DBHOST}/x"}}, "l1teralPw", "postgres://usr:…@${DBHOST}/x"),
        ({"environment": {"X": "${DBPW:-defaultPw12}${Y}"}}, "defaultPw12", "${DBPW:-…}${Y}"),
        ({"environment": {"DB_PASSWORD": "lit${X}"}}, "lit$", "…${X}"),
        ({"environment": {"DB_PASSWORD": "${A:-lit}${X}"}}, "lit}", "${A:-…}${X}"),
        ({"command": ["--token", "l1t${X}"]}, "l1t", "X in the command is not set"),
        ({"command": ["--db-password=l1t${X}"]}, "l1t", "X in the command is not set"),
        ({"healthcheck": {"test": "curl -u admin:l1t${X} localhost"}}, "l1t", ""),
        ({"healthcheck": {"test": ["CMD", "redis-cli", "-a", "hunter", "-h", "${X}"]}}, "hunter", "redis-cli -a … -h"),
        ({"entrypoint": ["app", "--password", "hunterx", "--host", "${X}"]}, "hunterx", "app --password … --host ${X}"),
        (
            {"post_start": [{"command": ["mysql", "--password", "swordfish"], "user": "0"}]},
            "swordfish",
            "mysql --password …",
        ),
        ({"pre_stop": [{"command": "x", "environment": {"ADMIN_PASSWORD": "sword"}}]}, "sword", "compose ran x before"),
        (
            {"environment": {"A_PASSWORD": "l1teral-pw"}, "pre_stop": [{"command": "x l1teral-pw"}]},
            "l1teral",
            "ran x …",
        ),
    ],
)
def test_no_question_shows_a_secret(tmp_path: Path, service: dict[str, Any], secret: str, told: str) -> None:
    found = plain(imported(tmp_path, {"app": {"image": "x:1", **service}}))
    assert secret not in found
    assert told in found


def test_a_long_text_is_looked_through_at_once(tmp_path: Path) -> None:
    vault = Vault(read([_empty(tmp_path)], name="home"), "home")
    assert vault.kept("a1B2" * 50_000 + " x", "files") == "a1B2" * 50_000 + " x"
    assert vault.kept("a-" * 50_000 + " x", "files") == "a-" * 50_000 + " x"
    assert vault.kept("a,a=" * 20_000 + " x", "files") == "a,a=" * 20_000 + " x"
    assert vault.kept("a=b " * 20_000, "files") == "a=b " * 20_000


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'x:1'}}")
    return tmp_path
