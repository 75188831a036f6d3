"""Debian's packages."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.host.running import must, run


def package_states(names: Iterable[str]) -> dict[str, str]:
    """Return dpkg's status of those of the packages that it knows: {package: "installed", "half-configured", …}.

    Raises:
        Fault: dpkg does not answer.
    """
    # It ends with 1 when it does not know one of them.
    out = must("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\\n", *names, codes=(0, 1))
    return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)


def install_packages(*names: str) -> None:
    """Install packages without what they merely recommend, keeping configuration files that were changed.

    Raises:
        Fault: apt cannot; with its own words.
    """
    get = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300")
    install = ("install", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", *names)
    # A run that was killed inside dpkg leaves it asking for this; otherwise it does nothing.
    must("dpkg", "--configure", "-a", "--force-confold", timeout=600)
    if run(*get, *install, timeout=1800).returncode:
        must(*get, "update", timeout=600)  # apt's lists may be old, or missing
        must(*get, *install, timeout=1800)
