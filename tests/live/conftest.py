"""Live tests run on throwaway hosts: real systemd, sshd, ufw and dockerd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.live import leftovers
from tests.live.labs import Lab

RARELY = 900  # seconds
LONGEST = ("fleet", "proxy")  # the folders whose tests last longest on one host


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "live tests need root: they make hosts of their own. Run as root, or choose -m 'not live'"
    if not shutil.which("docker"):
        return "live tests need a Docker engine on this machine. Use ./run test, or choose -m 'not live'"
    return None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    elsewhere = [item for item in items if _is_of_other_engines(item)]
    items[:] = [item for item in items if item not in elsewhere]
    config.hook.pytest_deselected(items=elsewhere)
    # What is in a folder of a folder comes last: it goes on with the hosts that the others wanted fresh.
    items.sort(key=lambda item: here in item.path.parents and len(item.path.relative_to(here).parts) > 2)
    # What lasts longest begins first: all others would wait for its end.
    items.sort(key=lambda item: [here / name not in item.path.parents for name in LONGEST])
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)
            # The tests of one host stay on one worker, in order. (A mark on a fixture's parameter does not do it.)
            host = getattr(item, "callspec", None) and item.callspec.params.get("lab")  # type: ignore[attr-defined]
            # A folder's files have one after the other, with those of the folders in it.
            of = Path(item.path.relative_to(here).parts[0]).stem
            item.add_marker(pytest.mark.xdist_group(f"{of}-{host or 'lab'}"))


def _is_of_other_engines(item: pytest.Item) -> bool:
    """Whether it is marked to be made with engines that do not include its lab's (or host's)."""
    mark = item.get_closest_marker("engines")
    if mark is None:
        return False
    # Only functions have one, and only they are marked so.
    params = item.callspec.params  # type: ignore[attr-defined]
    return params["lab" if "lab" in params else "host"] not in mark.args


def in_turn(cases: Iterable[str], hosts: Iterable[str]) -> list[Any]:
    """Parameters that have each case made on one of several hosts: what it tries is the same code on all of them."""
    return [
        pytest.param(case, marks=pytest.mark.engines(host)) for case, host in zip(cases, cycle(hosts), strict=False)
    ]


@pytest.fixture(scope="session", autouse=True)
def able() -> Iterator[None]:
    """Skip loudly where live tests cannot run; in CI that is a failure. What a killed run left is removed first."""
    if reason := _why_not():
        cannot(reason)
    with leftovers.removed():
        yield


def cannot(reason: str) -> NoReturn:
    """Say why a test cannot run here; in CI that is a failure."""
    if os.environ.get("RINGFENCE_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def fresh(
    name: str,
    engine: str,
    *,
    preinstalled: bool = True,
    watched: bool = False,
    hosts: Mapping[str, str] | None = None,
    **standing: object,
) -> Iterator[Lab]:
    """A fresh instance of the lab, removed afterwards unless RINGFENCE_KEEP is set.

    Args:
        name: of the instance.
        engine: Docker's version; "none" for a host without it.
        preinstalled: whether the roles' packages are there already, as where their installation is not what is tested.
        watched: whether the host's timer looks as often as everybody's. Several hosts at once have little time for it.
        hosts: further hosts to provision, as `Lab` takes them.
        standing: what is declared for this instance, beneath the edits of its tests.
    """
    assert name.startswith("t-"), "by such names what a killed run left is known"
    preinstalled = preinstalled and engine != "none"
    lab = Lab(leftovers.PREFIX + name, engine, preinstalled=preinstalled, hosts=hosts)
    try:
        lab.up()
        seldom = {"stack_health_seconds": RARELY, **({} if watched else {"watch_seconds": RARELY})}
        lab.stand(seldom | standing)
        yield lab
    finally:  # also of one that did not come up: it would take the place of the next
        if not os.environ.get("RINGFENCE_KEEP"):
            lab.lab("down")
