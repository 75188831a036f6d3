"""dockerd's own verdict on a daemon.json that it has not read yet, and its words when it refuses one."""

from __future__ import annotations

import re

from ringfence.host.running import run

WITH_VALIDATE = (23, 0)  # the first engine that judges a file without starting
# What dockerd repeats of the file and of its command line may be a secret.
_VALUES = re.compile(r"\s*\(from flag: .*", re.S)


def verdict(engine: str, arguments: list[str], text: str) -> str:
    """Have dockerd read a daemon.json as it would with these arguments, at a start or at a reload.

    Args:
        engine: dockerd's path; its version must be `WITH_VALIDATE` or newer.
        arguments: of its command line.
        text: of the file. dockerd reads it from its standard input: no copy of it lies anywhere.

    Returns:
        Why it refuses the file, in its own words; "" if it does not.
    """
    said = run(engine, *without_config_file(arguments), "--validate", "--config-file", "/dev/stdin", text=text)
    if said.returncode == 0:
        return ""
    words = " ".join((said.stderr.strip() or said.stdout.strip() or f"exit code {said.returncode}").split())
    words = re.sub(r"^unable to configure the Docker daemon with file /dev/stdin: ", "", words)
    return _VALUES.sub("", words)


def without_config_file(arguments: list[str]) -> list[str]:
    """A command line without the option that says where its configuration is."""
    return [
        word
        for i, word in enumerate(arguments)
        if not word.startswith("--config-file") and arguments[i - 1 : i] != ["--config-file"]
    ]


def last_words(since: float) -> str:
    """What dockerd has said in the journal since a moment (seconds since the epoch): errors, else its last lines."""
    run("journalctl", "--sync")  # what has just been said may not be written yet
    when = f"@{int(since)}"  # rounded, it could begin after what was said
    lines = run(
        "journalctl", "-u", "docker.service", "--since", when, "-n", "60", "--no-pager", "-o", "cat"
    ).stdout.splitlines()
    telling = [
        line for line in lines if re.search(r"level=(error|fatal)|failed|conflict|unable to configure", line, re.I)
    ]
    return "\n".join(_VALUES.sub("", line) for line in (telling or lines)[-8:])
