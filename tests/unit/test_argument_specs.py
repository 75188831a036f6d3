"""argument_specs.yml binds pyinfra's users too."""

from __future__ import annotations

import pytest

from ringfence.argument_specs import ArgumentError, validate

OPTIONS = {
    "x_level": {"type": "str", "choices": ["low", "high"]},
    "x_port": {"type": "int"},
    "x_days": {"type": "list", "elements": "str", "choices": ["mon", "tue"]},
    "x_rules": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "port": {"type": "str"}},
    },
}


def test_values_are_converted_as_ansible_does() -> None:
    assert validate(OPTIONS, {"x_days": ["tue", "mon"]}) == {"x_days": ["tue", "mon"]}
    assert validate(OPTIONS, {"x_port": "22", "x_rules": [{"name": "ssh", "port": 22}]}) == {
        "x_port": 22,
        "x_rules": [{"name": "ssh", "port": "22"}],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x_level": "loud"}, "x_level: Input should be 'low' or 'high', not 'loud'"),
        ({"x_days": ["wed"]}, r"x_days\.0: Input should be 'mon' or 'tue', not 'wed'"),
        ({"x_port": "ssh"}, "x_port: .*not 'ssh'"),
        ({"x_rules": [{"port": "22"}]}, r"x_rules\.0\.name: Field required"),
        ({"x_rules": [{"name": "ssh", "prot": "tcp"}]}, r"x_rules\.0\.prot: Extra inputs are not permitted"),
        ({"y": 1}, "y: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        validate(OPTIONS, given)


def test_a_wrong_value_that_is_secret_is_not_shown() -> None:
    with pytest.raises(ArgumentError, match="x_secrets: Input should be a valid dictionary") as caught:
        validate({"x_secrets": {"type": "dict", "no_log": True}}, {"x_secrets": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_what_may_be_a_secret_deep_inside_is_not_shown() -> None:
    inner = {"environment": {"type": "dict"}, "name": {"type": "str"}}
    options = {"x_services": {"type": "list", "elements": "dict", "options": inner}}
    with pytest.raises(ArgumentError, match=r"x_services\.0\.environment: Input should be a valid dictionary$"):
        validate(options, {"x_services": [{"name": "web", "environment": "PASSWORD=hunter2"}]})
