"""Files, links and directories exactly as they are, and put back so."""

from __future__ import annotations

import base64
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from ringfence.host.files import make_directory, replace_file

ROOT = Path(os.environ.get("RINGFENCE_GUARD_ROOT", "/"))
# Directories that a package owns are never removed whole, even if they were not there yet.
# What the guarded roles keep goes with them: the role watch must not bring back what was taken back.
OWN = ("etc/ringfence/policy", "etc/ringfence/ufw", "etc/ringfence/base", "etc/ringfence/wireguard")
WATCHED = ("etc/ufw", "etc/default/ufw", "etc/ssh/sshd_config", "etc/ssh/sshd_config.d", "etc/wireguard", *OWN)
TUNNELS = ("etc/wireguard/", "etc/ringfence/wireguard/")


def describe(path: Path) -> dict[str, Any] | None:
    """Everything that makes a file, link or directory what it is; None when there is none."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return None
    entry: dict[str, Any] = {"mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
    if stat.S_ISLNK(info.st_mode):
        return entry | {"kind": "link", "target": str(path.readlink())}
    if stat.S_ISDIR(info.st_mode):
        return entry | {"kind": "directory"}
    if stat.S_ISREG(info.st_mode):
        return entry | {"kind": "file", "content": base64.b64encode(path.read_bytes()).decode()}
    return entry | {"kind": "other"}


def tree(top: str) -> dict[str, dict[str, Any]]:
    """Describe a path and all below it, parents first, keyed by path relative to the root."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [ROOT / top]
    while waiting:
        path = waiting.pop()
        entry = describe(path)
        if entry is None:
            continue
        found[str(path.relative_to(ROOT))] = entry
        if entry["kind"] == "directory":
            waiting += sorted(path.iterdir(), reverse=True)
    return found


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_back(path: Path, entry: dict[str, Any], present: dict[str, Any] | None) -> None:
    owner = (entry["uid"], entry["gid"])
    if present and present["kind"] != entry["kind"] and entry["kind"] in ("directory", "file"):
        remove(path)
    if entry["kind"] == "file":
        replace_file(path, base64.b64decode(entry["content"]), entry["mode"], owner)
    elif entry["kind"] == "directory":
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, *owner)
        path.chmod(entry["mode"])
    elif entry["kind"] == "link":
        remove(path)
        make_directory(path.parent)
        path.symlink_to(entry["target"])
        os.lchown(path, *owner)


def file_differences(files: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any] | None]]:
    """What differs from the snapshot, in the order in which it is put back: path, and what belongs there."""
    found: list[tuple[str, dict[str, Any] | None]] = []
    for top, wanted in files.items():
        present = tree(top)
        if not wanted and top not in OWN:
            # Not there when armed: a package has put it there since, and would not put it there again.
            continue
        found += [(name, None) for name in sorted(set(present) - set(wanted), key=len, reverse=True)]
        found += [(name, entry) for name, entry in wanted.items() if present.get(name) != entry]
    return found


def restore_file(name: str, entry: dict[str, Any] | None) -> None:
    """Bring one path back; it goes where it was not there."""
    if entry is None:
        remove(ROOT / name)
    else:
        put_back(ROOT / name, entry, describe(ROOT / name))
