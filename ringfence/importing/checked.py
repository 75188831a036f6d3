"""What compose would refuse is refused here too, by the Compose Specification's published schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.importing.merge import plain
from ringfence.importing.problems import ComposeError
from ringfence.model.passed import validator

# Settings that the schema does not know, or no longer, are asked about by name.
_UNKNOWN = ("additionalProperties", "unevaluatedProperties", "required")


def check(content: Mapping[str, Any], where: str) -> None:
    """Check the form of a file's settings.

    Raises:
        ComposeError: something has a form that compose does not know. The message shows no value.
    """
    from jsonschema.exceptions import best_match

    found = {key: value for key, value in plain(dict(content)).items() if key != "include"}
    if isinstance(found.get("services"), Mapping):
        found["services"] = {name: _lenient(one) for name, one in found["services"].items()}
    errors = [one for one in validator().iter_errors(found) if one.validator not in _UNKNOWN]
    error = best_match(errors)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path)
        raise ComposeError(f"{where}: {place} has a form that compose does not know (see its page on services)")


def _lenient(service: Any) -> Any:
    """Leave out what compose takes all the same: settings without a value, and what a list has twice."""
    if not isinstance(service, Mapping):
        return service
    return {
        key: list({repr(one): one for one in value}.values()) if isinstance(value, list) else value
        for key, value in service.items()
        if value is not None
    }
