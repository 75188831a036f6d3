"""``python -m ringfence VERB``: what is done on the controller beside the runs. ``ringfence`` where it is installed."""

from __future__ import annotations

import sys

USAGE = """usage: ringfence new LAB --host NAME=ADDRESS   (python -m ringfence new --help)
       ringfence import FILE…     (python -m ringfence import --help)
       ringfence pin [SERVICE…]   (python -m ringfence pin --help)"""


def main(words: list[str] | None = None) -> int:
    """Do what the first word says; returns the exit status."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["new"]:
        from ringfence.starter import main as run

        return run(words[1:])
    if words[:1] == ["import"]:
        from ringfence.importing.command import main as run

        return run(words[1:])
    if words[:1] == ["pin"]:
        from ringfence.importing.pin import main as run

        return run(words[1:])
    sys.stderr.write(f"{USAGE}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
