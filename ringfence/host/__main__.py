"""Put the chassis into the host-side programs: ``python -m ringfence.host [--check]``."""

from __future__ import annotations

import sys
from pathlib import Path

from ringfence.host.embed import EmbedError, embedded, programs


def main(argv: list[str]) -> int:
    """Write the programs whose chassis is not today's; with ``--check`` name them and fail."""
    failed = False
    for path in programs(Path(__file__).resolve().parents[2]):
        text = path.read_text(encoding="utf-8")
        try:
            new = embedded(text, path.name)
        except EmbedError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        if new != text and "--check" in argv:
            print(f"{path.name}: is stale")
            failed = True
        elif new != text:
            print(f"{path.name}: written")
            path.write_text(new, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
