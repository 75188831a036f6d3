"""How compose lays one file over another, and a service over the one that it extends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ringfence.importing.syntax import Tagged

# Lists of which the later one counts alone.
_REPLACED = {("command",), ("entrypoint",), ("healthcheck", "test")}
# Lists of entries that are one where these parts of them are the same.
_SAME: dict[tuple[str, ...], Callable[[Any], Any]] = {
    ("ports",): lambda one: tuple(str(one.get(key)) for key in ("host_ip", "target", "published", "protocol", "unset")),
    ("volumes",): lambda one: one.get("target"),
    ("secrets",): lambda one: one.get("target") or one.get("source"),
    ("configs",): lambda one: one.get("target") or one.get("source"),
    ("env_file",): lambda one: one.get("path"),
    ("devices",): lambda one: one.get("target") if isinstance(one, Mapping) else (f"{one}:{one}").split(":")[1],
}


def services(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one service over another."""
    return dict(_merge(base, over, ()))


def trees(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one file's networks, volumes, … over another's."""
    return dict(_merge(base, over, ("", "")))


def _merge(base: Any, over: Any, path: tuple[str, ...]) -> Any:
    if isinstance(over, Tagged):
        return None if over.tag == "reset" else plain(over.value)
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        if path == ("logging",) and base.get("driver") != over.get("driver") and over.get("driver"):
            return plain(over)
        found = dict(base)
        for key, value in over.items():
            if isinstance(value, Tagged) and value.tag == "reset":
                found.pop(key, None)
            else:
                found[key] = _merge(base.get(key), value, (*path, str(key)))
        return found
    if isinstance(base, list) and isinstance(over, list) and path not in _REPLACED:
        same = _SAME.get(path, _itself)
        joined: dict[Any, Any] = {}
        for one in [*base, *over]:
            joined[same(one)] = one
        return list(joined.values())
    if over is None and base is not None and path and path[:-1] != ("environment",):  # a name alone is looked up
        return base
    return plain(over)


def _itself(one: Any) -> Any:
    return one if isinstance(one, str | int | float) else repr(one)


def plain(value: Any) -> Any:
    """Return a tree without tags: what is reset is not there."""
    if isinstance(value, Tagged):
        return None if value.tag == "reset" else plain(value.value)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if not (isinstance(v, Tagged) and v.tag == "reset")}
    return [plain(one) for one in value] if isinstance(value, list) else value
