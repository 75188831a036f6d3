"""The host's own intermediate: its key is made here and stays, the root signs it on the controller."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.files import make_directory, read, replace_file
from ringfence.host.pki.certificates import (
    Certificate,
    belongs,
    blocks,
    day,
    new_key,
    public_half,
    read_certificate,
    signing_request,
    verified,
)
from ringfence.host.pki.declared import MISTRUST, Leaf, all_addresses, all_names
from ringfence.host.running import Fault

HOME = Path("/etc/ringfence/pki")
SIGNER_KEY, SIGNER, ROOT = HOME / "intermediate.key", HOME / "intermediate.pem", HOME / "root.pem"
DAY = 86400


class Need(NamedTuple):
    """Why a new intermediate is wanted; "" where it is not.

    Attributes:
        must: whether nothing can be issued before there is one.
    """

    why: str
    must: bool


def signer() -> Certificate | None:
    """Read the intermediate; None where there is none that can be read."""
    found = blocks(read(SIGNER))
    try:
        return read_certificate(found[0]) if found else None
    except Fault:
        return None


def need(desired: dict[str, Any], wanted: list[Leaf], found: Certificate | None) -> Need:
    """Say whether the root has to sign a new intermediate."""
    if found is None:
        return Need("missing" if not SIGNER.exists() else "it cannot be read", must=True)
    if not SIGNER_KEY.exists() or not belongs(SIGNER, SIGNER_KEY):
        return Need("its key is missing" if not SIGNER_KEY.exists() else "its key is another one's", must=True)
    root, now = blocks(desired["root"])[0], time.time()
    if found.until <= now:
        return Need(f"it ended on {day(found.until)}", must=True)
    if found.subject != f"ringfence intermediate {desired['host']}":
        return Need("another name of this host", must=True)
    if found.permitted != set(all_names(wanted)) or {str(one.network_address) for one in found.networks} != set(
        all_addresses(wanted)
    ):
        return Need("other names", must=True)
    why = verified(blocks(read(SIGNER))[0], "", root) if found.since <= now else ""
    if why:
        return Need(f"another root ({why})", must=True)
    return ageing(desired, found, read_certificate(root).until)


def ageing(desired: dict[str, Any], found: Certificate, root_until: float) -> Need:
    """Say whether an intermediate that serves is past two thirds of its life, or has more of it than is declared."""
    life, left = float(desired["intermediate_days"]) * DAY, found.until - time.time()
    if left > life + DAY:
        return Need("it lives longer than is declared", must=False)
    # As long as the root lives is all that there is to be had.
    if left < life / 3 and found.until < root_until - DAY:
        return Need(f"it ends on {day(found.until)}", must=False)
    return Need("", must=False)


def ensure_key() -> None:
    """Make the key, unless there is one."""
    make_directory(HOME.parent)
    make_directory(HOME, 0o700)
    if not public_half(SIGNER_KEY):
        replace_file(SIGNER_KEY, new_key(), 0o600)
    elif stat.S_IMODE(SIGNER_KEY.stat().st_mode) != 0o600:
        SIGNER_KEY.chmod(0o600)


def question(desired: dict[str, Any], wanted: list[Leaf]) -> dict[str, Any]:
    """Return what the controller is asked: a signature, for these names."""
    return {
        "csr": signing_request(SIGNER_KEY, f"ringfence intermediate {desired['host']}"),
        "host": desired["host"],
        "names": all_names(wanted),
        "addresses": all_addresses(wanted),
    }


def take(desired: dict[str, Any], wanted: list[Leaf], answer: dict[str, Any]) -> None:
    """Put the signed intermediate in place. Raises Fault: it is not what was asked for."""
    signed_one = blocks(str(answer.get("intermediate") or ""))
    root = blocks(desired["root"])[0]
    why = verified(signed_one[0], "", root) if signed_one else "there is none"
    if not why:
        found = read_certificate(signed_one[0])
        fits = found.key == public_half(SIGNER_KEY) and found.permitted == set(all_names(wanted))
        why = "" if fits and found.authority else "it is another one"
    if why:
        raise Fault(f"what the controller signed is not taken: {why}")
    replace_file(ROOT, root, 0o644)
    replace_file(SIGNER, signed_one[0], 0o644)


def must_be_now(found: Certificate) -> None:
    """Raises Fault where the clock is before the intermediate's time: what would be signed now would be void."""
    if time.time() < found.since:
        raise Fault(f"this host's clock says {day(time.time())}, before its intermediate was signed: {MISTRUST}")
