"""`python3 ring.pyz CONFIG`: one process for each place of a host, for as long as the unit runs.

CONFIG is JSON: {"log": directory, "rate": attempts per second and probe, "probes": [every probe], "places":
[{"name", "addresses": of the container, or none for the host itself, "probes": [ids], "sniff": what is counted (see
Sniffer), or "", "listen": [[proto, port, echo]], "flows": [flow], and perhaps "user": number of the user to be}]}.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
from pathlib import Path
from typing import Any

from . import namespaces
from .flows import Flow
from .ledger import Ledger
from .loop import Loop
from .probes import Probes
from .receiver import Listener, Sniffer

LOOKING = 0.02  # seconds between two looks for a container that is not there
STAYING = 0.06  # seconds between two looks whether one is still there
GRAIN = 0.02  # seconds: what is due within them is done at once, for waking up costs more than a try


def main(arguments: list[str]) -> None:
    config = json.loads(Path(arguments[0]).read_text())
    Path(config["log"]).mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=serve, args=(config, place)) for place in config["places"]]
    for process in processes:
        process.start()
    multiprocessing.connection.wait([process.sentinel for process in processes])
    for process in processes:
        process.terminate()
    sys.exit("the process of one place ended, which none should: see above")


def serve(config: dict[str, Any], place: dict[str, Any]) -> None:
    """Be at a place whenever it exists, for ever."""
    ledger = Ledger(Path(config["log"]) / f"{place['name']}.jsonl")
    if "user" in place:
        os.setgroups([])
        os.setgid(place["user"])
        os.setuid(place["user"])
    while True:
        if place["addresses"] and not namespaces.find(place["addresses"]):
            ledger.turn(here=False)
            time.sleep(LOOKING)
            continue
        ledger.count("here", "times")
        stay(config, place, ledger)
        namespaces.enter(namespaces.HOME)


def stay(config: dict[str, Any], place: dict[str, Any], ledger: Ledger) -> None:
    """Probe, listen and talk until the place is gone; a place that is the host itself never is."""
    loop = Loop()
    own = [probe for probe in config["probes"] if probe["id"] in place["probes"]]
    if place["sniff"]:
        Sniffer(place["sniff"], {probe["id"]: probe for probe in config["probes"]}, loop, ledger)
    for proto, port, echo in place["listen"]:
        Listener(proto, port, echo=echo, name=place["name"], loop=loop, ledger=ledger)
    probes = Probes(own, config["rate"], loop, ledger)
    flows = [Flow(flow, loop, ledger) for flow in place["flows"]]
    look = time.monotonic()
    while True:
        wait = min([probes.turn(), *(flow.turn() for flow in flows), STAYING])
        ledger.turn(here=True)
        loop.turn(max(wait, GRAIN))
        if place["addresses"] and time.monotonic() >= look:
            look = time.monotonic() + STAYING
            if not namespaces.has(place["addresses"]):
                break
    for flow in flows:
        flow.end()
    loop.close()
