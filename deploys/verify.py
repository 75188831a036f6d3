"""Proves the lab on its running hosts. Run: pyinfra inventory.py deploys/verify.py (changes nothing)"""

from __future__ import annotations

from pyinfra import host

from ringfence.inventory import unattended
from ringfence.operations.converge import is_for
from ringfence.roles import of, role
from ringfence.verify import run

unattended.go_on()
is_ours = is_for(host, also="vantages")
if is_ours or "vantages" in host.groups:
    site = of(host.data.get("ringfence_skipped")) if is_ours else []
    # All hosts finish one line before the next begins: nobody probes before everybody listens.
    run.compare(name="compare with the declaration", roles=[role(name) for name in site])
    run.listen(name="listen")
    run.probe(name="probe")
    run.names(name="ask for names")
    run.collect(name="collect")
    run.visit(name="visit the sites")
    run.conclude(name="conclude")
