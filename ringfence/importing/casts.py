"""Types that compose gives to what stands in its files as text, quoted or from a variable: ``"false"`` is not true."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.importing.interpolate import Filled
from ringfence.importing.problems import ComposeError
from ringfence.importing.syntax import Tagged

_WORDS = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}


def _switch(text: str) -> bool:
    return _WORDS[text.lower()]


def _whole(text: str) -> int:
    if not re.fullmatch(r"[-+]?(?:0[xob])?[0-9A-Fa-f_]+", text):
        raise ValueError(text)
    return int(text, 8) if re.fullmatch(r"0[0-7]+", text) else int(text, 0)


def _number(text: str) -> float:
    return float(text)


# Where they are, below services.<name> and below a section's <name>; `*` is any name and any entry of a list. As
# compose-go has them in loader/interpolate.go.
_SWITCHES = (
    "init",
    "oom_kill_disable",
    "privileged",
    "read_only",
    "stdin_open",
    "tty",
    "healthcheck.disable",
    "depends_on.*.required",
    "depends_on.*.restart",
    "env_file.*.required",
    "volumes.*.read_only",
    "volumes.*.volume.nocopy",
    "volumes.*.bind.create_host_path",
)
_WHOLE = (
    "cpu_count",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "healthcheck.retries",
    "oom_score_adj",
    "pids_limit",
    "scale",
    "ports.*.target",
    "ulimits.*",
    "ulimits.*.hard",
    "ulimits.*.soft",
    "configs.*.mode",
    "secrets.*.mode",
    "volumes.*.tmpfs.mode",
    "deploy.replicas",
    "deploy.resources.limits.pids",
    "deploy.restart_policy.max_attempts",
)
_SERVICE: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(_SWITCHES, _switch),
    **dict.fromkeys(_WHOLE, _whole),
    **dict.fromkeys(("cpu_percent", "cpus"), _number),
}
_SECTIONS: dict[str, Callable[[str], Any]] = dict.fromkeys(
    ("external", "internal", "attachable", "enable_ipv4", "enable_ipv6"), _switch
)


def typed(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the content of a file with its types; what has a variable that nobody set stays text.

    Raises:
        ComposeError: a text is none of its type.
    """
    found = dict(content)
    for section, table in (
        ("services", _SERVICE), ("networks", _SECTIONS), ("volumes", _SECTIONS), ("secrets", _SECTIONS),
        ("configs", _SECTIONS),
    ):  # fmt: skip
        if isinstance(found.get(section), Mapping):
            paths = {tuple(path.split(".")): kind for path, kind in table.items()}
            found[section] = {
                name: _typed(one, paths, f"{where}: {section}.{name}") for name, one in found[section].items()
            }
    return found


def _typed(value: Any, table: Mapping[tuple[str, ...], Callable[[str], Any]], where: str) -> Any:
    if isinstance(value, Tagged):
        return Tagged(value.tag, _typed(value.value, table, where))
    if isinstance(value, Mapping):
        return {key: _typed(one, _below(table, str(key)), f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_typed(one, _below(table, "*"), where) for one in value]
    kind = table.get(())
    if kind is None or not isinstance(value, str) or (isinstance(value, Filled) and value.unset):
        return value
    try:
        return kind(value)
    except (KeyError, ValueError):
        wanted = "true or false" if kind is _switch else "a number"
        raise ComposeError(f"{where} has to be {wanted} (compose refuses it as it is)") from None


def _below(
    table: Mapping[tuple[str, ...], Callable[[str], Any]], key: str
) -> dict[tuple[str, ...], Callable[[str], Any]]:
    return {path[1:]: kind for path, kind in table.items() if path and path[0] in (key, "*")}
