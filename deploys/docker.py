"""The role `docker` alone. Run: pyinfra inventory.py deploys/docker.py"""

from __future__ import annotations

from pyinfra import host

from roles.docker.deploy import docker

if "docker_hosts" in host.groups:
    docker()
