"""What is said, without secrets, and Docker's own client, whose words are shown."""

from __future__ import annotations

import subprocess
import threading

from ringfence.host.engine import SOCKET
from ringfence.host.running import run, say


class Teller:
    """Says what happens on standard error; no secret passes."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.lock = threading.Lock()

    def learn(self, secrets: dict[str, dict[str, str]]) -> None:
        """Keep these values out of everything that is said from now on."""
        values = {str(v).strip() for project in secrets.values() for v in project.values()}
        # Whoever prints one may print a line of it only; short lines are too common to be told.
        lines = {line.strip() for value in values if "\n" in value for line in value.splitlines()}
        known = {v for v in values if len(v) > 3} | {line for line in lines if len(line) > 7}
        self.values = sorted(known, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return a text without secrets."""
        for value in self.values:
            text = text.replace(value, "********")
        return text

    def say(self, text: str) -> None:
        """Say something, from any thread."""
        with self.lock:
            say(self.clean(text))


TELL = Teller()


def docker(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Docker's client against this host's engine, whatever root's environment says."""
    quiet = {"COMPOSE_ANSI": "never", "COMPOSE_MENU": "false", "COMPOSE_PROFILES": "", "COMPOSE_ENV_FILES": ""}
    return run("docker", "--host", f"unix://{SOCKET}", *words, timeout=timeout, extra=quiet)


def last_words(answer: subprocess.CompletedProcess[str], lines: int = 12) -> str:
    """Return the end of what a command said."""
    said = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in said[-lines:]) or "    (nothing)"
