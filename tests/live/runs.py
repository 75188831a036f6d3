"""What a finished run of either engine said: an answer that cannot be read is an error, never "no changes"."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


class RunError(AssertionError):
    """A run that should have succeeded did not."""


@dataclass(frozen=True)
class Run:
    """What a finished engine run said.

    Attributes:
        code: exit code.
        changed: names of the operations or tasks that changed something (in a plan: that would). Empty means that
            the run said so, never that it said nothing.
        text: everything it printed.
    """

    code: int
    changed: list[str]
    text: str


def pyinfra_run(code: int, output: str, errors: str) -> Run:
    """Read what pyinfra said with --json.

    Raises:
        RunError: it succeeded and its output is not its report, or names no operation at all; or it failed on the way,
            so that what it changed is not known.
    """
    text = errors + output
    try:
        answer = json.loads(output)
        planned, results = answer["plan"], answer["results"]
    except (ValueError, KeyError, TypeError) as error:
        # A run that is refused while it is being planned reports nothing, and has not begun to change anything.
        if code != 0 and "--> Beginning operation run" not in errors:
            return Run(code, [], text)
        raise RunError(f"pyinfra did not report what it did ({error!r}):\n{text}") from error
    if code == 0 and not planned:
        raise RunError(f"pyinfra ran no operation at all:\n{text}")
    if results is None:
        keys = ("hosts_with_change", "hosts_with_conditional_change")
        return Run(code, [entry["name"] for entry in planned if any(entry[key] for key in keys)], text)
    return Run(code, [entry["name"] for entry in results["operations"] if entry["success"]], text)


def ansible_run(code: int, output: str, errors: str) -> Run:
    """Read what ansible-playbook said.

    Raises:
        RunError: it succeeded and there is no recap, or the recap knows of changes in no task.
    """
    changed, task = [], ""
    for line in output.splitlines():
        task = line.removeprefix("TASK [").split("]")[0] if line.startswith("TASK [") else task
        if line.startswith("changed:"):
            changed.append(task)
    counts = [int(count) for count in re.findall(r"^\S+ +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)]
    if (code == 0 and not counts) or bool(sum(counts)) != bool(changed):
        raise RunError(f"ansible-playbook did not say what it did: {counts} in the recap, {changed}\n{output}{errors}")
    return Run(code, changed, output + errors)
