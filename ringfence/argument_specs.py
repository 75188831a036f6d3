"""Ansible's argument_specs as pydantic models, so that pyinfra checks a role's variables as Ansible does.

ansible-core's own validator cannot be used here: importing it inside pyinfra's gevent loop prints a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

_SIMPLE: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "path": str, "raw": Any, "dict": dict}


class ArgumentError(ValueError):
    """Variables do not fit their specification; the message names each variable and what it must be."""


class _Strict(BaseModel):
    # Ansible turns 22 into "22" where text is asked for, and so must we.
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


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
        model = _model("Variables", options).model_validate(dict(given))
    except ValidationError as error:
        raise ArgumentError("; ".join(_describe(problem, options) for problem in error.errors())) from None
    return model.model_dump(by_alias=True, exclude_unset=True)


def _describe(problem: Any, options: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    secret = options.get(str(problem["loc"][0]), {}).get("no_log")
    shown = "" if secret or problem["type"] == "missing" else f", not {problem['input']!r}"
    return f"{place}: {problem['msg']}{shown}"


def _model(name: str, options: Mapping[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for key, spec in options.items():
        kind = _type(f"{name}_{key}", spec)
        # By alias: a variable may be called like something that pydantic's models have.
        field = Field(alias=key) if spec.get("required") else Field(None, alias=key)
        fields[f"of_{key}"] = (kind if spec.get("required") else kind | None, field)
    return create_model(name, __base__=_Strict, **fields)


def _type(name: str, spec: Mapping[str, Any]) -> Any:
    kind = spec.get("type", "str")
    if kind == "list":  # choices are those of its elements
        element = {**spec, "type": spec.get("elements", "raw")}
        return list[_type(name, element)]  # type: ignore[misc]
    if "choices" in spec:
        return Literal[tuple(spec["choices"])]
    if kind == "dict" and spec.get("options"):
        return _model(name, spec["options"])
    return _SIMPLE[kind]
