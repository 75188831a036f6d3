"""This host's own keys: made here, one for each generation; a link says which one is in use.

::

    wg-ringfence.2.key    0600, the private one
    wg-ringfence.2.pub    the public one
    wg-ringfence.key -> wg-ringfence.2.key
    wg-ringfence.pub -> wg-ringfence.2.pub
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from ringfence.host.files import make_directory, read, replace_file, sync_directory
from ringfence.host.running import Fault, run
from ringfence.host.wireguard.declared import KEY

KEYS = Path("/etc/wireguard/ringfence")


def key_path(interface: str, generation: int, kind: str = "key") -> Path:
    """Where a key is; `kind` is "key" or "pub"."""
    return KEYS / f"{interface}.{generation}.{kind}"


def generation_in_use(interface: str) -> int:
    """Return the generation of the key in use, 0 where there is none."""
    try:
        found = re.fullmatch(r".*\.(\d+)\.key", str((KEYS / f"{interface}.key").readlink()))
    except OSError:
        return 0
    return int(found[1]) if found else 0


def interfaces_with_keys() -> list[str]:
    """Return the interfaces for which there are keys."""
    found = (re.fullmatch(r"(.+)\.\d+\.(key|pub)", path.name) for path in KEYS.glob("*"))
    return sorted({match[1] for match in found if match})


def private_key(interface: str, generation: int) -> str:
    """Return the private key of a generation, "" where it has not been made.

    Raises:
        Fault: its file holds something else: another key in its place would cut off every peer.
    """
    path = key_path(interface, generation)
    text = read(path).strip()
    if path.exists() and not KEY.fullmatch(text):
        raise Fault(f"{path} holds no key: put it back from a backup, or remove it: then peers have to learn a new one")
    return text


def public_key(private: str) -> str:
    """Return the public key of a private one. Raises Fault: `wg` fails; what it was given is not told."""
    return _asked("pubkey", private + "\n")


def _asked(verb: str, given: str | None = None) -> str:
    done = run("wg", verb, text=given)
    text = done.stdout.strip()
    if done.returncode or not KEY.fullmatch(text):
        raise Fault(f"`wg {verb}` failed: {done.stderr.strip() or f'exit code {done.returncode}, and no key'}")
    return text


def ensure_key(interface: str, generation: int) -> str:
    """Make the key of a generation unless it is there, without using it; returns the public one. Raises Fault."""
    make_directory(KEYS.parent, 0o700)
    make_directory(KEYS, 0o700)
    path = key_path(interface, generation)
    private = private_key(interface, generation)
    if not private:
        private = _asked("genkey")
        replace_file(path, private + "\n", 0o600)
    elif stat.S_IMODE(path.stat().st_mode) != 0o600:
        path.chmod(0o600)
    public = public_key(private)
    if read(key_path(interface, generation, "pub")) != public + "\n":
        replace_file(key_path(interface, generation, "pub"), public + "\n", 0o644)
    return public


def use_key(interface: str, generation: int) -> None:
    """Let a generation be the one in use, and forget the others."""
    for kind in ("pub", "key"):
        link, temporary = KEYS / f"{interface}.{kind}", KEYS / f".{interface}.{kind}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(key_path(interface, generation, kind).name)
        temporary.replace(link)
    sync_directory(KEYS)
    for path in other_keys(interface, generation):
        path.unlink()


def other_keys(interface: str, generation: int) -> list[Path]:
    """Return the keys of an interface's other generations."""
    pattern = re.compile(rf"{re.escape(interface)}\.(\d+)\.(key|pub)")
    return sorted(
        path for path in KEYS.glob("*") if (found := pattern.fullmatch(path.name)) and int(found[1]) != generation
    )


def forget_halves() -> None:
    """Remove what a killed run has left beside keys and configurations: files that were not in place yet."""
    for directory in (KEYS, KEYS.parent):
        for pattern in (".ringfence-*", ".*.key", ".*.pub"):
            for path in directory.glob(pattern):
                path.unlink()


def own_keys(interface: str) -> list[Path]:
    """Return everything that is kept of an interface's keys, links first."""
    links = [KEYS / f"{interface}.{kind}" for kind in ("key", "pub")]
    return [path for path in links if path.is_symlink() or path.exists()] + other_keys(interface, 0)
