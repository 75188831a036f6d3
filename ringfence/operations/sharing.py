"""What hosts of a run tell one another for a role, such as the public keys of their tunnels.

A role with ``<role>_shares: VARIABLE`` in its ``vars/main.yml`` finds in that variable ``{host: what its program
shares}`` of every host that takes part in the run; hosts that are down, or left out by ``--limit``, are missing there.
Ansible does the same with facts (`ringfence.ansible.action`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra.api.host import Host
from pyinfra.api.state import State

from ringfence.facts.answer import NoAnswerError, ask
from ringfence.facts.survey import wanted_of, wish
from ringfence.role import Role

_lock = BoundedSemaphore()
# (role, whether it was made where it was missing) → host → its answer. Of each plan and each run once.
_told: dict[tuple[str, bool], dict[str, Any]] = {}


def shared(state: State, role: Role, group: str, *, make: bool) -> Mapping[str, Any]:
    """Ask every host of the run, all at once, what it shares for a role.

    Args:
        group: the hosts that have the role.
        make: whether a host makes what it does not have yet; else it says what it would make.

    Returns:
        Host → what its program shares; without those that do not answer, which is said when they are compared, and
        without those that do not take part.

    Raises:
        RoleError: a host's variables do not fit the role.
    """
    return {name: answer["shared"] for name, answer in _answers(state, role, group, make=make).items()}


def awaited(state: State, role: Role, group: str) -> bool:
    """Return whether something of what hosts share is still to be made: where nothing is, nobody is asked again."""
    return any(answer["changes"] for answer in _answers(state, role, group, make=False).values())


def _answers(state: State, role: Role, group: str, *, make: bool) -> Mapping[str, Any]:
    with _lock:
        if (role.name, make) not in _told:
            active = [host for host in state.inventory.get_active_hosts() if group in host.groups]
            hosts = [host for host in active if role.shares_on(host.data)]
            asked = {host.name: gevent.spawn(_ask, role, host, make) for host in hosts}
            gevent.joinall(list(asked.values()))
            answers = {name: greenlet.get() for name, greenlet in asked.items()}
            _told[role.name, make] = {name: answer for name, answer in answers.items() if answer is not None}
        return _told[role.name, make]


def _ask(role: Role, host: Host, make: bool) -> Any:
    try:
        asked = {"role": role.name, "want": wish(wanted_of(role, host)), "make": make}
        return ask(host, "share", asked)
    except NoAnswerError:
        return None
