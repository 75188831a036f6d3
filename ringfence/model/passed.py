"""``compose:`` of a service: the rest of the Compose Specification, checked against its published schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from ringfence.host.passing import PASSED, passing_faults
from ringfence.host.texts import text_fault
from ringfence.model import words

# What has a field of its own here, under the name that compose has for it.
_FIELDS = (
    "command", "devices", "environment", "gpus", "group_add", "image", "init", "pid", "privileged", "read_only",
    "secrets", "tmpfs", "user", "volumes",
)  # fmt: skip
_TEXTS = ("annotations", "labels", "storage_opt", "sysctls")  # what compose takes numbers for, and means text


def schema_file() -> Path:
    """Return the Compose Specification's schema, which the library check-jsonschema brings for its command line."""
    found = find_spec("check_jsonschema")  # not imported: that would bring its command line with it
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json"


@cache
def validator() -> Any:
    """Return what checks a compose file against the schema; made only where it is needed, as that takes a while."""
    from jsonschema.validators import validator_for

    schema = json.loads(schema_file().read_text(encoding="utf-8"))
    return validator_for(schema)(schema)


def passed_of(value: Any) -> dict[str, Any]:
    """Return what is passed on, in one form.

    Raises:
        ValueError: something has a field of its own here, undoes the fence, or is not as the specification has it. The
            message names the setting and the fix and shows no value.
    """
    if not isinstance(value, Mapping):
        raise ValueError("it is not a mapping (write it as compose: {hostname: app, shm_size: 256m})")
    for key in map(str, value):
        if key not in PASSED:
            fix = f"write {key} in the service" if key in _FIELDS else words.instead("Service", key, PASSED)
            raise ValueError(f"'{key}' is not passed on ({fix})")
    found = {str(key): inner for key, inner in value.items()}
    if found.get("restart") is False:  # YAML's `no`
        found["restart"] = "no"
    for key in _TEXTS:
        if isinstance(found.get(key), list) and all(isinstance(entry, str) for entry in found[key]):
            found[key] = dict(entry.partition("=")[::2] for entry in found[key])
        if isinstance(found.get(key), Mapping):
            found[key] = {str(name): _text(inner) for name, inner in found[key].items()}
    _as_specified(found)
    for setting, fault in passing_faults(found):
        raise ValueError(f"'{setting}' {fault}")
    for text in _all_texts(found):
        if fault := text_fault(text):
            raise ValueError(f"a text in it {fault}")
    return found


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value) if isinstance(value, int | float) else value


def _as_specified(found: dict[str, Any]) -> None:
    from jsonschema.exceptions import best_match

    errors = list(validator().iter_errors({"services": {"service": found}}))
    # Where one setting is wrong, all of its part count as not looked at.
    error = best_match([one for one in errors if one.validator != "unevaluatedProperties"] or errors)
    if error is None:
        return
    where = ".".join(str(part) for part in list(error.absolute_path)[2:])
    kinds = dict.fromkeys(("additionalProperties", "unevaluatedProperties"), "has no such setting in it")
    say = kinds.get(str(error.validator), "does not have it in this form")
    if error.validator == "type":
        wanted = error.validator_value
        say = f"wants {' or '.join([wanted] if isinstance(wanted, str) else wanted)}"
    raise ValueError(
        f"'{where}' is not right: the Compose Specification {say} (correct it as its page on services says)"
    )


def _all_texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, inner in value.items() for text in (str(key), *_all_texts(inner))]
    return [text for inner in value for text in _all_texts(inner)] if isinstance(value, list) else []


Passed = Annotated[dict[str, Any], BeforeValidator(passed_of)]
