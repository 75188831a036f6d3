"""pyinfra's `--limit`, `--dry` and its end: what was asked for and not done does not end with 0.

pyinfra has no settings for this, so the names that its command line looks up are laid over; a test holds that they are
there.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any, NoReturn

INTERRUPTED = 130  # as a shell says it of what Ctrl-C has ended


def install() -> None:
    """Lay it over. Where pyinfra is not at work, as when Ansible reads the inventory, nothing is done."""
    cli: Any = sys.modules.get("pyinfra_cli.cli")
    if cli is None:
        return
    _must_plan()
    cli._get_inventory_pattern_matches = _matching
    leaves = cli._apply_inventory_exclude
    if not getattr(leaves, "of_ringfence", False):
        cli._apply_inventory_exclude = _leaving_somebody(leaves)
    if getattr(signal.getsignal(signal.SIGINT), "__module__", "") == "pyinfra_cli.main":
        signal.signal(signal.SIGINT, _interrupted)


def _must_plan() -> None:
    """Told to ask nothing, pyinfra looks at nothing before it begins: with ``--dry`` it shows nothing and ends well."""
    import click

    context = click.get_current_context(silent=True)
    if context and context.params.get("dry") and context.params.get("yes"):
        print(
            "    nothing was looked at: --yes leaves out the plan that --dry shows (leave --yes out)", file=sys.stderr
        )
        raise SystemExit(1)


def _matching(inventory: Any, patterns: Iterable[str], option: str) -> list[Any]:
    """Return the hosts of groups and patterns; one that pyinfra has to call @local answers to its own name as well."""
    from pyinfra import logger
    from pyinfra.api.exceptions import NoGroupError

    found: dict[Any, None] = {}
    for pattern in patterns:
        try:
            hosts = list(inventory.get_group(pattern))
        except NoGroupError:
            hosts = [host for host in inventory if any(fnmatch(name, pattern) for name in _names(host))]
        if not hosts:
            logger.warning(f"{option} {pattern}: no host and no group has that name")
        found |= dict.fromkeys(hosts)
    return list(found)


def _names(host: Any) -> tuple[str, str]:
    return str(host.name), str(host.data.get("inventory_hostname") or host.name)


def _leaving_somebody(leaves: Any) -> Any:
    """Nothing is done where nobody is left, and it looked well."""

    def leaving(inventory: Any, limit: Any, exclude: Any) -> Any:
        left = leaves(inventory, limit, exclude)
        if left == []:
            known = ", ".join(sorted({_names(host)[1] for host in inventory}))
            print(
                f"    nothing was done: --limit and --exclude leave no host of the inventory, which has {known}",
                file=sys.stderr,
            )
            raise SystemExit(1)
        return left

    leaving.of_ringfence = True  # type: ignore[attr-defined]
    return leaving


def _interrupted(*_: Any) -> NoReturn:
    print("\n    interrupted: run again, it goes on from what is there (docs/safety.md)", file=sys.stderr)
    raise SystemExit(INTERRUPTED)
