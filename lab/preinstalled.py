"""Hosts that have the roles' Debian packages already, for tests that are about something else."""

from __future__ import annotations

import hashlib

from lab.cache import alone
from lab.engine import docker
from lab.networks import resolvers
from lab.rootfs import Recipe, ensure_image, forget_older_images
from lab.shell import run, step

ROLES = (
    "conntrack",
    "iptables",
    "kmod",
    "logrotate",
    "nftables",
    "openssl",
    "python3-yaml",
    "systemd-timesyncd",
    "ufw",
    "ulogd2",
    "ulogd2-json",
    "unattended-upgrades",
    "wireguard-go",
    "wireguard-tools",
)
# What the role docker installs, by the lab's engine; Debian 12 has one package only.
ENGINES: dict[str, tuple[str, ...]] = {
    "20.10": ("docker.io",),
    "26.1": ("docker-cli", "docker-compose", "docker.io"),
    "28.5": ("docker-cli", "docker-compose", "docker.io"),
    "29": (),
    "none": (),
}
# As a role installs them, but nothing is started: there is no systemd yet.
SCRIPT = """
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d &&
apt-get -qq update && apt-get -qq -y install --no-install-recommends "$@" &&
apt-get clean && rm /usr/sbin/policy-rc.d
"""


def ensure_preinstalled(recipe: Recipe, engine: str) -> str:
    """Return the image of a recipe with the packages of all roles for an engine, made when it is not there.

    Raises:
        LabError: a package could not be installed, with apt's last words.
    """
    base = ensure_image(recipe)
    packages = (*ROLES, *ENGINES[engine])
    # Two engines may have one recipe, and an image's older versions are those of its repository.
    repository = f"ringfence-lab/{recipe.name}{'-none' if engine == 'none' else ''}-preinstalled"
    image = f"{repository}:{hashlib.sha256(repr((base, packages, SCRIPT)).encode()).hexdigest()[:12]}"
    if run(["docker", "image", "inspect", image], check=False).returncode == 0:
        return image
    with alone(f"{recipe.name}-preinstalled"):
        if run(["docker", "image", "inspect", image], check=False).returncode == 0:
            return image
        servers = [f"--dns={server}" for server in resolvers()]
        with step(f"installing the roles' packages in {image}"):
            command = ["sh", "-c", SCRIPT, "sh", *packages]
            name = f"rf-making-{image.partition(':')[2]}"
            run(["docker", "rm", "-f", name], check=False)
            try:
                environment = "--env=DEBIAN_FRONTEND=noninteractive"
                docker("run", f"--name={name}", *servers, environment, base, *command, timeout=600)
                boots = 'CMD ["/usr/lib/ringfence-lab/init"]'
                docker("commit", f"--change={boots}", name, image)
            finally:
                run(["docker", "rm", "-f", name], check=False)
        forget_older_images(repository, image)
    return image
