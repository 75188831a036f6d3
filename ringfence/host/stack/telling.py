"""What is said, without secrets, and Docker's own client, whose words are shown."""

from __future__ import annotations

import json
import subprocess
import threading
from urllib.parse import quote

from ringfence.host.engine import SOCKET
from ringfence.host.running import run, say

HIDDEN = "********"
TELLING = 4  # characters: less than that is in every text


class Teller:
    """Says what happens on standard error; no secret passes."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.lock = threading.Lock()

    def learn(self, secrets: dict[str, dict[str, str]]) -> None:
        """Keep these values out of everything that is said from now on, in the forms in which programs print them."""
        values = {str(v).strip() for project in secrets.values() for v in project.values()}
        # Whoever prints one may print a line of it only.
        values |= {line.strip() for value in values for line in value.splitlines()}
        values |= {form for value in values for form in (quote(value, safe=""), json.dumps(value)[1:-1])}
        self.values = sorted((value for value in values if len(value) >= TELLING), key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return a text without secrets."""
        for value in self.values:
            text = text.replace(value, HIDDEN)
        return text

    def clean_cut(self, text: str) -> str:
        """Return a text without secrets whose end somebody has cut, and perhaps in the middle of one."""
        text = self.clean(text.removesuffix("..."))
        begun = max((_overlap(text, value) for value in self.values), default=0)
        return f"{text[: len(text) - begun]}{HIDDEN}" if begun else text

    def say(self, text: str) -> None:
        """Say something, from any thread."""
        with self.lock:
            say(self.clean(text))


def _overlap(text: str, value: str) -> int:
    """How many characters at the end of a text are the beginning of a value; 0 if they tell nothing."""
    most = min(len(text), len(value) - 1)
    return next((n for n in range(most, TELLING - 1, -1) if text.endswith(value[:n])), 0)


TELL = Teller()


def docker(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Docker's client against this host's engine, whatever root's environment says."""
    quiet = {"COMPOSE_ANSI": "never", "COMPOSE_MENU": "false", "COMPOSE_PROFILES": "", "COMPOSE_ENV_FILES": ""}
    return run("docker", "--host", f"unix://{SOCKET}", *words, timeout=timeout, extra=quiet)


def last_words(answer: subprocess.CompletedProcess[str], lines: int = 12) -> str:
    """Return the end of what a command said."""
    said = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in said[-lines:]) or "    (nothing)"
