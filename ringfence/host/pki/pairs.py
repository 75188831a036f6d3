"""A leaf on the disk: certificate and key in a generation, and one link that makes both seen at once.

::

    <leaf>/ca.pem                   what the root's devices trust
    <leaf>/current -> 20270104T…    the generation that counts
    <leaf>/20270104T…/cert.pem      the leaf, then the intermediate
    <leaf>/20270104T…/key.pem       0400, of the container's user
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import shutil
import stat
import time
from pathlib import Path

from ringfence.host.files import make_directory, read, replace_file, sync_directory
from ringfence.host.pki.certificates import Certificate, belongs, blocks, read_certificate, verified
from ringfence.host.pki.declared import Leaf
from ringfence.host.running import Fault

LEAVES = Path("/srv/ringfence/pki")
SLACK = 3600  # seconds by which a leaf may live longer than is declared
CURRENT, CHAIN, KEY, TRUSTED = "current", "cert.pem", "key.pem", "ca.pem"


def generation(name: str) -> str:
    """Return the generation of a leaf that counts, "" where there is none."""
    try:
        found = str((LEAVES / name / CURRENT).readlink())
    except OSError:
        return ""
    return found if "/" not in found and (LEAVES / name / found).is_dir() else ""


def seen(name: str) -> str:
    """Return what changes whenever a container has something new to read."""
    trusted = hashlib.sha256(read(LEAVES / name / TRUSTED).encode()).hexdigest()
    return f"{generation(name)} {trusted[:16]}"


def present() -> list[str]:
    """Return the names of the leaves on the disk."""
    return sorted(path.name for path in LEAVES.glob("*") if path.is_dir() and not path.is_symlink())


def pair(name: str) -> Certificate | None:
    """Read a leaf's certificate; None where there is none that can be read."""
    chain = blocks(read(LEAVES / name / CURRENT / CHAIN)) if generation(name) else []
    try:
        return read_certificate(chain[0]) if chain else None
    except Fault:
        return None


def wrong(leaf: Leaf, found: Certificate | None, root: str, signer: str, life: float) -> str:
    """Say why a leaf has to be made anew, whatever time it has; "" if it serves.

    Args:
        root: the certificate that it has to lead to.
        signer: public key of the intermediate.
        life: seconds that a leaf is to live.
    """
    if found is None:
        return "missing" if not generation(leaf.name) else "it cannot be read"
    folder = LEAVES / leaf.name / CURRENT
    chain = blocks(read(folder / CHAIN))
    if found.names != set(leaf.names) or found.addresses != set(_plain(leaf.addresses)):
        return "other names"
    if found.usage != set(leaf.usage) or found.subject != leaf.name:
        return "another usage"
    if found.until - time.time() > life + SLACK:
        return "it lives longer than is declared"
    try:
        status = (folder / KEY).lstat()
    except OSError:
        return "its key is missing"
    if (status.st_uid, stat.S_IMODE(status.st_mode)) != (int(leaf.owner), 0o400) or not stat.S_ISREG(status.st_mode):
        return "its key's owner or mode"
    if not belongs(folder / CHAIN, folder / KEY):
        return "its key is another one's"
    if len(chain) < 2 or read_certificate(chain[1]).key != signer:
        return "another intermediate"
    # An expired one is not wrong but late.
    why = "" if found.until <= time.time() else verified(chain[0], chain[1], root, leaf.usage)
    return f"it does not lead to the root ({why})" if why else ""


def _plain(addresses: tuple[str, ...]) -> list[str]:
    return [str(ipaddress.ip_address(address)) for address in addresses]


def put(leaf: Leaf, certificate: str, intermediate: str, key: str) -> None:
    """Let a new certificate and its key be the ones that are seen, in one step; the last pair before them stays."""
    home = LEAVES / leaf.name
    before = generation(leaf.name)
    make_directory(home)
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    new = home / f".{name}"
    new.mkdir()
    new.chmod(0o755)
    replace_file(new / CHAIN, certificate + intermediate, 0o444)
    replace_file(new / KEY, key, 0o400, (int(leaf.owner), int(leaf.owner)))
    new.rename(home / name)
    link = home / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(home / CURRENT)
    sync_directory(home)
    tidy(leaf.name, {name, before})


def tidy(name: str, kept: set[str]) -> None:
    """Remove a leaf's older generations, and what killed runs have left."""
    for path in (LEAVES / name).iterdir():
        if path.name not in {*kept, CURRENT, TRUSTED}:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def trust(name: str, roots: str) -> None:
    """Put the roots that a container trusts beside its leaf."""
    path = LEAVES / name / TRUSTED
    if read(path) != roots or stat.S_IMODE(os.lstat(path).st_mode) != 0o444:
        replace_file(path, roots, 0o444)
