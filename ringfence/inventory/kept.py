"""The last answer of `ringfence.inventory`, so that an unchanged lab is not read and compiled again.

Reading a lab takes half a second, as much as pyinfra needs to connect and do nothing. An answer is kept only if it
follows from files that are all known (`ringfence.inventory.pure`), and it is opened with a key made of the content of
every one of them, the vault's password included, and of the program itself. So

- a changed byte of any of them makes another key, and the old answer cannot be opened;
- decrypted secrets are on the disk for those only who can read the vaulted ones and their password anyway.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SETTING = "RINGFENCE_KEEP_INVENTORY"
_ROUNDS = 10_000  # as many as ansible-vault: guessing the vault's password is not cheaper here
_BYTES = 32 << 20
_DAYS = 30  # what nobody has written for so long is of a lab that is gone
_PACKAGES = {"ansible": "release.py", "jinja2": "__init__.py", "pydantic": "version.py", "yaml": "__init__.py"}


class UnknownInputError(Exception):
    """Something that the answer depends on cannot be read, or there is too much of it."""


class Kept:
    """The kept answer of one lab.

    Args:
        directory: the lab's inventory.
        root: the repository.

    Raises:
        UnknownInputError: not everything that the answer depends on can be known.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._of = (directory, root)
        self._digest = _digest(directory, root)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        name = hashlib.sha256(str(directory).encode()).hexdigest()[:24]
        self._path = Path(cache) / "ringfence" / "inventories" / name

    def load(self) -> dict[str, Any] | None:
        """Return the answer, None where there is none for today's files."""
        from cryptography.fernet import InvalidToken

        try:
            data: dict[str, Any] = json.loads(self._fernet().decrypt(self._path.read_bytes()))
        except (OSError, InvalidToken, ValueError):
            return None
        return data

    def save(self, data: dict[str, Any]) -> None:
        """Keep an answer, unless a file has changed since; a cache that cannot be written is none."""
        with contextlib.suppress(OSError, UnknownInputError):
            if _digest(*self._of) != self._digest:
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._fernet().encrypt(json.dumps(data).encode()))
            Path(name).replace(self._path)
            for path in self._path.parent.iterdir():
                if path.stat().st_mtime < time.time() - _DAYS * 86400:
                    path.unlink()

    def _fernet(self) -> Any:
        # Not at the top: it is a part of ansible-core's needs, and without it the lab is read anew.
        from cryptography.fernet import Fernet

        key = hashlib.pbkdf2_hmac("sha256", self._digest, b"ringfence inventory", _ROUNDS)
        return Fernet(base64.urlsafe_b64encode(key))


def kept(directory: Path, root: Path) -> Kept | None:
    """Return where the lab's answer is kept; None where that cannot be done, or is switched off."""
    if os.environ.get(SETTING) == "0" or find_spec("cryptography") is None:
        return None
    try:
        return Kept(directory, root)
    except (UnknownInputError, OSError):
        return None


def _digest(directory: Path, root: Path) -> bytes:
    """Digest everything that an answer depends on. Raises UnknownInputError, OSError."""
    digest = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        digest.update(f"{len(name)} {len(content)} {name}".encode() + content)

    left = _BYTES
    for path in _files(directory, root):
        status = path.stat()
        left -= status.st_size
        if not stat.S_ISREG(status.st_mode) or left < 0:
            raise UnknownInputError(str(path))
        # A program that prints the vault's password is another matter than a file that holds it.
        add(f"{path} {status.st_mode & 0o111}", path.read_bytes())
    for name in sorted(["HOME", *(name for name in os.environ if name.startswith("ANSIBLE_"))]):
        add(name, os.environ.get(name, "").encode("utf-8", "surrogateescape"))
    # Resolved: one engine may have come by a link to the environment, and both shall have the same answer.
    environment = str(Path(sys.prefix).resolve())
    add("where", "\0".join([str(directory), str(root), str(Path.cwd()), environment, sys.version]).encode())
    return digest.digest()


def _files(directory: Path, root: Path) -> Iterator[Path]:
    for folder in (directory, root / "group_vars", root / "host_vars", root / "ringfence"):
        yield from _below(folder)
    yield from sorted(root.glob("roles/*/defaults/main.yml"))
    for settings in (
        root / "ansible.cfg",
        Path("ansible.cfg"),
        Path.home() / ".ansible.cfg",
        Path("/etc/ansible/ansible.cfg"),
    ):
        if settings.exists():
            yield settings
    if os.environ.get("ANSIBLE_CONFIG"):
        yield Path(os.environ["ANSIBLE_CONFIG"])
    for package, file in _PACKAGES.items():
        spec = find_spec(package)
        for place in (spec.submodule_search_locations if spec else None) or []:
            yield Path(place).resolve() / file


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in folders:
            if (Path(where) / name).is_symlink():
                raise UnknownInputError(f"{where}/{name}")
        yield from (Path(where) / name for name in sorted(files))
