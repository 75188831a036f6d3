"""The rest of a compose service: what is passed on as it is, for the fence does not stand or fall with it.

Only what is named here passes: what a later compose learns is refused until somebody has looked at it.
"""

from __future__ import annotations

import re
import signal
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
_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
# Least and most that the engine takes; beside these it takes 0 for "as it is".
_RANGES = {
    "cpus": (0, 4096), "cpu_count": (0, 4096), "cpu_percent": (0, 100), "cpu_shares": (2, 262144),
    "cpu_period": (1000, 1000000), "cpu_quota": (1000, 2**53), "mem_swappiness": (-1, 100),
    "oom_score_adj": (-1000, 1000), "healthcheck.retries": (0, 2**31),
}  # fmt: skip
_LONGEST_HOSTNAME = 64  # bytes, of the kernel
_REAL_TIME_SIGNAL = re.compile(r"RTM(IN(\+[0-9]+)?|AX(-[0-9]+)?)")
_PROCESSORS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
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
    yield from _words(compose)


def _amounts(compose: Mapping[str, Any], health: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("attach", "oom_kill_disable", "stdin_open", "tty"):
        if not isinstance(compose.get(key, False), bool):
            yield key, "is neither true nor false (write one of the two, without quotes)"
    limits = {f"ulimits.{name}": value for name, value in _mapping(compose, "ulimits").items()}
    ranged = {key: compose[key] for key in _RANGES if key in compose}
    ranged |= {"healthcheck.retries": health["retries"]} if "retries" in health else {}
    for key, value in (limits | ranged).items():
        found = list(value.values()) if isinstance(value, Mapping) else [value]
        if not all(_NUMBER.fullmatch(str(one)) for one in found):
            yield key, "is no number (write a number)"
        elif key in _RANGES:
            least, most = _RANGES[key]
            if found and float(found[0]) and not least <= float(found[0]) <= most:
                yield key, f"is out of range (write a number from {least} to {most})"
        elif fault := _limit_fault(key.removeprefix("ulimits."), value):
            yield key, fault
    times = {"stop_grace_period": compose.get("stop_grace_period")}
    times |= {f"healthcheck.{key}": health.get(key) for key in TIMINGS if key != "retries"}
    for key, value in times.items():
        if value is not None and not (isinstance(value, str) and _DURATION.fullmatch(value)):
            yield key, "is no duration (write it as 1m30s)"
    for key in ("shm_size", "mem_reservation", "memswap_limit"):
        value = compose.get(key)
        if value is not None and str(value) != "-1" and not _BYTES.fullmatch(str(value)):
            yield key, "is no amount of memory (write it as 512m or 2g)"


def _limit_fault(name: str, value: Any) -> str:
    if name not in _ULIMITS:
        return f"is no limit that the kernel has (write one of {', '.join(_ULIMITS)})"
    soft, hard = (value.get("soft"), value.get("hard")) if isinstance(value, Mapping) else (value, value)
    if soft is None or hard is None:
        return "has not both of soft and hard (write {soft: 1024, hard: 2048}, or one number for both)"
    if any(not re.fullmatch(r"-1|[0-9]+", str(one)) for one in (soft, hard)):
        return "is no limit (write a whole number, or -1 for none)"
    return "" if int(hard) == -1 or 0 <= int(soft) <= int(hard) else "has a soft limit above the hard one (swap them)"


def _signal_fault(value: Any) -> str:
    name = str(value).upper().removeprefix("SIG")
    known = f"SIG{name}" in signal.Signals.__members__ or _REAL_TIME_SIGNAL.fullmatch(name)
    number = name.isdecimal() and 1 <= int(name) <= 64
    return "" if known or number else "is no signal (write it as SIGTERM)"


def _words(compose: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the engine would refuse by its own words, when the rest is there already."""
    if "stop_signal" in compose and (fault := _signal_fault(compose["stop_signal"])):
        yield "stop_signal", fault
    if len(str(compose.get("hostname") or "").encode(errors="replace")) > _LONGEST_HOSTNAME:
        yield "hostname", f"has more than {_LONGEST_HOSTNAME} bytes (shorten it)"
    if "cpuset" in compose and not _PROCESSORS.fullmatch(str(compose["cpuset"])):
        yield "cpuset", "is no list of processors (write it as 0-2,5)"
    for name, value in _mapping(compose, "storage_opt").items():
        if name != "size":
            yield f"storage_opt.{name}", "is not known to any storage here (only size is; leave it out)"
        elif not _BYTES.fullmatch(str(value)):
            yield "storage_opt.size", "is no amount (write it as 10g)"


def shared_faults(network: str, compose: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a service cannot set because its network is not its own, and why, with the fix.

    Args:
        network: "host", "none", or the service whose network it shares.
        compose: what it passes on.
    """
    if network in ("", "none"):
        return
    for name in _mapping(compose, "sysctls"):
        if name.startswith("net."):
            whose = "its host" if network == "host" else repr(network)
            fix = "leave it out, or set it on the host in /etc/sysctl.d" if network == "host" else "write it there"
            yield f"sysctls.{name}", f"is of its network, which is that of {whose} ({fix})"
    for name in ("hostname", "domainname") if network != "host" else ():
        if name in compose:
            yield name, f"is that of {network!r}, whose network it shares (write it there)"


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
    if "labels" in compose or ends(compose):  # also where it says that there are none
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
