"""Verify as pyinfra runs it: all hosts listen, then all probe, then everything is judged at once."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from ringfence.facts.survey import survey, wanted_of
from ringfence.remote.bundle import bundle
from ringfence.remote.request import COMMAND, request
from ringfence.render import RenderError
from ringfence.role import Role, RoleError
from ringfence.verify import declared as declaration
from ringfence.verify import devices, forging, handing, second_reading, visited
from ringfence.verify import names as naming
from ringfence.verify import seen as sight
from ringfence.verify import sites as siting
from ringfence.verify import visits as visiting
from ringfence.verify.cells import Matrix, build
from ringfence.verify.expected import Rules
from ringfence.verify.outside import is_listed, outside
from ringfence.verify.own_rules import with_own_rules
from ringfence.verify.report import Answers, Report, as_json, judge, junit, text, with_sites
from ringfence.verify.requests import listen_request, probe_request
from ringfence.verify.second_reading import LAB_VARIABLES

PROGRAM = bundle("ringfence.verify.remote")
JSON_SETTING = "RINGFENCE_VERIFY_JSON"
JUNIT_SETTING = "RINGFENCE_JUNIT"

Commands = Generator[FunctionCommand, None, None]


class ProbeError(Exception):
    """A host did not answer as it should; the message is what it said."""


@dataclass
class Run:
    """What is known so far, of all hosts. Hosts take their turns in greenlets of one thread."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    data: dict[str, Any] = field(default_factory=dict)
    lab: declaration.Declared | None = None
    sites: siting.Sites = field(default_factory=siting.Sites)
    seen: dict[str, sight.Seen] = field(default_factory=dict)
    clocks: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    keep: set[str] = field(default_factory=set)
    rules: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    results: dict[int, tuple[str, str]] = field(default_factory=dict)
    arrivals: dict[int, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    deaf: list[str] = field(default_factory=list)
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    unvisited: dict[str, str] = field(default_factory=dict)
    span: list[float] = field(default_factory=list)
    judged: bool = False

    @cached_property
    def matrix(self) -> Matrix:
        """Laid out when the first host probes: by then every host has been looked at."""
        assert self.lab is not None
        return build(self.lab, self.seen, self.keep)

    @cached_property
    def visits(self) -> visiting.Plan:
        """Laid out when the first host visits."""
        assert self.lab is not None
        return visiting.plan(self.sites, Rules(self.lab, self.seen, frozenset(self.keep)))


_run = Run()


@operation(is_idempotent=False)
def compare(roles: Sequence[Role] = ()) -> Commands:
    """Ask all roles what they would change on the host: what differs there has drifted."""
    yield FunctionCommand(_compare, (list(roles),), {})


@operation(is_idempotent=False)
def listen() -> Commands:
    """Look at the host and start its listener."""
    yield FunctionCommand(_listen, (), {})


@operation(is_idempotent=False)
def probe() -> Commands:
    """Open every cell whose source is on the host."""
    yield FunctionCommand(_probe, (), {})


@operation(is_idempotent=False)
def names() -> Commands:
    """Ask for names from every declared container, and see which questions leave the host."""
    yield FunctionCommand(_names, (), {})


@operation(is_idempotent=False)
def visit() -> Commands:
    """Send requests to all sites from the vantages that are on the host, without logging in."""
    yield FunctionCommand(_visit, (), {})


@operation(is_idempotent=False)
def collect() -> Commands:
    """Stop the host's listener and take what it heard."""
    yield FunctionCommand(_collect, (), {})


@operation(is_idempotent=False)
def conclude() -> Commands:
    """Judge and print; fails on any difference. Once for all hosts."""
    yield FunctionCommand(_conclude, (), {})


def _compare(state: State, host: Host, roles: list[Role]) -> bool:
    del state
    if not roles:
        return True
    wishes = {}
    for role in roles:
        try:
            wishes[role.name] = wanted_of(role, host)
        except (RoleError, RenderError) as error:
            # The others are compared all the same: what drifts there must not hide behind this one.
            _run.troubles.append(f"{_name(host)}: {_one_line(str(error))}; so it is not known whether it has drifted")
    try:
        differences = survey(host, wishes, fresh=True)
    except (PyinfraError, OSError, ValueError, KeyError) as error:
        _run.troubles.append(f"{_name(host)}: its roles could not be compared: {_short(error)}")
        return True
    for name, difference in differences.items():
        lines = [*difference.pending, *map(_one_line, difference.refusals)]
        _run.drift += [f"{_name(host)}: {name}: {line}" for line in lines]
        _run.notices += [
            f"{_name(host)}: {name}: {_one_line(line)}" for line in difference.notices if not is_listed(line)
        ]
    return True


def _listen(state: State, host: Host) -> bool:
    del state
    name = _name(host)
    try:
        # The compiler tells every host the same; the declaration itself is seen by those that are in its groups.
        for key in (*_VARIABLES, *LAB_VARIABLES):
            if _run.data.get(key) is None:
                _run.data[key] = host.data.get(key)
        _run.rules[name] = list(host.data.get("ufw_rules") or [])
        _run.lab = with_own_rules(declaration.read(_run.data), _run.rules)
        _run.sites = siting.read(_run.data)
        asked_at = time.monotonic()
        _run.seen[name] = sight.read(name, _ask(host, "prepare", listen_request(_run.lab, name, _run.token)))
        # What a rule names by an application profile has the ports that the host's own file says.
        profiles = {host: seen.profiles for host, seen in _run.seen.items()}
        _run.lab = with_own_rules(_run.lab, _run.rules, profiles)
        _run.clocks[name] = (_run.seen[name].clock, asked_at, time.monotonic())
        each = (host.data.get("ufw_unmanaged_ports") or {}).values()
        if "keep" in (host.data.get("ufw_foreign"), host.data.get("ufw_unmanaged"), *each):
            _run.keep.add(name)
    except (ProbeError, ValueError) as error:
        _run.troubles.append(f"{name}: {error}")
    return True


_VARIABLES = (
    "verify_services", "verify_published", "verify_hosts", "verify_flows", "verify_egress", "verify_vantages",
    "verify_sites", "verify_portal", "verify_root", "verify_vpn",
)  # fmt: skip
NOT_READ_TWICE = (
    "no host sees the declaration itself (lab_hosts), so it was not read a second time: "
    "a mistake of the compiler may hide in what is expected"
)


def _probe(state: State, host: Host) -> bool:
    del state
    name = _name(host)
    if _run.lab is None or name not in _run.seen:
        return True
    asked, names = probe_request(_run.lab, _run.seen, _run.matrix, name, _run.token)
    if not asked["cells"]:
        return True
    logger.info(f"{host.print_prefix}{len(asked['cells'])} connections from {', '.join(names)}")
    try:
        answer = _ask(host, "probe", asked)
    except ProbeError as error:
        _run.errors.update({source: str(error) for source in names})
        return True
    _run.results.update({int(n): (outcome, used) for n, (outcome, used) in answer["results"].items()})
    _run.errors.update({names[int(index)]: why for index, why in answer["errors"].items()})
    return True


def _names(state: State, host: Host) -> bool:
    del state
    name = _name(host)
    if _run.lab is None or name not in _run.seen:
        return True
    asked = naming.request(_run.lab, _run.seen[name], _run.token)
    if not asked["sources"]:
        return True
    logger.info(f"{host.print_prefix}{len(asked['sources'])} questions for names")
    try:
        answer = _ask(host, "ask", asked)
        resolvers = [str(server) for server in _run.data.get("lab_resolvers") or ()]
        _run.troubles += naming.differences(_run.lab, resolvers, _run.seen[name], answer)
    except (ProbeError, KeyError, TypeError, ValueError) as error:
        _run.troubles.append(f"{name}: no names could be asked for: {_short(error)}")
    return True


def _visit(state: State, host: Host) -> bool:
    del state
    name = _name(host)
    if _run.lab is None or name not in _run.seen:
        return True
    asked = visiting.request(_run.visits, _run.sites.root, name)
    if not asked["visits"]:
        return True
    logger.info(f"{host.print_prefix}{len(asked['visits'])} requests to sites")
    _run.span.append(time.monotonic())
    try:
        answer = _ask(host, "visit", asked)
        _run.answers.update({int(number): said for number, said in answer["results"].items()})
    except (ProbeError, KeyError, TypeError, ValueError) as error:
        _run.unvisited[name] = _short(error)
    _run.span.append(time.monotonic())
    return True


def _collect(state: State, host: Host) -> bool:
    del state
    name = _name(host)
    if name not in _run.seen:
        return True
    try:
        answer = _ask(host, "collect", {"token": _run.token})
    except ProbeError:
        answer = {"arrivals": {}, "gone": True}
    for number, where in answer["arrivals"].items():
        _run.arrivals.setdefault(int(number), []).extend(f"{name} {who}".strip() for who in where)
    if answer.get("gone"):
        _run.deaf.append(name)
    return True


def _conclude(state: State, host: Host) -> bool:
    del state
    if _run.judged:
        return True
    _run.judged = True
    report = _report()
    _write(report)
    print(text(report), flush=True)
    if _run.lab is None or not _run.lab.vantages:
        logger.warning(
            "NOTHING WAS PROBED FROM OUTSIDE: the lab declares no lab_vantages (docs/verify.md). "
            "What strangers reach is not known."
        )
    return not report.differences


def _report() -> Report:
    lab = _run.lab or declaration.Declared()
    matrix = _run.matrix if _run.lab is not None else Matrix({}, ())
    answers = Answers(_run.results, _run.arrivals, _run.errors, tuple(_run.deaf))
    troubles = list(_run.troubles)
    notices = [*_run.notices, *forging.notices(lab, _run.seen), *handing.notices(lab), *devices.notices(lab)]
    troubles += [
        f"{vantage.name}: its host {vantage.host} did not take part, so nothing was probed from there"
        for vantage in lab.vantages
        if vantage.host not in _run.seen
    ]
    if _run.data.get("lab_hosts"):
        troubles += second_reading.differences(_run.data, lab)
    else:
        notices.append(NOT_READ_TWICE)
    sites = _sites(notices)
    report = with_sites(judge(matrix, answers, [*troubles, *_run.drift], notices), sites)
    return replace(report, outside=tuple(outside(lab, _run.seen, report)))


def _sites(notices: list[str]) -> visited.SiteReport:
    if _run.lab is None or not _run.sites.sites:
        return visited.SiteReport(_run.sites)
    notices += [f"{name}: nobody visited it: no vantage has a way to it" for name in _run.visits.unvisited]
    moments = visited.moments(_run.clocks, _run.span)
    return visited.judge(_run.sites, _run.visits, _run.answers, _run.unvisited, moments)


def _write(report: Report) -> None:
    for setting, content in ((JSON_SETTING, json.dumps(as_json(report), indent=1)), (JUNIT_SETTING, junit(report))):
        path = os.environ.get(setting)
        if path:
            Path(path).write_text(content, encoding="utf-8")


def _ask(host: Host, verb: str, desired: Mapping[str, Any]) -> Any:
    """Run verify's program on a host, which need not have it.

    Raises:
        ProbeError: it failed, or the host did not answer.
    """
    asked = request(verb, desired, PROGRAM)
    arguments = {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
    }
    try:
        status, output = host.run_shell_command(StringCommand(COMMAND), **arguments, _stdin=asked)
        if not status:
            raise ProbeError(output.stderr.strip().splitlines()[-1] if output.stderr.strip() else "no answer")
        return json.loads(output.stdout)
    except (PyinfraError, OSError, EOFError, ValueError) as error:
        raise ProbeError(_short(error)) from error


def _name(host: Host) -> str:
    return str(host.data.get("inventory_hostname") or host.name)


def _one_line(message: str) -> str:
    """A message of several lines on one; of a program's traceback only what went wrong."""
    lines = [line.strip() for line in message.strip().splitlines()]
    if len(lines) > 1 and any(line.startswith("Traceback") for line in lines):
        return f"{lines[0].partition('Traceback')[0]}{lines[-1]}"
    return " ".join(lines)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
