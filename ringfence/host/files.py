"""Files of the host: read whole, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ringfence.host.running import Fault


def read(path: Path) -> str:
    """Return the text of a file, "" when it is not there. Raises OSError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def sysctl_path(key: str) -> Path:
    """Return the file of a kernel setting such as "net.ipv4.ip_forward"."""
    return Path("/proc/sys") / key.replace(".", "/")


def read_json(path: Path, empty: bool = False) -> dict[str, Any] | None:
    """Return the JSON object in a file, None when the file is not there.

    Args:
        empty: whether a file without content is an empty object, as some programs have it.

    Raises:
        Fault: it cannot be read, or it holds something else: that is never taken for an empty one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = {} if empty and not text.strip() else json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise Fault(f"{path} cannot be read: this needs root") from None
    except (OSError, ValueError) as error:
        raise Fault(f"{path} cannot be read: {error}; correct it, or move it away if it is not needed") from None
    if not isinstance(found, dict):
        raise Fault(f"{path} holds no JSON object; correct it, or move it away if it is not needed")
    return found


def replace_file(path: Path, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Replace a file so that at any moment, also after a power cut, either the old or the new one is there.

    It has its final mode and owner (user and group id) from birth. Missing parent directories are made, mode 0755.
    """
    make_directory(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".ringfence-")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            if owner:
                os.fchown(handle.fileno(), *owner)
            os.fchmod(handle.fileno(), mode)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory and its missing parents, each with the mode whatever the umask; those that exist stay."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(mode)


def sync_directory(path: Path) -> None:
    """Make what was renamed or removed in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
