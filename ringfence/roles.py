"""The one ordered list of the roles, and the way from a name in it to the role.

Every deploy, the playbook (by way of ``inventory.py``), the compiler and the tests read this list. A role comes behind
those that it needs: `guard` first, the tunnels before the firewall that may leave them as the only way in, the policy
before the networks that it governs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the compiler and the inventory read the names only, and pay for nothing else
    from ringfence.role import Role

ROLES = (
    "guard", "base", "wireguard", "ufw", "docker", "policy", "segments", "pki", "people", "stack", "authelia", "caddy",
    "watch",
)  # fmt: skip
# Those of a host that runs containers; the others are every host's.
OF_DOCKER = ("docker", "segments", "pki", "people", "stack", "authelia", "caddy")


def of(skipped: Iterable[str] | None) -> list[str]:
    """Return the roles of a host, in order, without those that its variable ``ringfence_skipped`` names."""
    return [name for name in ROLES if name not in (skipped or ())]


def role(name: str) -> Role:
    """Return the role that ``roles/<name>/deploy.py`` describes.

    Raises:
        ModuleNotFoundError: there is no such folder.
    """
    found: Role = import_module(f"roles.{name}.deploy").ROLE
    return found


def deploy(name: str) -> Callable[[], None]:
    """Return pyinfra's deploy function of a role; it bears the role's name.

    Raises:
        ModuleNotFoundError: there is no such folder.
    """
    found: Callable[[], None] = getattr(import_module(f"roles.{name}.deploy"), name)
    return found
