"""Secrets that are made on the host: once, kept, never shown; and how one is rotated."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import STACKS, Facts, File, converged, program

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----\n"
HEX = "5" * 64


@pytest.fixture
def made(desired: dict[str, Any]) -> dict[str, Any]:
    """The project with its secrets made on the host: `token` is a file, `key` in a directory that is swapped."""
    desired["projects"][0]["secrets"][0]["generate"] = "hex64"
    desired["projects"][0]["secrets"][1]["generate"] = "rsa2048"
    desired["secrets"] = {}
    return desired


def settled(made: dict[str, Any]) -> Any:
    """The host after a complete run."""
    facts = converged({**made, "secrets": {"shop": {"token": HEX, "key": KEY}}})
    facts.kept = {"shop": {"token": HEX, "key": KEY}}
    return facts


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(program, "STORE", tmp_path / "store")
    monkeypatch.setattr(program, "FOR_ALL", tmp_path)
    return tmp_path / "store"


def test_on_a_bare_host_secrets_are_announced_by_their_names(made: dict[str, Any]) -> None:
    plan = program.make_plan(made, Facts())
    assert plan.refusals == []
    assert plan.changes[:4] == [
        "+ project shop: 4 services",
        "+ secret shop/token (made on the host)",
        "+ secret shop/key (made on the host)",
        "+ container shop-web-1 (docker.io/library/nginx:1.29)",
    ]


def test_what_is_kept_is_never_made_again(made: dict[str, Any]) -> None:
    plan = program.make_plan(made, settled(made))
    assert (plan.changes, plan.refusals) == ([], [])


def test_a_run_that_died_after_it_made_them_is_finished_with_the_same_values(made: dict[str, Any]) -> None:
    plan = program.make_plan(made, Facts(kept={"shop": {"token": HEX, "key": KEY}}))
    assert plan.files[STACKS / "shop/secrets/token"] == File(HEX.encode(), 0o400, 70, True)
    assert plan.trees[STACKS / "shop/config/proxy/run/secrets"]["key"] == File(KEY.encode(), 0o400, 33, True)
    assert not any("made on the host" in line for line in plan.changes)
    assert HEX not in str(plan.changes)


def test_a_value_that_was_given_until_now_is_kept(made: dict[str, Any]) -> None:
    facts = settled(made)
    facts.kept = {}
    plan = program.make_plan(made, facts)
    assert plan.changes == [f"+ secret shop/{name} (kept as it is in its file)" for name in ("token", "key")]
    program.make_secrets(made, facts)
    assert facts.fresh == {"shop": {"token": HEX, "key": KEY}}


def test_a_value_of_another_kind_gives_way(made: dict[str, Any]) -> None:
    facts = settled(made)
    facts.kept = {"shop": {"key": KEY}}
    facts.entries[STACKS / "shop/secrets/token"] = File(b"hunter22", 0o400, 70)
    plan = program.make_plan(made, facts)
    assert plan.changes == [
        "+ secret shop/token (made on the host)",
        f"~ secret {STACKS}/shop/secrets/token: content",
        "~ container shop-web-1: older than its secret token",
    ]


def test_what_is_kept_and_is_not_of_the_kind_is_refused_and_not_overwritten(made: dict[str, Any]) -> None:
    facts = settled(made)
    facts.kept["shop"]["token"] = "hunter22"
    (refusal,) = program.make_plan(made, facts).refusals
    assert "/var/lib/ringfence/stack/secrets/shop/token is not what `generate: hex64` makes" in refusal
    assert "hunter22" not in refusal


def test_a_value_for_a_secret_that_is_made_here_is_refused(made: dict[str, Any]) -> None:
    made["secrets"] = {"shop": {"token": "hunter22"}}
    (refusal,) = program.unfit(made)
    assert "'token' is made on the host, and has a value in stack_secrets (remove one of the two)" in refusal
    assert "hunter22" not in refusal


def test_an_unknown_kind_is_refused(made: dict[str, Any]) -> None:
    made["projects"][0]["secrets"][0]["generate"] = "hex32"
    (refusal,) = program.unfit(made)
    assert "generate: 'hex32' is not known (write hex64 or rsa2048)" in refusal


def test_without_openssl_nothing_is_changed_and_a_dry_run_says_so(made: dict[str, Any]) -> None:
    facts = Facts(openssl=False)
    assert program.make_plan(made, facts).refusals == []
    assert "apt-get install openssl" in program.make_plan(made, facts).notices[0]
    assert "apt-get install openssl" in program.make_plan(made, facts, networks_follow=False).refusals[-1]
    facts = settled(made)
    facts.openssl = False  # is not asked, as nothing is to be made
    assert program.make_plan(made, facts, networks_follow=False).refusals == []


def test_removed_projects_and_secrets_leave_their_values_and_say_where(made: dict[str, Any]) -> None:
    facts = settled(made)
    facts.copied = {"shop"}
    (line,) = program.make_plan({**made, "projects": []}, facts).changes
    assert line.endswith(
        "; secrets kept in /var/lib/ringfence/stack/secrets/shop: key, token; copies of volumes kept in"
        " /var/lib/ringfence/stack/backups/shop"
    )
    shop = made["projects"][0]
    shop["secrets"], shop["services"][0]["secrets"], shop["services"][3]["secrets"] = [], [], []
    (notice,) = program.make_plan(made, facts).notices
    assert "made on this host for key, token is kept in /var/lib/ringfence/stack/secrets/shop" in notice


def test_a_plan_is_made_once_more_with_what_this_run_makes(made: dict[str, Any]) -> None:
    facts = Facts(fresh={"shop": {"token": HEX, "key": KEY}})
    plan = program.make_plan(made, facts)
    assert plan.files[STACKS / "shop/secrets/token"].content == HEX.encode()
    assert plan.changes == program.make_plan(made, Facts()).changes
    assert program.everything_secret(made, facts) == {"0": {"token": HEX, "key": KEY}}


def test_values_are_what_their_kind_says() -> None:
    made = {program.make_secret("hex64") for _ in range(5)}
    assert len(made) == 5
    assert all(program.KINDS["hex64"].fullmatch(one) for one in made)
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = program.make_secret("rsa2048")
    key = load_pem_private_key(text.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    assert key.key_size == 2048
    assert program.KINDS["rsa2048"].fullmatch(text)


def test_without_openssl_no_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(program, "SEARCH", "/nowhere")
    assert not program.has_openssl()
    with pytest.raises(program.Fault, match="openssl is not installed"):
        program.make_secret("rsa2048")


def test_values_are_roots_alone(store: Path) -> None:
    program.keep_secret("shop", "token", HEX)
    program.keep_secret("shop", "key", KEY)
    assert program.kept_secrets("shop") == {"token": HEX, "key": KEY}
    assert program.kept_secrets("other") == {}
    assert stat.S_IMODE((store / "shop/token").stat().st_mode) == 0o400
    assert [stat.S_IMODE(path.stat().st_mode) for path in (store, store / "shop")] == [0o700, 0o700]


def test_what_rotate_needs_is_beside_the_project_and_only_where_something_was_made(
    made: dict[str, Any], desired: dict[str, Any]
) -> None:
    (path,) = [path for path in converged(made).entries if path.name == "project.json"]
    said = json.loads(converged(made).entries[path].content)
    assert said["secrets"] == {"token": "hex64", "key": "rsa2048"}
    assert [service["name"] for service in said["services"]] == ["web", "proxy"]
    for secret in made["projects"][0]["secrets"]:
        del secret["generate"]
    assert json.loads(converged(made).entries[path].content) == {"owner": "stack"}


# -- rotating


class Host:
    """Docker, as far as `rotate` asks it: every container of the project runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, broken: str = "") -> None:
        self.made_anew: list[list[str]] = []
        self.reloaded: list[str] = []
        self.broken = broken  # a service that works with no other value than its first one
        monkeypatch.setattr(program, "docker_runs", lambda: True)
        monkeypatch.setattr(program, "own", self.own)
        monkeypatch.setattr(program, "there", self.there)
        monkeypatch.setattr(program, "compose_up", self.compose_up)
        monkeypatch.setattr(program, "wait", lambda *_, **__: None)
        monkeypatch.setattr(program, "reload", self.reload)
        monkeypatch.setattr(program, "settle", lambda *_: None)

    def own(self, project: str, service: str) -> list[dict[str, Any]]:
        name = f"{project}-{service}-1"
        return [{"id": name, "name": name, "state": "running", "status": "Up", "labels": {}}]

    def there(self, path: str) -> dict[str, Any]:
        return {"Id": "one", "State": {"StartedAt": "x"}}

    def compose_up(self, project: str, services: list[str], *_: Any) -> None:
        self.made_anew.append(services)
        value = (program.ROOT / "shop/secrets/token").read_text()
        if self.broken in services and value != HEX:
            raise program.Fault("it ended")

    def reload(self, project: Any, service: dict[str, Any], had: Any, seconds: float) -> None:
        self.reloaded.append(service["name"])


@pytest.fixture
def applied(made: dict[str, Any], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's directory on disk; its service `proxy` reads the token as well, without being made anew."""
    monkeypatch.setattr(program, "ROOT", tmp_path / "stacks")
    monkeypatch.setattr(program, "LOCK", tmp_path / "stacks/.lock")
    monkeypatch.setattr(program, "JOURNALS", tmp_path / "upgrades")
    made["projects"][0]["secrets"].append({"name": "given"})
    made["projects"][0]["services"][3]["secrets"] = ["key", "token", "given"]
    here = tmp_path / "stacks/shop"
    (here / "secrets").mkdir(parents=True)
    (here / "project.json").write_text(json.dumps({"owner": "stack", **program.rotation(made["projects"][0])}))
    (here / "secrets/token").write_text(HEX)
    (here / "secrets/token").chmod(0o440)
    tree = here / "config/proxy/run/secrets"
    (tree / "..1").mkdir(parents=True)
    for name, value in {"key": KEY, "token": HEX, "given": "hunter22"}.items():
        (tree / "..1" / name).write_text(value)
    program.swap(tree, "..1")
    program.keep_secret("shop", "token", HEX)
    program.keep_secret("shop", "key", KEY)
    return here


def test_a_rotated_secret_is_read_by_all_that_mount_it(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    answer = program.rotate(["shop", "token"])
    value = program.kept_secrets("shop")["token"]
    assert answer["changes"] == [
        "~ secret shop/token: a new value, made on the host",
        "~ container shop-web-1: made anew, it reads the new value",
        "~ container shop-proxy-1: it has read the new value",
    ]
    assert value != HEX
    assert program.KINDS["hex64"].fullmatch(value)
    assert (applied / "secrets/token").read_text() == value
    assert stat.S_IMODE((applied / "secrets/token").stat().st_mode) == 0o440
    tree = applied / "config/proxy/run/secrets"
    assert {path.name: path.read_text() for path in tree.iterdir() if path.name in ("key", "token", "given")} == {
        "key": KEY, "token": value, "given": "hunter22",
    }  # fmt: skip
    assert (host.made_anew, host.reloaded) == ([["web"]], ["proxy"])
    assert value not in str(answer)
    assert program.TELL.clean(f"{HEX} {value} hunter22") == "******** ******** ********"


def test_a_service_that_does_not_work_with_the_new_value_gets_the_old_one_back(
    applied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(monkeypatch, broken="web")
    with pytest.raises(program.Fault, match=r"(?s)shop/token was not rotated: it ended.*the old value is back"):
        program.rotate(["shop", "token"])
    assert program.kept_secrets("shop")["token"] == HEX
    assert (applied / "secrets/token").read_text() == HEX
    assert (applied / "config/proxy/run/secrets/token").read_text() == HEX
    assert (host.made_anew, host.reloaded) == ([["web"], ["web"]], ["proxy", "proxy"])


def test_a_rotation_that_is_killed_is_finished_by_the_next_run(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch)
    monkeypatch.setattr(program, "_hand_over", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        program.rotate(["shop", "token"])
    assert program.kept_secrets("shop")["token"] != HEX  # a file that differs from it is what a check sees


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "write `ringfence-stack rotate PROJECT SECRET`"),
        (["shop"], "write `ringfence-stack rotate PROJECT SECRET`"),
        (["shpo", "token"], "there is no project 'shpo' here; did you mean shop?"),
        (["../shop", "token"], "there is no project"),
        (["shop", "tokn"], "has no secret 'tokn' that was made on the host; did you mean token?"),
        (["shop", "given"], "shop/given was given, not made on the host: change its value in stack_secrets and apply"),
    ],
)
def test_what_cannot_be_rotated_is_refused(
    applied: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    Host(monkeypatch)
    with pytest.raises(program.Fault) as caught:
        program.rotate(words)
    assert told in str(caught.value)
    assert program.kept_secrets("shop") == {"key": KEY, "token": HEX}


def test_nothing_is_rotated_while_another_image_or_an_upgrade_is_pending(
    applied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = Host(monkeypatch)
    (applied / "compose.yaml").write_text(json.dumps({"services": {"web": {"image": "i:1"}}}))
    monkeypatch.setattr(
        program,
        "own",
        lambda project, service: [
            {**host.own(project, service)[0], "labels": {"com.docker.compose.image": "sha256:before"}}
        ],
    )
    with pytest.raises(program.Fault, match="shop-web-1 would get another image as well"):
        program.rotate(["shop", "token"])
    (tmp_path / "upgrades/shop").mkdir(parents=True)
    (tmp_path / "upgrades/shop/journal.json").write_text("{}")
    with pytest.raises(program.Fault, match="an upgrade of the project shop was interrupted"):
        program.rotate(["shop", "token"])
    assert program.kept_secrets("shop") == {"key": KEY, "token": HEX}
