"""One policy over several hosts: what is declared passes between them, in the tunnels and nowhere else."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from urllib.request import urlopen

from tests.live.fleet.tunnel import INTERFACE, address
from tests.live.hearing import heard
from tests.live.labs import Lab, waited_for
from tests.live.proxy.client import Session


def test_neither_engine_has_anything_to_change(lab: Lab) -> None:
    assert lab.plan().changed == []
    lab.must_be_converged()
    assert lab.ansible().changed == []


def test_exactly_the_declared_traffic_passes_between_hosts(lab: Lab) -> None:
    run = lab.verify()
    assert run.changed == [], run.text
    assert re.search(r"\d+ cells: \d+ open, \d+ closed, .*0 differences", run.text), run.text


def test_a_database_on_another_host_sees_who_calls(lab: Lab) -> None:
    answer = Session(lab).ask("cloud", "/status.php")
    assert (answer.status, answer.by_application) == (200, True), answer
    addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    own = lab.sh(f"docker inspect -f '{addresses}' nextcloud-nextcloud-1").split()
    assert any(one in answer.body for one in own), answer.body


def test_what_the_page_shows_reaches_its_database(lab: Lab) -> None:
    def page() -> bytes:
        with contextlib.suppress(OSError), urlopen(f"http://{lab.address()}:8081/", timeout=5) as answer:
            return bytes(answer.read())
        return b""

    assert waited_for(lambda: b"database wiki" in page(), 60, 1), page()
    assert lab.sh("docker ps -q --filter name=^wiki-db-", "nas")


def plain(lab: Lab, ask: Callable[[], object], mark: bytes = b"X-Ringfence-Mark: films") -> dict[str, bool]:
    """Where on the way from the proxy to the films a mark in what is sent can be read."""
    return {at: mark in heard(lab, at, ask) for at in ("rf-frontend", "eth0", "eth1")}


def test_between_hosts_nothing_passes_in_plain_text(lab: Lab) -> None:
    session = Session(lab, "anna")

    def ask() -> None:
        assert session.ask("media", "/", headers={"X-Ringfence-Mark": "films"}).by_application

    # The application speaks no TLS: the listener on the proxy's own bridge can read it.
    assert plain(lab, ask) == {"rf-frontend": True, "eth0": False, "eth1": False}


def test_what_a_neighbour_sends_in_another_hosts_name_does_not_arrive(lab: Lab) -> None:
    """A machine of the LAN takes the address that a host has in the tunnel, or a container of it."""
    nas, tunnel = address(lab, "nas", "eth0"), address(lab, "atlas")
    lab.sh(f"ip address add {tunnel}/32 dev eth0", "outside")
    try:
        probe = (
            f"import socket; s = socket.socket(); s.settimeout(3); s.bind(('{tunnel}', 0)); s.connect(('{nas}', 22))"
        )
        assert "timed out" in lab.sh(f'python3 -c "{probe}" 2>&1', "outside", check=False)
    finally:
        lab.sh(f"ip address del {tunnel}/32 dev eth0", "outside")
    # The same door is open for who is there by right.
    assert lab.sh(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{address(lab, 'nas')}/22; head -c 4 <&3'") == "SSH-"


def test_a_host_that_is_down_stops_nobody_else(lab: Lab) -> None:
    lab.lab("poweroff", "--host=edge")
    try:
        run = lab.pyinfra(check=False)
        assert "edge" in run.text
        peers = lab.sh(f"wg show {INTERFACE} peers").split()
        assert len(peers) == 2  # its key stays known
        assert Session(lab).ask("cloud", "/status.php").status == 200
    finally:
        lab.lab("start", "--host=edge")
    assert waited_for(lambda: Session(lab, "anna").ask("media").by_application, 90, 1)


DROPS = "/var/log/ringfence/drops.json"


def logged(lab: Lab, host: str) -> int:
    """How many lines a host has written of what it dropped: what verify has tried, as far as the limit let it."""
    return int(lab.sh(f"wc -l < {DROPS}", host))


def named(lab: Lab, host: str, after: int, to: str, port: int) -> set[str]:
    """By which names a host has dropped, after so many lines, what goes to a port of an address."""
    lines = lab.sh(f"tail -n +{after + 1} {DROPS}", host).splitlines()
    found = [json.loads(line) for line in lines if f'"{to}"' in line]
    return {one["oob.prefix"].strip() for one in found if (one.get("dest_ip"), one.get("dest_port")) == (to, port)}


def test_what_is_not_declared_is_named_where_it_starts_and_where_it_arrives(lab: Lab) -> None:
    """A container calls another port than the database's; then its host itself, whom nothing stops, calls that."""
    database = next(s for s in lab.variables()["verify_services"] if s["name"] == "nextcloud-db")
    to = database["networks"][0]["address"]
    call = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}/{}'"
    caller = lab.sh("docker inspect -f '{{.State.Pid}}' nextcloud-nextcloud-1").strip()
    before = {host: logged(lab, host) for host in ("atlas", "nas")}

    def names(host: str, port: int) -> set[str]:
        return named(lab, host, before[host], to, port)

    lab.sh(f"nsenter -t {caller} -n {call.format(to, 5433)}", check=False)
    # By the segment that it leaves: its first network by name is the way out.
    assert waited_for(lambda: names("atlas", 5433) in ({"RF DROP backend"}, {"RF DROP frontend"}), 10)
    assert names("nas", 5433) == set()  # it has not left
    lab.sh(call.format(to, 5432), check=False)
    assert waited_for(lambda: names("nas", 5432) == {"RF DROP into backend"}, 10), names("nas", 5432)
