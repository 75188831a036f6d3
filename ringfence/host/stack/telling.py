"""What is said, without secrets, and Docker's own client, whose words are shown."""

from __future__ import annotations

import subprocess
import threading

from ringfence.host.engine import SOCKET
from ringfence.host.running import run, say
from ringfence.host.stack.masking import Masker


class Teller:
    """Says what happens on standard error; no secret passes."""

    def __init__(self) -> None:
        self.values: set[str] = set()
        self.masker: Masker | None = None
        self.lock = threading.Lock()

    def learn(self, secrets: dict[str, dict[str, str]]) -> None:
        """Keep these values out of everything that is said from now on."""
        # What is to be looked for is worked out when something is said: a check says nothing.
        self.values, self.masker = {str(v) for project in secrets.values() for v in project.values()}, None

    def clean(self, text: str, cut_before: bool = False, cut_behind: bool = False) -> str:
        """Return a text without secrets, as `Masker.masked` does."""
        masker = self.masker = self.masker or Masker(self.values)
        return masker.masked(text, cut_before, cut_behind)

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
    """Return the end of what a command said, without secrets: they would not be known in lines of what is left."""
    # Of a log that was asked for by lines, the first may be the rest of one.
    said = "\n".join(TELL.clean(stream, cut_before=True) for stream in (answer.stdout, answer.stderr)).splitlines()
    return "\n".join([f"    {line}" for line in said if line.strip()][-lines:]) or "    (nothing)"
