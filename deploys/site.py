"""Everything a host needs, in order. Run: pyinfra inventory.py deploys/site.py"""

from __future__ import annotations

from pyinfra import host

from ringfence.operations.converge import preflight
from roles.base import deploy as base
from roles.docker import deploy as docker
from roles.guard import deploy as guard
from roles.policy import deploy as policy
from roles.segments import deploy as segments
from roles.stack import deploy as stack
from roles.ufw import deploy as ufw

if "docker_hosts" in host.groups:
    preflight([(role.ROLE, role.wanted) for role in (guard, base, ufw, docker, policy, segments, stack)])
    # One line each: pyinfra tells operations of different roles apart by the line that calls them.
    guard.guard()
    base.base()
    ufw.ufw()
    docker.docker()
    policy.policy()
    segments.segments()
    stack.stack()
