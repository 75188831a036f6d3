"""The way through the compiler: read, check, allocate, then one module per role."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ringfence.compile import called, calls, hosts, verify, vpn
from ringfence.compile.addresses import Reserved, allocate, reserved_by
from ringfence.compile.book import Book
from ringfence.compile.plan import Plan
from ringfence.model import Draft, LabError, Problem, check_lab, read_lab
from ringfence.model.problems import did_you_mean, listed
from ringfence.roles import ROLES


@dataclass(frozen=True)
class Compiled:
    """A compiled lab.

    Attributes:
        hosts: role variables of each host of the lab; hosts that only probe get the ``verify_*`` ones.
        book: the address book, with what had to be added.
        plan: the lab with its addresses, for those who want to look closer.
    """

    hosts: Mapping[str, Mapping[str, Any]]
    book: Book
    plan: Plan


def compile_lab(
    variables: Mapping[str, Any],
    book: Book | None = None,
    inventory_hosts: Collection[str] | None = None,
    docker_pools: Sequence[Mapping[str, object]] | None = None,
    docker_backends: Mapping[str, str] | None = None,
) -> Compiled:
    """Compile the ``lab_*`` variables to role variables.

    Args:
        variables: the declared lab; other variables are ignored.
        book: the address book so far.
        inventory_hosts: names of the inventory's hosts; None when there is no inventory to compare with.
        docker_pools: ``docker_address_pools`` of the hosts, where the user has set them.
        docker_backends: ``docker_firewall_backend`` of the hosts, where the user has set it.

    Raises:
        LabError: with every problem that was found.
    """
    draft = read_lab(variables)
    problems = [*draft.problems, *check_lab(draft)]
    if inventory_hosts is not None:
        problems += _inventory(draft, inventory_hosts)
    reserved = reserved_by(draft.lab, hosts.DOCKER_ADDRESS_POOLS if docker_pools is None else docker_pools)
    problems += _ula(draft, reserved)
    try:
        allocated = allocate(_well_formed(draft), book or Book(), reserved)
        allocated = replace(allocated, vpn=vpn.numbers(draft.lab, book or Book()))
    except LabError as error:
        raise LabError([*problems, *error.problems]) from error
    if problems:
        raise LabError(problems)
    plan = Plan(vpn.with_places(draft.lab, allocated.vpn), allocated, tuple(calls.implied(draft.lab)))
    proof = verify.variables(plan)
    compiled: dict[str, dict[str, Any]] = {vantage.host: dict(proof) for vantage in draft.lab.vantages.values()}
    for host in draft.lab.hosts:
        compiled[host] = {**_roles(plan, host), **hosts.backend((docker_backends or {}).get(host, "")), **proof}
        compiled[host][called.VARIABLE] = called.names(plan, host)
    return Compiled(compiled, allocated, plan)


def _roles(plan: Plan, host: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for module in (hosts, *_modules()):
        merged |= module.variables(plan, host)
    return merged


@cache
def _modules() -> tuple[ModuleType, ...]:
    """The modules that feed a role, which bear its name; a role without one has nothing that follows from the lab."""
    names = [f"{__package__}.{role}" for role in ROLES]
    return tuple(import_module(name) for name in names if find_spec(name))


def _well_formed(draft: Draft) -> Any:
    """Leave out references to segments that are not there; they are reported already."""
    lab = draft.lab
    services = {
        name: service.model_copy(
            update={"segments": tuple(dict.fromkeys(s for s in service.segments if s in lab.segments))}
        )
        for name, service in lab.services.items()
    }
    return lab.model_copy(update={"services": services})


def _inventory(draft: Draft, inventory_hosts: Collection[str]) -> list[Problem]:
    """Every machine that the lab names must be a host of the inventory: that is how it is reached."""
    named = [(f"lab_hosts.{name}", name) for name in draft.lab.hosts]
    named += [(f"lab_vantages.{name}.host", vantage.host) for name, vantage in draft.lab.vantages.items()]
    return [
        Problem(
            owner,
            f"'{name}' is not a host of the inventory "
            f"({did_you_mean(name, inventory_hosts, f'its hosts: {listed(inventory_hosts)}; add it to hosts.yml')})",
        )
        for owner, name in named
        if name not in inventory_hosts
    ]


def _ula(draft: Draft, reserved: Sequence[Reserved]) -> list[Problem]:
    return [
        Problem("lab_ula", f"'{draft.lab.ula}' overlaps {r.what}, {r.network} (choose another /48 out of fd00::/8)")
        for r in reserved
        if r.network.version == 6 and r.network.overlaps(draft.lab.ula)
    ]
