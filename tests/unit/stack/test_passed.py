"""What passes through `compose:` arrives byte for byte; what the fence owns does not pass."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from ringfence.host.passing import PASSED
from ringfence.model.passed import passed_of, schema_file
from tests.unit.stack.cases import LOG, TEXTS, container, converged, made_of, program

ODD = ["$HOME ${X:-y} $$", "'\"\\", "a\nb\r\n", "yes", "0x10", "1e3", "~", "{{ x }}", "{% x %}", "- a: #b", " "]
FULL: dict[str, Any] = {
    "hostname": "app", "domainname": "lab.home", "entrypoint": ["/bin/sh", "-c"], "working_dir": "/srv", "tty": True,
    "labels": {"a": "b"}, "restart": "on-failure:3", "shm_size": "256m", "cpus": 1.5, "stop_grace_period": "1m30s",
    "sysctls": {"net.core.somaxconn": "1024"}, "ulimits": {"nofile": {"soft": 1024, "hard": 2048}, "nproc": 65535},
    "logging": {"driver": "local"}, "pull_policy": "never", "stop_signal": "SIGINT", "stdin_open": False,
    "healthcheck": {"interval": "1m", "timeout": "10s", "retries": 5, "start_period": "5m", "start_interval": "1s"},
}  # fmt: skip


def services_of(desired: dict[str, Any], compose: dict[str, Any], newest: bool = False) -> dict[str, Any]:
    desired["projects"][0]["services"][0]["compose"] = compose
    made = yaml.safe_load(program.as_yaml(made_of(desired, newest=newest)))
    found: dict[str, Any] = made["services"]
    return found


def test_every_setting_of_the_specification_passes_or_is_refused_with_what_to_write() -> None:
    defined = json.loads(schema_file().read_text(encoding="utf-8"))["$defs"]
    known = [key for part in ("service", "container_spec", "workload_spec") for key in defined[part]["properties"]]
    assert set(PASSED) <= set(known)
    assert len(known) > 90
    for key in set(known) - set(PASSED):
        with pytest.raises(ValueError, match=rf"'{key}' is not passed on \(.*(write|leave|is built|say)"):
            passed_of({key: "x"})


def test_what_passes_has_the_form_that_it_was_given() -> None:
    assert passed_of(FULL) == FULL
    assert passed_of(passed_of(FULL)) == FULL
    assert passed_of({"labels": ["a=b=$c"], "restart": False, "sysctls": {"net.core.somaxconn": 8}}) == {
        "labels": {"a": "b=$c"}, "restart": "no", "sysctls": {"net.core.somaxconn": "8"},
    }  # fmt: skip


UNDOING = (
    "net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.eth0.forwarding", "kernel.domainname",
    "net.ipv4.conf.all.route_localnet", "net.ipv4.conf.all.proxy_arp", "vm.overcommit_memory", "kernel.core_pattern",
    "net.ipv4.conf.all.accept_redirects",
)  # fmt: skip


@pytest.mark.parametrize("name", UNDOING)
def test_no_setting_of_the_kernel_undoes_the_fence(name: str) -> None:
    with pytest.raises(ValueError, match="undoes the fence"):
        passed_of({"sysctls": {name: 1}})


@pytest.mark.parametrize(
    ("compose", "words"),
    [
        ({"stop_signal": "NOPE"}, "'stop_signal' is no signal (write it as SIGTERM)"),
        ({"stop_signal": "65"}, "is no signal"),
        ({"cpus": -1}, "'cpus' is out of range (write a number from 0 to 4096)"),
        ({"cpu_shares": -1}, "is out of range"),
        ({"cpu_period": 5}, "'cpu_period' is out of range (write a number from 1000 to 1000000)"),
        ({"cpu_quota": 5}, "is out of range"),
        ({"cpuset": "x"}, "'cpuset' is no list of processors (write it as 0-2,5)"),
        ({"mem_swappiness": 200}, "'mem_swappiness' is out of range (write a number from -1 to 100)"),
        ({"oom_score_adj": -1000.5}, "'oom_score_adj' is"),
        ({"healthcheck": {"retries": -1}}, "'healthcheck.retries' is out of range"),
        ({"ulimits": {"bogus": 1}}, "'ulimits.bogus' is no limit that the kernel has (write one of core, cpu"),
        ({"ulimits": {"nofile": {"soft": 5, "hard": 3}}}, "'ulimits.nofile' has a soft limit above the hard one"),
        ({"ulimits": {"nofile": -2}}, "'ulimits.nofile' is no limit (write a whole number, or -1 for none)"),
        ({"storage_opt": {"sise": "1g"}}, "'storage_opt.sise' is not known to any storage here"),
        ({"storage_opt": {"size": "much"}}, "'storage_opt.size' is no amount (write it as 10g)"),
        ({"hostname": "a" * 65}, "'hostname' has more than 64 bytes"),
    ],
)
def test_what_the_engine_would_refuse_in_the_middle_is_refused_before(compose: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"\(") as refused:
        passed_of(compose)
    assert words in str(refused.value)


def test_what_the_engine_takes_passes() -> None:
    for compose in (
        {"stop_signal": "SIGRTMIN+3"}, {"stop_signal": "term"}, {"stop_signal": "37"}, {"cpus": 0.5}, {"cpus": "1.5"},
        {"mem_swappiness": 0}, {"ulimits": {"memlock": -1, "nofile": {"soft": 1024, "hard": -1}}}, {"cpuset": "0-2,5"},
        {"storage_opt": {"size": "10g"}}, {"oom_score_adj": -500}, {"cpu_shares": 512}, {"cpu_quota": 50000},
    ):  # fmt: skip
        assert passed_of(compose) == compose


ACTED_ON = (
    "org.systemd.property.Slice", "org.systemd.property.CPUWeight", "run.oci.hooks.stdout", "run.oci.systemd.subgroup",
    "io.kubernetes.cri-o.Devices", "io.kubernetes.cri.container-type", "io.katacontainers.config.hypervisor.path",
    "com.docker.compose.project", "com.docker.network.x", "org.criu.config", "module.wasm.image/variant", "bundle",
    "dev.gvisor.spec.mount.x", "cdi.k8s.io/gpu", "container.apparmor.security.beta.kubernetes.io/x",
    "org.opencontainers.runc.x", "Org.Systemd.Property.Slice", " org.systemd.property.Slice",
)  # fmt: skip


@pytest.mark.parametrize("name", ACTED_ON)
def test_no_annotation_that_a_runtime_acts_on_passes(desired: dict[str, Any], name: str) -> None:
    for given_ in ({name: "'system.slice'"}, [f"{name}='system.slice'"]):
        with pytest.raises(ValueError, match=r"acts on, past the fence \(leave it out"):
            passed_of({"annotations": given_})
        service = desired["projects"][0]["services"][0] | {"compose": {"annotations": given_}}
        [fault] = program.service_faults(desired["projects"][0], service)
        assert fault.startswith(f"compose: annotations.{name} is one")


def test_annotations_of_ones_own_pass() -> None:
    own = {"com.example.note": "x", "backup": "yes", "org.example/systemd": "1"}
    assert passed_of({"annotations": own}) == {"annotations": own}


def test_a_role_alone_is_held_to_the_same_where_it_writes_lists(desired: dict[str, Any]) -> None:
    compose = {"sysctls": ["net.ipv4.ip_forward=1"], "labels": ["ringfence.project=other", "a=b"]}
    service = desired["projects"][0]["services"][0] | {"compose": compose}
    first, second = program.service_faults(desired["projects"][0], service)
    assert "labels.ringfence.project is a label" in first
    assert "sysctls.net.ipv4.ip_forward is none of a container's own" in second
    assert services_of(desired, {"labels": ["a=b"]})["web"]["labels"]["a"] == "b"


@pytest.mark.parametrize("text", ODD)
def test_texts_arrive_byte_for_byte(desired: dict[str, Any], text: str) -> None:
    given_ = passed_of({"labels": {"k": text}, "entrypoint": [text], "working_dir": text, "hostname": text})
    web = services_of(desired, given_)["web"]
    literal = text.replace("$", "$$")  # which compose reads as the text
    assert [web["labels"]["k"], *web["entrypoint"], web["working_dir"], web["hostname"]] == [literal] * 4


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_any_text_arrives(text: str) -> None:
    entry = program.passed({"labels": {"ringfence.service": "x"}, "logging": LOG}, passed_of({"labels": {"k": text}}))
    assert yaml.safe_load(program.as_yaml(entry))["labels"]["k"] == text.replace("$", "$$")


@pytest.mark.parametrize("none", [{}, []])
def test_who_passes_no_labels_on_keeps_the_fences_own(none: Any) -> None:
    entry = program.passed({"labels": {"ringfence.service": "x"}, "logging": LOG}, passed_of({"labels": none}))
    assert entry["labels"] == {"ringfence.service": "x"}


def test_the_fence_stays_around_what_passes(desired: dict[str, Any]) -> None:
    before = services_of(desired, {})["web"]
    web = services_of(desired, FULL)["web"]
    changed = {key for key in before if web[key] != before[key]}
    assert changed <= {"restart", "labels", "logging", "healthcheck"}
    assert web["labels"].items() > {k: v for k, v in before["labels"].items() if k != "ringfence.spec"}.items()
    assert "start_interval" not in web["healthcheck"]  # the engine is an old one
    assert services_of(desired, FULL, newest=True)["web"]["healthcheck"]["start_interval"] == "1s"


def test_a_log_in_files_is_rotated_whatever_is_said(desired: dict[str, Any]) -> None:
    web = services_of(desired, {"logging": {"options": {"max-file": "9"}}})["web"]
    assert web["logging"]["options"] == {"max-size": "10m", "max-file": "9", "tag": "{{.Name}}"}


def test_a_role_that_hands_over_more_is_refused(desired: dict[str, Any]) -> None:
    service = desired["projects"][0]["services"][0] | {"compose": {"privileged": True, "sysctls": {"kernel.x": "1"}}}
    faults = "\n".join(program.service_faults(desired["projects"][0], service))
    assert "compose: privileged is not passed on" in faults
    assert "compose: sysctls.kernel.x is none of a container's own" in faults


def test_a_service_that_ended_with_0_is_done_and_one_that_failed_is_not(desired: dict[str, Any]) -> None:
    desired["projects"][0]["services"][0]["compose"] = {"restart": "no"}
    name = f"shop-{desired['projects'][0]['services'][0]['name']}-1"
    one = container(converged(desired), name)
    assert not program.is_done(one)
    one |= {"state": "exited", "status": "Exited (0) 3 seconds ago"}
    assert not program.is_done(one)  # it is the label that says that it may end
    one["labels"]["ringfence.once"] = "true"
    assert program.is_done(one)
    assert program.ready(one, {})
    assert program.is_well(one)
    one["status"] = "Exited (1) 3 seconds ago"
    assert not program.is_done(one)
    assert program.gave_up(one)


def test_who_depends_on_one_that_ends_waits_until_it_is_done(desired: dict[str, Any]) -> None:
    services = desired["projects"][0]["services"]
    index = next(n for n, s in enumerate(services) if s["name"] == "db")
    services[index]["compose"] = {"restart": "no"}
    made = made_of(desired)["services"]
    assert made["web"]["depends_on"]["db"] == {"condition": "service_completed_successfully"}
    assert made["db"]["labels"]["ringfence.once"] == "true"
