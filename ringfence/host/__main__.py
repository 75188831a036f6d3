"""Put the chassis into the host-side programs, and what Ansible needs into the roles.

``python -m ringfence.host [--check]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from ringfence.host.embed import EmbedError, copies, embedded, programs

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
    """Write what is not today's; with ``--check`` name it and fail."""
    check, failed = "--check" in argv, False
    texts: dict[Path, str] = {}
    for path in programs(ROOT):
        try:
            texts[path] = embedded(path.read_text(encoding="utf-8"), path.name)
        except EmbedError as error:
            print(error, file=sys.stderr)
            failed = True
    for copy, original in copies(ROOT).items():
        texts[copy] = texts.get(original) or original.read_text(encoding="utf-8")
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        print(f"{path.relative_to(ROOT)}: {'is stale' if check else 'written'}")
        failed |= check
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
