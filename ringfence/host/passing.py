"""The rest of a compose service: what is passed on as it is, for the fence does not stand or fall with it.

Only what is named here passes: what a later compose learns is refused until somebody has looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PASSED = (
    "annotations", "attach", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime",
    "cpu_shares", "cpus", "cpuset", "domainname", "entrypoint", "healthcheck", "hostname", "labels", "logging",
    "mem_reservation", "mem_swappiness", "memswap_limit", "oom_kill_disable", "oom_score_adj", "platform",
    "pull_policy", "restart", "shm_size", "stdin_open", "stop_grace_period", "stop_signal", "storage_opt", "sysctls",
    "tty", "ulimits", "working_dir",
)  # fmt: skip
TIMINGS = ("interval", "retries", "start_interval", "start_period", "timeout")
# Drivers that keep a log on the host; others would send it from the host itself, past what is declared.
_LOGS = ("json-file", "local", "journald", "none")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:[0-9]+)?")
# What a namespace has of its own. Of the network's, nothing that makes a container forward, pose or lead others astray.
_SYSCTL = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+"
    r"|net\.core\.somaxconn|net\.unix\.max_dgram_qlen|net\.ipv4\.tcp_[a-z0-9_]+"
    r"|net\.ipv4\.(ip_local_port_range|ip_local_reserved_ports|ip_unprivileged_port_start|ping_group_range)"
    r"|net\.ipv4\.conf\.(all|default)\.src_valid_mark|net\.ipv6\.conf\.(all|default|lo)\.disable_ipv6"
)
_OURS = ("ringfence.", "com.docker.compose.")
# What runtimes read and do, past everything that is declared: systemd's properties (another slice, so another fence),
# hooks, devices, checkpoints, another kernel in place of the container. Names of one's own domain are read by
# nobody.
_ACTED_ON = (
    "bundle", "cdi.k8s.io/", "com.docker.", "com.github.containers.", "com.nvidia.", "container.apparmor.",
    "container.seccomp.", "cri-o.", "dev.gvisor.", "dev.runj.", "io.balena.", "io.cdi.", "io.containerd.",
    "io.containers.", "io.cri-o", "io.crio", "io.crun", "io.katacontainers", "io.kubernetes.", "io.podman.",
    "io.youki", "module.wasm.", "nerdctl/", "org.criu.", "org.freebsd.", "org.libcrun", "org.opencontainers.",
    "org.systemd.", "run.oci.", "seccomp.", "security.alpha.kubernetes.io/",
)  # fmt: skip
_KUBERNETES = re.compile(r"([a-z0-9.-]+\.)?(kubernetes|k8s)\.io/.*", re.S)
_DURATION = re.compile(r"(?=.)([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?([0-9]+us)?")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BYTES = re.compile(r"[0-9]+(\.[0-9]+)? ?([bkmgt]b?)?", re.IGNORECASE)


def passing_faults(compose: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each setting that is not passed on as it is, and why, with the fix."""
    for key in compose:
        if key not in PASSED:
            yield key, f"is not passed on (leave it out; what is: {', '.join(PASSED)})"
    restart = compose.get("restart", "no")
    if not _RESTART.fullmatch(str(restart)):
        yield "restart", f'is {restart!r} (write "no", always, unless-stopped, on-failure or on-failure:5)'
    for name in _mapping(compose, "labels"):
        if name.startswith(_OURS):
            yield f"labels.{name}", "is a label by which containers are told apart here (give it another name)"
    for name in _mapping(compose, "annotations"):
        if name.strip().lower().startswith(_ACTED_ON) or _KUBERNETES.fullmatch(name.strip().lower()):
            yield (
                f"annotations.{name}",
                "is one that the container's runtime acts on, past the fence (leave it out, say what it is for in the "
                "service's own settings, or as a label under a domain of yours, such as com.example.note)",
            )
    for name in _mapping(compose, "sysctls"):
        if not _SYSCTL.fullmatch(name):
            yield (
                f"sysctls.{name}",
                "is none of a container's own, or undoes the fence (leave it out; net.ipv4.tcp_…, net.core.somaxconn, "
                "net.ipv4.ip_unprivileged_port_start, kernel.shm…, kernel.msg…, kernel.sem and fs.mqueue.… pass)",
            )
    log = _mapping(compose, "logging")
    if log and log.get("driver", "json-file") not in _LOGS:
        yield (
            "logging.driver",
            f"would be sent by the host itself, past what is declared (write one of {', '.join(_LOGS)})",
        )
    health = _mapping(compose, "healthcheck")
    for key in health:
        if key not in TIMINGS:
            yield (
                f"healthcheck.{key}",
                f"is said by health: (only {', '.join(TIMINGS)} pass; health: [NONE] turns it off)",
            )
    if compose.get("pull_policy", "missing") not in ("missing", "if_not_present", "never"):
        yield (
            "pull_policy",
            "is for images that change under you (leave it out: the image is pinned, and kept up by it)",
        )
    yield from _amounts(compose, health)


def _amounts(compose: Mapping[str, Any], health: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("attach", "oom_kill_disable", "stdin_open", "tty"):
        if not isinstance(compose.get(key, False), bool):
            yield key, "is neither true nor false (write one of the two, without quotes)"
    limits = {f"ulimits.{name}": value for name, value in _mapping(compose, "ulimits").items()}
    limits |= {key: compose[key] for key in ("cpus", "cpu_shares", "cpu_count", "cpu_percent") if key in compose}
    limits |= {key: compose[key] for key in ("mem_swappiness", "oom_score_adj") if key in compose}
    limits |= {"healthcheck.retries": health["retries"]} if "retries" in health else {}
    for key, value in limits.items():
        found = value.values() if isinstance(value, Mapping) else [value]
        if not all(_NUMBER.fullmatch(str(one)) for one in found):
            yield key, "is no number (write a number)"
    times = {"stop_grace_period": compose.get("stop_grace_period")}
    times |= {f"healthcheck.{key}": health.get(key) for key in TIMINGS if key != "retries"}
    for key, value in times.items():
        if value is not None and not (isinstance(value, str) and _DURATION.fullmatch(value)):
            yield key, "is no duration (write it as 1m30s)"
    for key in ("shm_size", "mem_reservation", "memswap_limit"):
        value = compose.get(key)
        if value is not None and str(value) != "-1" and not _BYTES.fullmatch(str(value)):
            yield key, "is no amount of memory (write it as 512m or 2g)"


def _mapping(compose: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a setting that is a mapping, or a list of "name=value", as compose takes both."""
    found = compose.get(key)
    if isinstance(found, list):
        return dict(str(entry).partition("=")[::2] for entry in found)
    return {str(name): value for name, value in found.items()} if isinstance(found, Mapping) else {}


def calls_itself(compose: Mapping[str, Any]) -> list[str]:
    """Return the names that a container has by its hostname: Docker answers its neighbours for the whole, in any case,
    and the container finds itself under the first part, too."""
    whole = str(compose.get("hostname") or "").strip().strip(".").lower()
    return list(dict.fromkeys(part for part in (whole, whole.partition(".")[0]) if part))


def ends(compose: Mapping[str, Any]) -> bool:
    """Whether a service is there to do something once: when it has ended with 0, it is done and not down."""
    return str(compose.get("restart", "")).partition(":")[0] in ("no", "on-failure")


def passed(entry: dict[str, Any], compose: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service of a compose document with what is passed on; what stands in it already of labels stays."""
    made = {**entry, **compose}
    if compose.get("labels") or ends(compose):
        once = {"ringfence.once": "true"} if ends(compose) else {}
        made["labels"] = {**_mapping(compose, "labels"), **entry["labels"], **once}
    if "logging" in compose:
        log = _mapping(compose, "logging")
        same = log.get("driver", "json-file") == "json-file"  # still rotated, where nothing else is said
        made["logging"] = (
            {**log, "options": {**entry["logging"]["options"], **_mapping(log, "options")}} if same else log
        )
    if "healthcheck" in compose:
        made["healthcheck"] = {**entry.get("healthcheck", {}), **_mapping(compose, "healthcheck")}
    return made
