"""Debian's packages."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.host.running import Fault, must


def package_states(names: Iterable[str]) -> dict[str, str]:
    """Return dpkg's status of those of the packages that it knows: {package: "installed", "half-configured", …}.

    Raises:
        Fault: dpkg does not answer.
    """
    # It ends with 1 when it does not know one of them.
    out = must("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\\n", *names, codes=(0, 1))
    return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)


LOCKED = 120  # seconds that another program is given to end its own work with packages
# An answer takes a moment or does not come; apt itself would wait for minutes, many times.
_GET = (
    "apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={LOCKED}", "-o", "Acquire::Retries=1",
    "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20",
)  # fmt: skip


def update_lists() -> None:
    """Fetch apt's lists of packages. Raises Fault with apt's own words."""
    must(*_GET, "update", timeout=600)


def install_packages(*names: str) -> None:
    """Install packages without what they merely recommend, keeping configuration files that were changed.

    Raises:
        Fault: apt cannot; with its own words.
    """
    # What would have to go is the user's decision: apt refuses, and says what it is.
    options = ("--no-install-recommends", "--no-remove", "-o", "Dpkg::Options::=--force-confold")
    install = ("install", *options, *names)
    try:
        must(*_GET, *install, timeout=1800)
        return
    except Fault as fault:
        if "Could not get lock" in str(fault) or "Unable to acquire the dpkg" in str(fault):
            raise
        if "dpkg --configure -a" in str(fault):  # a run was killed inside dpkg
            must("dpkg", "--configure", "-a", "--force-confold", timeout=600)
    update_lists()  # they may be old, or missing
    must(*_GET, *install, timeout=1800)
