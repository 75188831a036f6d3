"""ufw's own hooks: what it runs before it stops and after it has started, with ringfence's lines in them."""

from __future__ import annotations

import re
from pathlib import Path

from ringfence.host.files import read, replace_file
from ringfence.host.ufw.state import ETC

PROGRAM = "/usr/local/sbin/ringfence-ufw"
BEGIN, END = "# >>> ringfence", "# <<< ringfence"
BLOCK = re.compile(rf"^{BEGIN}.*?^{END}\n", re.M | re.S)
JOURNAL = "2>&1 | logger -t ringfence-ufw || :"  # whatever becomes of it, ufw goes on
LINES = {
    ETC / "before.init": (
        "what ufw lets in, and nothing more, stays in force while ufw is stopped",
        f'[ "$1" != stop ] || {PROGRAM} hold {JOURNAL}',
    ),
    ETC / "after.init": (
        "ufw denies again by itself",
        f'[ "$1" != start ] || [ ! -e /run/ringfence/ufw-held ] || {PROGRAM} release {JOURNAL}',
    ),
}
# ufw does not run a file that is not executable, and ours must be: what stood in it stays what it was.
DORMANT = "exit 0  # what follows was not executable, and is not run; take this line out to have ufw run it\n"


def with_block(path: Path, text: str, runs: bool) -> str:
    """Return what a hook has to hold: ringfence's lines first, then what is there.

    Args:
        runs: whether ufw runs the file as it is.
    """
    why, command = LINES[path]
    found = BLOCK.search(text)
    rest = BLOCK.sub("", text)
    asleep = DORMANT in found[0] if found else bool(text.strip()) and not runs
    first, newline, others = rest.partition("\n") if rest.startswith("#!") else ("#!/bin/sh", "\n", rest)
    return f"{first}{newline or chr(10)}{BEGIN}: {why}\n{command}\n{DORMANT * asleep}{END}\n{others}"


def calls(path: Path, text: str) -> bool:
    """Whether somebody's own hook, in whatever language, calls the program itself."""
    verb = "hold" if path.name == "before.init" else "release"
    return f"{PROGRAM} {verb}" in BLOCK.sub("", text)


def runs(path: Path) -> bool:
    """Whether ufw runs a hook: it is there and executable."""
    return path.exists() and bool(path.stat().st_mode & 0o100)


def hook_changes() -> list[str]:
    """What is pending in ufw's hooks, one line each."""
    return [f"{'~' if path.exists() else '+'} {path}: {LINES[path][0]}" for path in pending_hooks()]


def pending_hooks() -> list[Path]:
    """The hooks that do not hold ringfence's lines, or do not run."""
    found = []
    for path in LINES:
        text = read(path)
        if not runs(path) or not (calls(path, text) or text == with_block(path, text, runs=True)):
            found.append(path)
    return found


def hook_refusals() -> list[str]:
    """Hooks of somebody else's that ringfence's lines cannot be put into."""
    verbs = {"before.init": "hold` when it is called with stop", "after.init": "release` when it is called with start"}
    return [
        f"{path} is no shell script, so ringfence's line cannot stand in it: have it run `{PROGRAM} {verbs[path.name]}"
        for path in pending_hooks()
        if runs(path) and not re.match(r"#!.*\b(ba|da)?sh\b", read(path))
    ]


def put_hooks() -> None:
    """Put ringfence's lines into ufw's hooks, and have ufw run them."""
    for path in pending_hooks():
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o640
        text = read(path)
        replace_file(path, text if calls(path, text) else with_block(path, text, runs(path)), mode | 0o110)


def hooked() -> list[Path]:
    """The hooks that hold ringfence's lines."""
    return [path for path in LINES if BLOCK.search(read(path))]


def take_block(path: Path) -> None:
    """Take ringfence's lines out of a hook, which runs again only if it did before."""
    text, mode = read(path), path.stat().st_mode & 0o7777
    replace_file(path, BLOCK.sub("", text), mode & ~0o111 if DORMANT in text else mode)
