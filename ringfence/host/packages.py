"""Debian's packages."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.host.running import must


def package_states(names: Iterable[str]) -> dict[str, str]:
    """Return dpkg's status of those of the packages that it knows: {package: "installed", "half-configured", …}.

    Raises:
        Fault: dpkg does not answer.
    """
    # It ends with 1 when it does not know one of them.
    out = must("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\\n", *names, codes=(0, 1))
    return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
