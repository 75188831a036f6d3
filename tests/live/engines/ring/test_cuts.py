"""A connection that is no longer allowed ends with the run that says so, whoever opened the way for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.conftest import in_turn
from tests.live.engines.ring.attack import Attack, declare, edit, talk
from tests.live.engines.ring.control import CLOSE, OPEN
from tests.live.engines.ring.declared import DATABASE, SERVICES, TALK
from tests.live.labs import Lab

STATE = "/etc/ringfence/policy"
HOSTS = ("26.1", "29")
pytestmark = pytest.mark.engines(*HOSTS)


@pytest.fixture(scope="module")
def talks(lab: Lab) -> Attack:
    declare(lab, watch_seconds=900)  # the host's timer cuts as well, and is not what is tested
    lab.pyinfra()
    return talk(lab)


def _with_db(**changes: Any) -> dict[str, Any]:
    return {**SERVICES, "db": {**SERVICES["db"], **changes}}


PUBLISHED = SERVICES["db"]["publish"]
EDITS: dict[str, tuple[dict[str, Any], str]] = {
    # What is declared instead, and the end of the names of the connections that this no longer allows.
    "a port is for another place": (
        _with_db(publish=[{**PUBLISHED[0], "from": ["vpn"]}, *PUBLISHED[1:]]),
        f"> db tcp/{DATABASE}",
    ),
    "a port is no longer published": (_with_db(publish=PUBLISHED[1:]), f"> db tcp/{DATABASE}"),
    "a call between segments is no longer declared": (
        {**SERVICES, "caller": {**SERVICES["caller"], "calls": SERVICES["caller"]["calls"][1:]}},
        f"> db tcp/{TALK}",
    ),
    "a call in a segment is no longer declared": (
        {**SERVICES, "caller": {**SERVICES["caller"], "calls": SERVICES["caller"]["calls"][:1]}},
        f"> idler tcp/{TALK}",
    ),
    "egress is no longer declared": ({**SERVICES, "caller": {**SERVICES["caller"], "egress": []}}, "> outside"),
}


@pytest.mark.parametrize("back", in_turn(["by Docker's start", "by its unit", "by the next run"], HOSTS))
def test_what_came_in_while_the_fence_was_away_is_named_and_cut(talks: Attack, back: str) -> None:
    lab = talks.lab
    lab.sh(f"rm -rf /root/kept; cp -a {STATE} /root/kept; {OPEN}")
    talks.wait_until(alive=talks.forbidden)
    # While they are in use: what Docker and UFW close again themselves may end by itself.
    named = "\n".join(lab.verify().changed)
    lab.sh(CLOSE)
    for one in talks.forbidden.values():
        # The other way round where the first packet that connection tracking saw was an answer.
        assert f"connection {one.source} > {one.address}:{one.port} " in named or (
            f"connection {one.address} > {one.source}:" in named
        )
    unit = {"by its unit": "ringfence-policy", "by Docker's start": "docker"}.get(back)
    if unit:
        lab.sh(f"mkdir -p {STATE}; cp -a /root/kept/. {STATE}; systemctl restart {unit}", timeout=180)
    else:
        lab.pyinfra()
    talks.wait_until(dead=talks.forbidden)
    lab.pyinfra()
    talks.wait_until(alive=talks.allowed)
    lab.must_be_converged()


@pytest.mark.parametrize("edited", in_turn(EDITS, HOSTS))
def test_a_connection_ends_with_the_run_that_no_longer_allows_it(talks: Attack, edited: str) -> None:
    services, named = EDITS[edited]
    edit(talks.lab, lab_services=services)
    talks.lab.pyinfra()
    gone = [flow for flow in talks.allowed if named in flow]
    assert gone
    # Among the others is what the edit before had ended: the same run allows it again.
    talks.wait_until(alive=talks.allowed.keys() - gone, dead=gone)
