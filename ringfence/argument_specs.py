"""Ansible's argument_specs as schemas of pydantic, so that pyinfra checks a role's variables as Ansible does.

ansible-core's own validator cannot be used here: importing it inside pyinfra's gevent loop prints a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_core import core_schema as cs

# Ansible turns 22 into "22" where text is asked for, and so must we.
_TEXT = cs.str_schema(coerce_numbers_to_str=True)
_SIMPLE: dict[str, CoreSchema] = {
    "str": _TEXT, "path": _TEXT, "int": cs.int_schema(), "float": cs.float_schema(), "bool": cs.bool_schema(),
    "raw": cs.any_schema(), "dict": cs.dict_schema(),
}  # fmt: skip


# What stands below these keys may be a secret, whatever the variable is.
_CONFIDENTIAL = frozenset({"environment", "secrets", "files", "config", "command", "password", "key", "token"})


class ArgumentError(ValueError):
    """Variables do not fit their specification; the message names each variable and what it must be."""


def validate(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check variables against the ``options`` of an argument spec.

    Args:
        options: variable → ``{type, elements, choices, options, required}``.
        given: variable → value.

    Returns:
        The variables, converted to their types; keys of nested options that were not given stay absent.

    Raises:
        ArgumentError: a variable is unknown, is missing, or has the wrong type or value.
    """
    try:
        found: dict[str, Any] = SchemaValidator(_fields(options)).validate_python(dict(given))
    except ValidationError as error:
        raise ArgumentError("; ".join(_describe(problem, options) for problem in error.errors())) from None
    return found


def _describe(problem: Any, options: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    secret = options.get(str(problem["loc"][0]), {}).get("no_log") or not _CONFIDENTIAL.isdisjoint(problem["loc"])
    shown = "" if secret or problem["type"] == "missing" else f", not {problem['input']!r}"
    return f"{place}: {problem['msg']}{shown}"


def _fields(options: Mapping[str, Any]) -> CoreSchema:
    # Not classes of pydantic: making those for every role takes a tenth of a run that has nothing to do.
    fields = {}
    for key, spec in options.items():
        kind, required = _kind(spec), bool(spec.get("required"))
        fields[key] = cs.typed_dict_field(kind if required else cs.nullable_schema(kind), required=required)
    return cs.typed_dict_schema(fields, extra_behavior="forbid")


def _kind(spec: Mapping[str, Any]) -> CoreSchema:
    kind = spec.get("type", "str")
    if kind == "list":  # choices are those of its elements
        return cs.list_schema(_kind({**spec, "type": spec.get("elements", "raw")}))
    if "choices" in spec:
        return cs.literal_schema(list(spec["choices"]))
    if kind == "dict" and spec.get("options"):
        return _fields(spec["options"])
    return _SIMPLE[kind]
