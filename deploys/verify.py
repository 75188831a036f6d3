"""Proves the lab on its running hosts. Run: pyinfra inventory.py deploys/verify.py (changes nothing)"""

from __future__ import annotations

from pyinfra import host

from ringfence.verify import run
from roles.base import deploy as base
from roles.docker import deploy as docker
from roles.guard import deploy as guard
from roles.policy import deploy as policy
from roles.segments import deploy as segments
from roles.stack import deploy as stack
from roles.ufw import deploy as ufw

if "docker_hosts" in host.groups or "vantages" in host.groups:
    site = (guard, base, ufw, docker, policy, segments, stack) if "docker_hosts" in host.groups else ()
    # All hosts finish one line before the next begins: nobody probes before everybody listens.
    run.compare(name="compare with the declaration", roles=[(role.ROLE, role.wanted) for role in site])
    run.listen(name="listen")
    run.probe(name="probe")
    run.collect(name="collect")
    run.conclude(name="conclude")
