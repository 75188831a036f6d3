"""Sent to a host and run there: puts files in place, each at once and whole, with its final mode from birth.

Standard library only, Python 3.11. Contents arrive on standard input, never in arguments.
"""

from __future__ import annotations

import os
import shutil
import tempfile


def place(files: list[dict[str, str]]) -> None:
    """Write each of ``[{path, content, mode, user, group}]`` to a temporary sibling and rename it into place."""
    for want in files:
        directory = os.path.dirname(want["path"])  # noqa: PTH120 - plain strings, as they arrive
        os.makedirs(directory, mode=0o755, exist_ok=True)  # noqa: PTH103
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=".ringfence-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(want["content"])
                os.fchmod(stream.fileno(), int(want["mode"], 8))
                shutil.chown(temporary, want["user"], want["group"])
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, want["path"])  # noqa: PTH105
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108
            raise


if __name__ == "__main__":
    place(globals()["REQUEST"]["desired"])
