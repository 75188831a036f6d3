"""One round trip: how a host differs from what any number of roles want on it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pyinfra.api.host import Host

from ringfence.facts.answer import NoAnswerError, ask
from ringfence.role import Role, RoleError, Wanted


@dataclass(frozen=True)
class Difference:
    """How a host differs from what one role wants.

    Attributes:
        packages: names of Debian packages that are not installed.
        files: path → ``missing``, ``content``, ``mode``, ``owner`` or ``not a regular file``.
        changes: what the role's program would do, a line each.
        refusals: why the role must not be applied, each with the fix.
        notices: what the user should know, without failing.
    """

    packages: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def pending(self) -> list[str]:
        """Every pending change, a line each."""
        return [
            *(f"+ package {name}" for name in self.packages),
            *(f"{'+' if how == 'missing' else '~'} file {path} ({how})" for path, how in self.files.items()),
            *self.changes,
        ]


def wish(wanted: Wanted) -> dict[str, Any]:
    """Return what one role wants in the words of `ringfence.remote.role`, without the contents of its files."""
    return {
        "packages": wanted.packages,
        "files": [
            {
                "path": file.path,
                "sha256": hashlib.sha256(file.content.encode()).hexdigest(),
                "mode": file.mode,
                "user": file.user,
                "group": file.group,
            }
            for file in wanted.files
        ],
        "program": wanted.program.source,
        "desired": wanted.program.desired,
    }


# What is known of each host, and since when (`time.monotonic`). A change of any kind on a host makes it stale.
_known: dict[str, dict[str, Difference]] = {}
_since: dict[str, float] = {}
# What roles wanted when a host was asked last, in the order of the run, and what of it is to come.
_asked: dict[str, dict[str, Wanted]] = {}
_expected: dict[str, dict[str, Difference]] = {}


def survey(host: Host, wishes: Mapping[str, Wanted], *, fresh: bool = False) -> dict[str, Difference]:
    """Compare a host with what roles want on it, in at most one remote command.

    Where one role is asked about and nothing is expected to change with it, those that follow are asked about as well.

    Args:
        host: pyinfra's host.
        wishes: role name → what it wants.
        fresh: ask the host even if nothing was changed since it was asked last.

    Returns:
        Role name → how the host differs from what it wants; refused where the host did not answer (it went down, say).
    """
    known = _known.setdefault(host.name, {})
    unknown = {role: wanted for role, wanted in wishes.items() if fresh or role not in known}
    if unknown:
        _since[host.name] = time.monotonic() if unknown.keys() >= known.keys() else _since[host.name]
        for role in unknown:
            known.pop(role, None)
        asked = {**_following(host.name, [*wishes][-1]), **unknown}
        try:
            answer = ask(
                host,
                "survey",
                {
                    "wishes": {role: wish(wanted) for role, wanted in asked.items()},
                    "called": host.data.get("ringfence_called") or {},
                },
            )
        except NoAnswerError as error:
            # Said once, not for each role.
            silent = {role: Difference() for role in unknown} | {next(iter(unknown)): Difference(refusals=[str(error)])}
            return {role: silent.get(role) or known[role] for role in wishes}
        known.update({role: Difference(**answer[role]) for role in asked})
        _asked.setdefault(host.name, {}).update(asked)
        _expected.setdefault(host.name, {}).update({role: known[role] for role in asked})
    return {role: known[role] for role in wishes}


def _following(host: str, role: str) -> dict[str, Wanted]:
    """What the roles behind this one want, as far as nothing is expected to be changed before they are asked about."""
    asked, expected = _asked.get(host, {}), _expected.get(host, {})
    order = [*asked]
    found: dict[str, Wanted] = {}
    if role in asked and not expected[role].pending:
        for following in order[order.index(role) + 1 :]:
            found[following] = asked[following]
            if expected[following].pending:
                break
    return found


def age(host: Host) -> float:
    """Return how many seconds ago the oldest that is known of a host was asked."""
    return time.monotonic() - _since.get(host.name, float("-inf"))


def forget(host: Host, role: str = "", done: str = "") -> None:
    """Forget what is known of a host, because it is about to be changed.

    Args:
        role: the one that changes it.
        done: what of the role will be done with that: "packages", "files" or "changes"; "" for none of them.
    """
    _known.pop(host.name, None)
    expected = _expected.get(host.name, {})
    if role in expected and done:
        expected[role] = replace(expected[role], **{done: type(getattr(expected[role], done))()})


def wanted_of(role: Role, host: Host, told: Mapping[str, Any] | None = None) -> Wanted:
    """Compute what a role wants on a host from the host's variables.

    Args:
        told: variables that the run has found out itself, which win.

    Raises:
        RoleError: they do not fit the role, one is misspelt, or one of them cannot be worked out before the run.
        RenderError: a template cannot be rendered.
    """
    unresolved = host.data.get("ringfence_unresolved") or {}
    for name in role.defaults:
        if name in unresolved:
            raise RoleError(f"role {role.name}: {name} cannot be worked out before the run: {unresolved[name]}")
    given: Mapping[str, Any] = host.data.dict()  # type: ignore[no-untyped-call]
    if said := role.misspelt(given):
        raise RoleError(f"role {role.name}: {said}")
    data = {name: host.data.get(name) for name in role.defaults if host.data.get(name) is not None}
    return role.wanted(role.variables({**data, **(told or {})}))
