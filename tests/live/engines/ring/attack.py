"""The attack on a provisioned lab: agents on both hosts that try what must not pass while something happens."""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from tests.live.engines.ring.attacks import World, attacks
from tests.live.engines.ring.declared import (
    ANYWHERE,
    DATABASE,
    HOST_SERVICES,
    OTHER,
    PUBLISHED_UDP,
    RESTING,
    SEGMENTS,
    SERVICES,
    TALK,
    UNDECLARED,
    Addresses,
    Flow,
    Probe,
    declared,
    forbidden,
    numbered,
    odd,
    stowaways,
)
from tests.live.engines.ring.guests import GUESTS, NOBODY, invite, world
from tests.live.engines.ring.judge import LEAST_TRIES, Findings, Ledger, blind, judge, leaks, summary
from tests.live.engines.ring.wire import must_arrive_as_sent
from tests.live.labs import NO_DOOR, Lab, RunError

HOSTS = ("atlas", "outside")
RATE = 50.0  # attempts per second of the first cell of each way; of what else goes that way, half as many
RATE_OF_MANY = 10.0  # of frames, where there are hundreds of cells
LOGS = "/var/lib/ring"
PROGRAM = "/usr/local/lib/ring.pyz"
CONFIG = "/etc/ring.json"
# Before Docker, so that a container is tried from its first moment on; after UFW, as any service of the host is. Its
# turn comes ahead of what else the machine does: a busy one would have it try too seldom to know anything.
UNIT = f"""[Unit]
DefaultDependencies=no
After=local-fs.target ufw.service
Before=docker.service
[Service]
ExecStart=/usr/bin/python3 {PROGRAM} {CONFIG}
LimitNOFILE=65536
Nice=-10
[Install]
WantedBy=multi-user.target
"""
PORTS = [
    ["tcp", UNDECLARED, False], ["udp", UNDECLARED, False], ["tcp", TALK, True], ["tcp", DATABASE, True],
    ["tcp", OTHER, False], ["udp", PUBLISHED_UDP, False], ["tcp", ANYWHERE, False], ["udp", ANYWHERE, False],
]  # fmt: skip
SILENT = 20  # beats of a tenth of a second without an answer: this connection is dead
LATELY = 4.0  # seconds, in which there are more beats than that
SETTLED = 90.0  # seconds until everything that is declared must work again


def program() -> bytes:
    """The agent as one file that Python runs."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((Path(__file__).parent / "agent").glob("*.py")):
            packed.write(path, f"agent/{path.name}")
        packed.writestr("__main__.py", "import sys\nfrom agent.main import main\nmain(sys.argv[1:])\n")
    return archive.getvalue()


class Attack:
    """Probes and connections between the places of a lab, running until the lab is gone.

    Attributes:
        probes: {id: what is tried again and again and must not arrive}; names: {id: its name}.
        allowed, forbidden: {id: connection that is kept up, or tried to be}.
        containers: {name: IPv4 addresses by which its namespace is known}.
        rate: tries per second of each probe that is tried once in a round.
    """

    def __init__(
        self,
        lab: Lab,
        addresses: Addresses,
        probes: list[Probe],
        allowed: list[Flow],
        stowaways: list[Flow],
        world: World | None = None,
    ) -> None:
        """`world`: for frames, where everybody is; then frames are counted everywhere, also at the host."""
        self.lab = lab
        self.probes = {str(number): probe for number, probe in enumerate(probes)}
        self.names = {number: probe.name for number, probe in self.probes.items()}
        self.allowed = {flow.name: flow for flow in allowed}
        self.forbidden = {flow.name: flow for flow in stowaways}
        self.addresses = addresses
        self.containers = {name: addresses.of[name][:1] for name in SERVICES}
        self._sniffs = {"atlas": ""}  # a packet on the host's own interface has not passed the host's filter yet
        self._others = "packets"
        self.rate = RATE / 2
        if world:
            self.containers |= {name: [world.at[name].four] for name in GUESTS}
            self._sniffs, self._others, self.rate = (
                {"atlas": "behind the filter", "nobody": ""},
                "frames",
                RATE_OF_MANY,
            )
        self._until = time.time()
        self._ledgers: dict[str, Ledger] = {}

    @property
    def rates(self) -> dict[str, float]:
        """How often each probe is to be tried, per second."""
        return {number: self.rate * probe.times for number, probe in self.probes.items()}

    # -- the agents

    def begin(self) -> None:
        """Put the agents on both hosts and start them; returns when every place is being tried from."""
        self._ledgers.clear()
        for host in HOSTS:
            self._write(host, PROGRAM, program())
            self._write(host, CONFIG, json.dumps(self._config(host)).encode())
            self._write(host, "/etc/systemd/system/ring.service", UNIT.encode())
            self.lab.sh(
                f"rm -rf {LOGS}; systemctl daemon-reload; systemctl enable ring.service 2>/dev/null;"
                " systemctl restart ring.service",
                host,
            )
        self.wait_for(lambda: self.look(0).sent.keys() >= self.probes.keys(), "a first try of every cell")
        self.from_now_on()

    def _write(self, host: str, path: str, content: bytes) -> None:
        text = base64.encodebytes(gzip.compress(content)).decode()  # a command has room for 128 KiB
        self.lab.sh(f"base64 -d <<'END' | gzip -dc > {path}\n{text}END", host)

    def _config(self, host: str) -> dict[str, Any]:
        places = [host, *(self.containers if host == "atlas" else {})]
        if host == "atlas" and "nobody" in self._sniffs:
            places.append("nobody")
        return {
            "log": LOGS,
            "rate": self.rate,
            "probes": [self._probe(number, probe) for number, probe in self.probes.items()],
            "places": [self._place(name) for name in places],
        }

    @staticmethod
    def _probe(number: str, probe: Probe) -> dict[str, Any]:
        return {
            "id": number, "proto": probe.proto, "family": probe.family, "address": probe.address, "port": probe.port,
            "first": probe.first, "span": probe.span, "bind": probe.bind, "times": probe.times,
            "frames": [frame.hex() for frame in probe.frames(f"RING {number}\n".encode())] if probe.frames else [],
        }  # fmt: skip

    def _place(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "addresses": self.containers.get(name, []),
            "probes": [number for number, probe in self.probes.items() if probe.at == name],
            "sniff": self._sniffs.get(name, self._others),
            "listen": [port for port in PORTS if name != "atlas" or port[1] == UNDECLARED] if name != "nobody" else [],
            **({"user": NOBODY} if name == "nobody" else {}),
            "flows": [
                {"id": flow.name, "family": 6 if ":" in flow.address else 4, "address": flow.address,
                 "port": flow.port, "bind": flow.bind}
                for flow in (self.allowed | self.forbidden).values() if flow.at == name
            ],
        }  # fmt: skip

    # -- what they saw

    def _fetch(self, host: str) -> None:
        """Read what the places of a host have written since the last time.

        By the machine that the host lives on: a connection for every look is work that the attack's hosts have to do.

        Raises RunError when the host is down.
        """
        try:
            for path in self.lab.root(host).joinpath(LOGS[1:]).glob("*.jsonl"):
                ledger = self._ledgers.setdefault(path.stem, Ledger())
                with path.open("rb") as file:
                    file.seek(ledger.bytes_read)
                    ledger.add(file.read())
        except OSError as error:
            raise RunError(f"{self.lab.name}: {host} is down: {error}") from error

    def must_run(self) -> None:
        """Raises AssertionError when an agent has ended, RunError when the host does not answer."""
        for host in HOSTS:
            said = self.lab.sh("systemctl is-active ring.service || journalctl -n 20 -u ring.service", host)
            if said.startswith("failed"):
                raise AssertionError(f"{self.lab.name}: the agents on {host} do not run: {said}")

    def look(self, begin: float, end: float | None = None) -> Findings:
        """What happened from `begin` to `end` (or now), seconds since 1970."""
        end = end or time.time()  # before anything is read, so that no ledger ends earlier
        for host in HOSTS:
            self._fetch(host)
        ledgers = {place: ledger.entries for place, ledger in self._ledgers.items()}
        return judge(ledgers, begin, end, {number: probe.at for number, probe in self.probes.items()})

    # -- waiting

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = SETTLED) -> None:
        """Raises RunError when the condition does not come true."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except RunError:  # the host is on its way down or up
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                self.must_run()
                raise RunError(f"{self.lab.name}: within {seconds:.0f} s there was not {what}")
            time.sleep(0.5)  # adding up what thousands of lines say is work that the attack's hosts have to do

    def from_now_on(self) -> None:
        """Forget what has arrived so far."""
        self._until = time.time()

    def wait_until(self, *, alive: Collection[str] = (), dead: Collection[str] = ()) -> None:
        """Wait until connections talk, and others have been silent for a while. Raises RunError."""
        begin = time.time()

        def so() -> bool:
            # Of late: a place under load writes down what it heard before this began only after it.
            found = self.look(max(begin, time.time() - LATELY))
            silent = all(found.beats[flow] >= SILENT and not found.echoed[flow] for flow in dead)
            return silent and all(found.echoed[flow] for flow in alive)

        self.wait_for(so, f"life of {', '.join(alive) or 'nothing'}, and an end of {', '.join(dead) or 'nothing'}")

    def during(self, act: Callable[[Lab], object], *, open_again: bool = True) -> Findings:
        """Do something, wait until it is over, and say what happened since the last time that this was asked.

        It is over when every cell has been tried often enough to say something, before and after it was done, and,
        unless `open_again` is false, all that is declared works.
        """
        begin = time.time()
        act(self.lab)
        done = time.time()
        wanted = set(self.allowed) if open_again else set()

        def over() -> bool:
            since = self.look(done)
            return since.echoed.keys() >= wanted and all(since.sent[probe] >= LEAST_TRIES for probe in self.probes)

        self.wait_for(over, "an end of it, and all that is declared")
        self.must_run()
        begin, self._until = min(self._until, begin), time.time()
        return self.look(begin, self._until)


def addresses(lab: Lab) -> Addresses:
    """Where everything of a provisioned lab of `declared` is; outside learns the ways to its segments."""
    variables = lab.variables()
    six = lab.engine not in ("20.10", "26.1")  # older engines do not filter IPv6: it is off there
    proxy = "docker-proxy" in lab.sh("ps -C docker-proxy -o comm=", check=False)
    found = Addresses(variables, variables["lab_vantages"], six=six, proxy=proxy)
    # While a host starts, packets for its segments come back to the wire that they came from, and it says that there is
    # a better way: who believes that aims at nothing from then on.
    lab.sh("sysctl -q -w net.ipv4.conf.{all,default,eth0,eth1}.accept_redirects=0; ip route flush cache", "outside")
    for subnet in [subnet for subnets in found.subnets.values() for subnet in subnets]:
        lab.sh(f"ip {'-6' * (':' in subnet)} route replace {subnet} via {found.lan[':' in subnet]}", "outside")
    return found


def edit(lab: Lab, **variables: Any) -> None:
    """Change what is declared; the rest of it stays as it is."""
    path = lab.inventory / "group_vars" / "demo" / "zz_edit.yml"
    there = yaml.safe_load(path.read_text()) if path.exists() else {}
    lab.declare(**{**there, **variables})


def declare(lab: Lab, **settings: Any) -> None:
    """Declare the lab of `declared`, and more settings."""
    lab.undeclare()
    hosts = lab.variables()["lab_hosts"]
    services = {**hosts["atlas"].get("services", {}), **HOST_SERVICES}
    hosts = {**hosts, "atlas": {**hosts["atlas"], "services": services}}
    lab.declare(lab_segments=SEGMENTS, lab_services=SERVICES, lab_hosts=hosts, **NO_DOOR, **settings)


def start(lab: Lab) -> Attack:
    """Attack a provisioned lab of `declared`; returns when all that is declared works."""
    found = addresses(lab)
    return begun(Attack(lab, found, forbidden(found), declared(found), []))


def start_odd(lab: Lab) -> Attack:
    """The same with packets that no ordinary program sends, and with frames that only raw sockets send."""
    found = addresses(lab)
    invite(lab, found)
    everybody = world(lab, found)
    must_arrive_as_sent(lab, everybody)
    cells = numbered([*odd(found), *attacks(everybody)])
    return begun(Attack(lab, found, cells, declared(found), [], everybody))


def talk(lab: Lab) -> Attack:
    """Connections only: what is declared talks, and what is not tries to."""
    found = addresses(lab)
    return begun(Attack(lab, found, [], declared(found), stowaways(found)))


def begun(attack: Attack) -> Attack:
    """Start the agents, or start them anew with connections of their own; returns when all that is declared works."""
    attack.begin()
    attack.wait_until(alive=attack.allowed)
    attack.from_now_on()
    return attack


def host_network_reaches(attack: Attack) -> bool:
    """Whether a container in the host's network, that is not root, reaches a container."""
    target = attack.addresses.of["db"][0]
    command = f"nc -w 2 {target} {UNDECLARED} </dev/null && echo reached"
    image = RESTING["image"]
    run = f'docker run --rm --network host --user {NOBODY} {image} sh -c "{command}"'
    return "reached" in attack.lab.sh(run, check=False)


def must_live(attack: Attack, found: Findings, ends: Collection[str] = ()) -> None:
    """Raises AssertionError when a declared connection ended that is not from or to one of `ends`."""
    ended = {
        flow: n for flow, n in found.ended.items() if not {attack.allowed[flow].at, attack.allowed[flow].into} & {*ends}
    }
    assert not ended, f"{summary(found)}\nended: {ended}"


def must_hold(attack: Attack, found: Findings, *, ufw_holds: bool = True) -> None:
    """Raises AssertionError when anything arrived that must not, or when too little was tried to know."""
    names = attack.names
    if not ufw_holds:
        of_ufw = {number for number, probe in attack.probes.items() if (probe.at, probe.into) == ("outside", "atlas")}
        found.arrived = Counter({probe: n for probe, n in found.arrived.items() if probe not in of_ufw})
    print(summary(found))
    dark = blind(found, names, attack.rates)
    assert not dark, "\n".join(["the measurement is blind:", *dark])
    assert not leaks(found, names), "\n".join([summary(found), *leaks(found, names)])
