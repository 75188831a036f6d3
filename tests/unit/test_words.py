"""What people write who know compose is answered with what to write here; no message is a list of everything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from ringfence.compile import compile_lab
from ringfence.model import LabError, base, identity, lab, tailnet, vpn, words
from ringfence.model.read import explain

BASE = Path(__file__).resolve().parents[1] / "fixtures" / "valid" / "base.yml"
# Every attribute of a service in the Compose Specification.
COMPOSE = [
    "annotations", "attach", "build", "blkio_config", "cap_add", "cap_drop", "cgroup", "cgroup_parent",
    "command", "configs", "container_name", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota",
    "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus", "cpuset", "credential_spec", "depends_on",
    "deploy", "develop", "device_cgroup_rules", "devices", "dns", "dns_opt", "dns_search", "domainname",
    "driver_opts", "entrypoint", "env_file", "environment", "expose", "extends", "external_links",
    "extra_hosts", "gpus", "group_add", "healthcheck", "hostname", "image", "init", "ipc", "isolation",
    "label_file", "labels", "links", "logging", "mac_address", "mem_limit", "mem_reservation", "mem_swappiness",
    "memswap_limit", "network_mode", "networks", "oom_kill_disable", "oom_score_adj", "pid", "pids_limit",
    "platform", "ports", "post_start", "pre_stop", "privileged", "profiles", "pull_policy", "read_only",
    "restart", "runtime", "scale", "secrets", "security_opt", "shm_size", "stdin_open", "stop_grace_period",
    "stop_signal", "storage_opt", "sysctls", "tmpfs", "tty", "ulimits", "user", "userns_mode", "uts", "volumes",
    "volumes_from", "working_dir",
]  # fmt: skip
FIELDS = [info.alias or name for name, info in lab.Service.model_fields.items()]


def told(**service: Any) -> str:
    variables = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    variables["lab_services"]["app"] |= service
    with pytest.raises(LabError) as caught:
        compile_lab(variables)
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize("word", sorted(set(COMPOSE) - set(FIELDS)))
def test_every_word_of_compose_is_answered(word: str) -> None:
    text = told(**{word: "x"})
    assert f"'{word}' is not a setting here (" in text
    assert "did you mean" not in text
    assert "docs/model.md lists" not in text
    assert re.search(r"write |leave (it )?out|nothing is built|say who", text)


@pytest.mark.parametrize("word", sorted(words._PASSED - set(FIELDS) - set(words._SERVICE)))
def test_what_the_fence_does_not_own_goes_under_compose(word: str) -> None:
    assert words.instead("Service", word, ["image", "compose"]) == f"write it under compose: {{{word}: …}}"
    assert "has no place here" in words.instead("Service", word, ["image"])


def test_what_is_answered_is_no_field_and_what_is_named_is_one() -> None:
    for word, answer in words._SERVICE.items():
        assert word not in FIELDS, word
        for field in re.findall(r"\bwrite (\w+):", answer):
            assert field in FIELDS, answer
    for model, answers in words._OTHERS.items():
        names = [info.alias or name for name, info in getattr(lab, model).model_fields.items()]
        assert not set(answers) & set(names), model


def test_a_misspelt_setting_is_still_told() -> None:
    assert "did you mean 'segments'?" in told(segmens=["frontend"])
    long = told(qqqq=1)
    assert "remove it" in long
    assert len(long) < 200


@pytest.mark.parametrize(
    ("setting", "value", "answer"),
    [
        ("publish", ["127.0.0.1:8080:80"], "write {port: 80, published: 8080, address: self}: the host's alone"),
        ("publish", ["[::1]:8080:80"], "write {port: 80, published: 8080, address: self}: the host's alone"),
        ("publish", ["10.0.0.5:80:80"], "write {port: 80, published: 80, address: 10.0.0.5, from: [lan]}"),
        ("publish", ["0.0.0.0:80:80"], "write {port: 80, published: 80, from: [lan]}"),
        ("publish", ["80-90:80-90"], "write {port: 80-90, published: 80-90, from: [lan]}"),
        ("publish", ["8080-8090/udp"], "write {port: 8080-8090/udp, from: [lan]}"),
        ("publish", ["80/sctp"], "write {port: 80, from: [lan]}"),
        ("publish", "80:80", "write {port: 80, published: 80, from: [lan]}"),
        ("devices", [{"source": "/dev/a", "target": "/dev/b", "permissions": "rw"}], "(write /dev/a:/dev/b:rw)"),
        ("devices", [{"source": "/dev/a"}], "(write /dev/a)"),
        ("network", {"mode": "host"}, "(write network: host)"),
        ("network", "bridge", "'bridge' is not a service (remove network: each of its segments is a bridge"),
        ("network", "service:broker", "(write network: broker, a service of lab_services)"),
        ("compose", {"network_mode": "host"}, "write network: host, network: none or network: <service>"),
        ("services", {"a": {}}, "write each service under lab_services"),
        ("command", "a 'hunter2", "a quotation mark in it is not closed (correct it, or write a list of words"),
        ("validate", 'a "b', "a quotation mark in it is not closed"),
        ("reload", "a \\", "it ends in a backslash"),
        ("pids", -1, "'-1' is too small (write 1 or more)"),
        ("pids", 4194305, "'4194305' is too large (write 4194304 or less)"),
        ("pids", True, "'true' is not a whole number (write one, such as 200)"),
        ("pid", "x", "'x' is not known here (write host or leave it out)"),
        ("image", {"a": "hunter2"}, "a mapping is not an image"),
        ("port", {"target": 80}, "a mapping is not a port"),
        ("publish", ["53:53/udp"], "write {port: 53/udp, published: 53, from: [lan]}"),
        ("publish", ["80"], "write {port: 80, from: [lan]}"),
        ("publish", [80], "write {port: 80, from: [lan]}"),
        ("calls", "app-db", "write calls: [app-db]"),
        ("segments", "frontend", "write segments: [frontend]"),
        ("capabilities", "CHOWN", "write capabilities: [CHOWN]"),
        ("environment", ["PASSWORD=hunter2"], "is a list (write each as TZ: Europe/Berlin"),
        ("volumes", ["data:/data:z"], "write it as data:/var/lib/app"),
    ],
)
def test_a_value_of_composes_shape_is_answered(setting: str, value: Any, answer: str) -> None:
    text = told(**{setting: value})
    assert answer in text
    assert "hunter2" not in text
    assert not re.search(r"input should|\{'|True\b", text), "Python's words, or pydantic's"


def test_a_call_that_is_wrong_inside_is_not_told_as_one_of_composes() -> None:
    assert "is not a port" in (text := told(calls=[{"service": "app-db", "port": 99999}]))
    assert "is not a list" not in text


def models() -> list[type[BaseModel]]:
    found = [one for module in (base, identity, lab, tailnet, vpn) for one in vars(module).values()]
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]


def test_no_regular_expression_reaches_a_user() -> None:
    """Pydantic tells a pattern by showing it: no field has one, each says in words what it takes."""
    for model in models():
        for name, info in model.model_fields.items():
            assert not any(getattr(one, "pattern", None) for one in info.metadata), f"{model.__name__}.{name}"
    root = BASE.parents[3]
    for source in [*root.glob("ringfence/**/*.py"), *root.glob("roles/*/files/ringfence-*"), *root.glob("lab/*.py")]:
        assert not re.search(r"\{[^{}]*\.pattern\}", source.read_text(encoding="utf-8")), source
    for path in sorted((BASE.parents[1] / "invalid").glob("*.yml")):
        expected = "\n".join(yaml.safe_load(path.read_text(encoding="utf-8"))["expect"])
        assert not re.search(r"\[a-z|\\w|\(\?|\^\(", expected), path.name


@pytest.mark.parametrize(
    ("model", "given", "answer"),
    [
        (identity.Smtp, {"address": "mail.example.org", "sender": "x"}, "submissions://mail.example.org:465"),
        (identity.Site, {"name": "x", "max_body": "10 gigabytes"}, "write a number with KB, MB or GB"),
        (identity.Acme, {"email": "a@b.c", "dns": "Cloud Flare"}, "lower-case letters, digits and '_'"),
        (identity.Tls, {"owner": "postgres"}, "write its number, such as 1000"),
        (lab.Volume, {"source": "my data", "target": "/x"}, "write a name of letters, digits"),
    ],
)
def test_what_a_form_is_stands_in_words(model: type[BaseModel], given: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    [problem] = explain(caught.value, "lab_x")
    assert answer in str(problem)
