"""What YAML reads otherwise than it was meant is refused with its line, and without its value."""

from __future__ import annotations

import re

import pytest
import yaml

from ringfence.inventory.wellformed import problems

# What is written, and what is said of it.
ODD = {
    "user: 022": "line 1: user: YAML reads a number that begins with 0 as octal",
    "token: 0123": "line 1: token: YAML reads a number that begins with 0 as octal",
    "a: [x, 033]": "line 1: a: YAML reads a number that begins with 0 as octal",
    "user: 33:33": "line 1: user: YAML reads it as a number to the base of 60",
    "at: 12:30:45": "line 1: at: YAML reads it as a number to the base of 60",
    "ports:\n  - 22:22": "line 2: ports: YAML reads it as a number to the base of 60",
    "version: 1.10": "line 1: version: YAML reads it as a number, and what was written is lost",
    "version: 1.": "line 1: version: YAML reads it as a number",
    "x: .5": "line 1: x: YAML reads it as a number",
    "x: 1_000": "line 1: x: YAML reads it as another number",
    "x: 0x1F": "line 1: x: YAML reads it as another number",
    "x: +5": "line 1: x: YAML reads it as another number",
    "x: .inf": "line 1: x: YAML reads it as a number",
    "x: 2024-01-01 10:00:00": "line 1: x: YAML reads it as a moment in time",
    "a: 1\nb: 2\na: 3": "line 3: the key 'a' is there twice, first in line 1",
    "a:\n  b: {c: 1, c: 2}": "line 2: the key 'c' is there twice",
    "a: &x\n  b: *x": "line 1: 'b' contains itself, by an alias",
    "a: &x [1, *x]": "line 1: 'a' contains itself, by an alias",
    "s: |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162": "line 1: s: it is encrypted, and would be taken as it stands",
    'a: "$ANSIBLE_VAULT;1.1;AES256"': "line 1: a: it is encrypted",
    '{\n\t"a": 1,\n\t"a": 2\n}': "line 3: the key 'a' is there twice",
}
EVEN = (
    "a: 0", "a: 18", "a: -5", "a: 1.5", "a: 10.25", "a: '022'", 'a: "33:33"', "a: '1.10'", "a: 2024-01-01",
    "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162", "a: !unsafe '{{ .Site }}'", "a: &x {b: 1}\nc: *x\nd: *x",
    "a: 1.2.3", "a: 10.0.0.1", "a: fd00::1", "a: 1e3", "a: true", "a: ", "", "a: 0o17",
    "a: &x {b: 1}\nc:\n  <<: *x\n  d: 1", '{"a": 1.5, "b": [null]}', "a: [1\nb: 2",
)  # fmt: skip


def of_a_service(text: str) -> str:
    return f"lab_services:\n  app: {text}"


TRUE = "line 2: {}: YAML reads it as true, and that would arrive (put it in quotes)"
FALSE = TRUE.replace("true", "false")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{environment: {Y: yes}}", TRUE.format("Y")),
        ("{environment: {Y: No}}", FALSE.format("Y")),
        ("{environment: {Y: ON}}", TRUE.format("Y")),
        ("{environment: {Y: Off}}", FALSE.format("Y")),
        ("{compose: {labels: {a.b: yes}}}", TRUE.format("a.b")),
        ("{compose: {annotations: {a.b: off}}}", FALSE.format("a.b")),
        ("{command: [app, --log, on]}", TRUE.format("command")),
        ("{secrets: {token: {value: no}}}", FALSE.format("value")),
        ("{environment: {ON: x}}", "line 2: YAML reads the key 'ON' as true (put it in quotes)"),
        ("{environment: {no: x}}", "line 2: YAML reads the key 'no' as false (put it in quotes)"),
    ],
)
def test_a_text_that_yaml_reads_as_a_switch_is_told(text: str, said: str) -> None:
    assert problems(of_a_service(text)) == [said]
    assert problems(of_a_service(text).replace("lab_services", "theirs")) == [], "what is not ringfence's stays"
    assert yaml.safe_load("[yes, No, ON, Off, y, n]") == [True, False, True, False, "y", "n"]


@pytest.mark.parametrize(
    "text",
    [
        "{init: yes, read_only: no, publish: [{allow_database: on}]}", "{environment: {A: true, B: False, C: y, D: n}}",
        "{environment: {A: 'yes', B: \"on\", 'on': x}}", "{compose: {tty: yes, stdin_open: on}}", "{tls: yes}",
        "{settings: {config: {debug: yes}}}", "{environment: [A=yes, ON=1]}",
    ],
)  # fmt: skip
def test_switches_and_what_is_in_quotes_stay(text: str) -> None:
    assert problems(of_a_service(text)) == []


@pytest.mark.parametrize("name", ["files", "config", "secrets", "labels"])
def test_the_name_of_a_service_makes_no_texts_of_its_switches(name: str) -> None:
    assert problems(f"lab_services:\n  {name}: {{init: yes}}") == []
    assert problems(f"lab_part_x:\n  services:\n    {name}: {{init: yes}}") == []
    assert problems(f"lab_services:\n  {name}: {{environment: {{Y: yes}}}}") == [TRUE.format("Y")]


def test_a_text_of_a_part_by_an_anchor_is_told_as_well() -> None:
    text = "x: &all\n  DEBUG: yes\nlab_part_photos:\n  services:\n    app:\n      environment:\n        <<: *all\n"
    assert problems(text) == [TRUE.format("DEBUG")]


@pytest.mark.parametrize("text", ODD)
def test_what_is_read_otherwise_is_told_with_its_line_and_without_its_value(text: str) -> None:
    (found,) = problems(text)
    assert found.startswith(ODD[text])
    assert not re.search(r"\b(022|0123|033|33:33|12:30|1\.10|1_000|0x1F|6162)", found)


@pytest.mark.parametrize("text", EVEN)
def test_what_is_read_as_it_is_written_is_no_problem(text: str) -> None:
    assert problems(text) == []


def test_it_is_refused_because_yaml_loses_what_was_written() -> None:
    """The reader that ansible-core uses really does."""
    assert yaml.safe_load("[022, 0123, 33:33, 1.10]") == [18, 83, 2013, 1.1]
    assert yaml.safe_load("{a: 1, a: 2}") == {"a": 2}
