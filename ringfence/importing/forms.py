"""The short forms of a service's settings in their long ones, so that what is meant can be merged and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.importing.interpolate import Filled, filled, raw_of, unset_in
from ringfence.importing.problems import ComposeError
from ringfence.importing.shellwords import split
from ringfence.importing.syntax import Tagged

_PORT = re.compile(
    r"(?:(?P<host>\[[0-9a-fA-F:.]*\]|[^:\[\]]*):)??(?:(?P<published>[0-9]*(?:-[0-9]+)?):)?"
    r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<proto>\w+))?"
)


def text_of(value: object) -> str:
    """Return a scalar as compose writes it into an environment; a filled-in text remembers where it is from."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))  # 1.0 is 1, as Go writes it
    return value if isinstance(value, str) else "" if value is None else str(value)


def pairs(value: Any, separator: str = "=") -> dict[str, Any]:
    """Return ``[NAME=value, NAME]`` or ``{NAME: value}`` as a mapping; a name alone is None."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(name): _in_words(one) for name, one in value.items()}
    found: dict[str, Any] = {}
    for item in value:
        name, sign, rest = text_of(item).partition(separator)
        found[name] = _like(item, rest) if sign else None
    return found


def _in_words(value: Any) -> Any:
    """A value as a text; what a tag marks stays marked, and nothing stays nothing."""
    if isinstance(value, Tagged):
        return Tagged(value.tag, _in_words(value.value))
    return None if value is None else text_of(value)


def _entries(value: Any) -> dict[str, Any]:
    """Return the entries of a mapping, each a mapping itself; what a tag marks stays marked."""
    return {str(name): one if isinstance(one, Tagged) else dict(one or {}) for name, one in value.items()}


def _like(item: Any, text: str) -> str:
    """A part of a filled-in text remembers what the whole does."""
    if isinstance(item, Filled):
        return filled(text, item.raw.partition("=")[2] or item.raw, item.unset, item.used)
    return text


def listed(value: Any) -> list[Any]:
    """Return one or several as a list."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def words(value: Any) -> Any:
    """Return a command line as its words.

    Raises:
        ComposeError: it is none.
    """
    if not isinstance(value, str):
        return value
    found = split(value)
    if not isinstance(value, Filled):
        return found
    # Each word remembers its own variables, where what they hold has not changed the words.
    raws = _raw_words(value.raw)
    raws = raws if len(raws) == len(found) else [value.raw] * len(found)
    return [_word(value, word, raw) for word, raw in zip(found, raws, strict=True)]


def _raw_words(text: str) -> list[str]:
    try:
        return split(text)
    except ComposeError:
        return []


def _word(whole: Filled, word: str, raw: str) -> str:
    used = tuple(name for name in whole.used if name in raw)
    return filled(word, raw, tuple(name for name in whole.unset if name in raw), used) if used else word


def port(value: Any) -> dict[str, Any]:
    """Return a port in its long form; ranges stay ranges.

    Raises:
        ComposeError: it is none.
    """
    if isinstance(value, Mapping):
        if unset := unset_in(dict(value)):
            raw = ", ".join(f"{key}: {raw_of(one)}" for key, one in value.items())
            return {"unset": filled(text_of(value.get("target")), raw, unset, unset)}
        long = dict(value)
        if long.get("target") in (None, ""):
            raise ComposeError("a port has no target (write 8080:80)")
        if long.get("published") is not None:
            long["published"] = str(long["published"])
        long["protocol"] = str(long.get("protocol") or "tcp").lower()
        return long
    text = text_of(value)
    if isinstance(value, Filled) and value.unset:
        return {"unset": value}
    found = _PORT.fullmatch(text)
    if found is None:
        raise ComposeError(f"'{text}' is not a port (write 8080:80)")
    long = {"target": found["target"], "protocol": (found["proto"] or "tcp").lower()}
    if found["published"]:
        long["published"] = found["published"]
    if found["host"]:
        long["host_ip"] = found["host"].strip("[]")
    return long


def volume(value: Any) -> dict[str, Any]:
    """Return a mount in its long form: of type volume, bind, tmpfs, …

    Raises:
        ComposeError: it is none.
    """
    if isinstance(value, Mapping):
        if unset := unset_in(dict(value)):
            raw = f"{raw_of(value.get('source') or '')}:{raw_of(value.get('target') or '')}"
            target = value.get("target") or ""
            return {"type": "unset", "source": filled("", raw, unset, unset), "target": raw_of(target)}
        return dict(value)
    text = text_of(value)
    parts = text.split(":")
    if len(parts) == 1:
        if isinstance(value, Filled) and value.unset:
            return {"type": "unset", "source": value, "target": value.raw}
        return {"type": "volume", "target": parts[0]}
    if len(parts) > 3:
        raise ComposeError(f"'{text}' is not a volume (write ./data:/var/lib/app or data:/var/lib/app)")
    source, target = parts[0], parts[1]
    if isinstance(value, Filled) and value.unset:
        return {"type": "unset", "source": value, "target": _raw_target(value) or target}
    long: dict[str, Any] = {"source": source, "target": target}
    long["type"] = "bind" if source[:1] in ("/", ".", "~") else "volume"
    for option in parts[2].split(",") if len(parts) == 3 else []:
        if option in ("ro", "rw"):
            long["read_only"] = option == "ro"
        elif option in ("z", "Z"):
            long.setdefault("bind", {})["selinux"] = option
        elif option == "nocopy":
            long.setdefault("volume", {})["nocopy"] = True
        elif option in ("shared", "slave", "private", "rshared", "rslave", "rprivate"):
            long.setdefault("bind", {})["propagation"] = option
    return long


def _raw_target(value: Filled) -> str:
    """Where something was to be mounted, as it was written: the last part that is a path."""
    return next((part for part in reversed(value.raw.split(":")) if part.startswith("/")), "")


def _depends(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return _entries(value)
    return {text_of(name): {"condition": "service_started"} for name in value or []}


def _networks(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return _entries(value)
    return {text_of(name): {} for name in value or []}


def _references(value: Any) -> list[dict[str, Any]]:
    return [dict(one) if isinstance(one, Mapping) else {"source": text_of(one)} for one in value or []]


def _env_files(value: Any) -> list[dict[str, Any]]:
    return [dict(one) if isinstance(one, Mapping) else {"path": text_of(one)} for one in listed(value)]


def _health(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("test"), str):
        return {**value, "test": ["CMD-SHELL", value["test"]]}
    return value


def _hosts(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(name): one for name, one in value.items()}
    found: dict[str, Any] = {}
    for item in value or []:
        text = text_of(item)
        name, _, address = text.partition("=") if "=" in text else text.partition(":")
        found[name] = address
    return found


_FORMS: dict[str, Callable[[Any], Any]] = {
    "annotations": pairs,
    "build": lambda value: {"context": value} if isinstance(value, str) else value,
    "command": words,
    "configs": _references,
    "depends_on": _depends,
    "dns": listed,
    "dns_opt": listed,
    "dns_search": listed,
    "entrypoint": words,
    "env_file": _env_files,
    "environment": pairs,
    "extends": lambda value: {"service": value} if isinstance(value, str) else value,
    "extra_hosts": _hosts,
    "healthcheck": _health,
    "labels": pairs,
    "networks": _networks,
    "ports": lambda value: [port(one) for one in value or []],
    "secrets": _references,
    "sysctls": pairs,
    "tmpfs": listed,
    "volumes": lambda value: [volume(one) for one in value or []],
}


def service(name: str, given: Any, where: str) -> dict[str, Any]:
    """Return a service with its settings in their long forms.

    Raises:
        ComposeError: a setting is of no form that compose knows.
    """
    if not isinstance(given, Mapping):
        raise ComposeError(f"{where}: the service '{name}' is not a mapping")
    found: dict[str, Any] = {}
    for key, value in given.items():
        tag = value.tag if isinstance(value, Tagged) else ""
        plain = None if tag == "reset" else value.value if isinstance(value, Tagged) else value
        try:
            long = _FORMS[key](plain) if key in _FORMS and plain is not None else plain
        except ComposeError as fault:
            raise ComposeError(f"{where}: services.{name}.{key}: {fault}") from None
        except (TypeError, AttributeError, ValueError):  # below a tag, where the schema does not look
            raise ComposeError(f"{where}: services.{name}.{key} has a form that compose does not know") from None
        found[str(key)] = Tagged(tag, long) if tag else long
    return found
