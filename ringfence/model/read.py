"""From the variables of an inventory to the declared lab, collecting every problem on the way."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ringfence.model import base, identity, tailnet, vpn, words
from ringfence.model import lab as models
from ringfence.model.expand import ROLE_SERVICES, expand
from ringfence.model.problems import Problem, did_you_mean
from ringfence.model.questions import answered
from ringfence.model.values import (
    AnyAddress,
    AnyNetwork,
    DeviceName,
    DomainName,
    HostName,
    HostServiceName,
    HoursName,
    Network4,
    Network6,
    PersonName,
    PlaceName,
    SegmentName,
    ServiceName,
    VantageName,
)

LAB_VARIABLES = (
    "lab_domain",
    "lab_pool",
    "lab_ula",
    "lab_places",
    "lab_segments",
    "lab_hosts",
    "lab_services",
    "lab_resolvers",
    "lab_vantages",
    "lab_proxy",
    "lab_portal",
    "lab_ca",
    "lab_people",
    "lab_devices",
    "lab_hours",
    "lab_vpn",
)
DEFAULT_DOMAIN = "lab.home"
# Nothing that Docker hands out by itself (172.17.0.0 to 172.31.255.255, 192.168.0.0/16), nor podman, k3s, usual VPNs.
DEFAULT_POOL = "10.180.0.0/14"
# What it was before: what was handed out of it stays, and it is there where the lab's own places take the other.
EARLIER_POOL = "172.20.0.0/14"

# Which model a key's entries belong to, to suggest the right names for a misspelt one.
_MODEL_BY_KEY: dict[str, type[BaseModel]] = {
    "lab_segments": models.Segment,
    "lab_hosts": models.Host,
    "lab_services": models.Service,
    "lab_vantages": models.Vantage,
    "services": models.HostService,
    "publish": models.Publish,
    "calls": models.Call,
    "egress": base.Egress,
    "volumes": models.Volume,
    "secrets": models.Secret,
    "reload": base.Reload,
    "lab_proxy": identity.Proxy,
    "acme": identity.Acme,
    "lab_portal": identity.Portal,
    "ldap": identity.Ldap,
    "database": identity.Database,
    "smtp": identity.Smtp,
    "session": identity.Session,
    "regulation": identity.Regulation,
    "lab_ca": identity.Ca,
    "lab_people": identity.Person,
    "lab_devices": identity.Device,
    "lab_hours": identity.Hours,
    "lab_vpn": vpn.Vpn,
    "vpn": vpn.HostVpn,
    "site": identity.Site,
    "access": identity.Access,
    "paths": identity.Rule,
    "oidc": identity.Oidc,
    "tls": identity.Tls,
}
# Values below these keys are never printed.
_CONFIDENTIAL = ("secrets", "environment", "files", "config", "secret", "password", "token", "key", "settings")

_M = TypeVar("_M", bound=BaseModel)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Making one takes longer than most of what it is asked."""
    return TypeAdapter(kind)


@dataclass(frozen=True)
class Draft:
    """A lab as far as it could be read.

    Attributes:
        lab: the entries that are well-formed.
        problems: what is wrong with the others.
        names: every declared name by kind (places, segments, hosts, services), the malformed ones too, so that a
            reference to an entry with a problem of its own is not reported as a second one.
    """

    lab: models.Lab
    problems: list[Problem] = field(default_factory=list)
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def reported(self) -> set[str]:
        """The variables that have a problem of their own."""
        return {problem.owner.partition(".")[0] for problem in self.problems}

    @property
    def connected(self) -> bool:
        """Whether a service may reach one on another host, as far as that could be read."""
        return self.lab.vpn is not None or "lab_vpn" in self.reported

    @property
    def apart(self) -> str:
        """Why a service reaches none on another host, and the fix."""
        if self.lab.tailnet is not None:
            return (
                "a tailnet carries no calls between containers (declare lab_vpn of kind wireguard, or move one of them)"
            )
        return "nothing connects them (declare lab_vpn, or move one of them)"


def default_ula(domain: str) -> str:
    """Return the lab's own IPv6 prefix (/48 out of fd00::/8), derived from its domain so that it never changes."""
    digest = hashlib.sha256(f"ringfence:{domain}".encode()).hexdigest()
    return str(ipaddress.ip_network(f"fd{digest[:2]}:{digest[2:6]}:{digest[6:10]}::/48"))


def read_lab(variables: Mapping[str, Any]) -> Draft:
    """Read the ``lab_*`` variables, shape by shape; references between entries are checked elsewhere."""
    reader = _Reader()
    whole = {name: value for name, value in variables.items() if name.startswith("lab_")}
    given, questions = answered(whole, [f"lab_{kind}" for kind in _KINDS])
    reader.problems += questions
    for name in sorted(set(given) - set(LAB_VARIABLES)):
        fix = words.variable_instead(name) or did_you_mean(name, LAB_VARIABLES, "remove it, or see docs/model.md")
        reader.add(name, f"'{name}' is not part of a lab ({fix})")
    domain = reader.value("lab_domain", DomainName, given.get("lab_domain") or DEFAULT_DOMAIN, DEFAULT_DOMAIN)
    own, others = reader.either_vpn(given.get("lab_vpn"))
    lab = models.Lab.model_construct(
        domain=domain,
        pool=reader.value("lab_pool", Network4, given.get("lab_pool") or DEFAULT_POOL, DEFAULT_POOL),
        ula=reader.value("lab_ula", Network6, given.get("lab_ula") or default_ula(domain), default_ula(domain)),
        places=reader.places(given.get("lab_places")),
        segments=reader.entries("lab_segments", given.get("lab_segments"), models.Segment, SegmentName),
        hosts=reader.entries("lab_hosts", given.get("lab_hosts"), models.Host, HostName, reader.host_service_names),
        services=reader.entries("lab_services", given.get("lab_services"), models.Service, ServiceName),
        resolvers=reader.resolvers(given.get("lab_resolvers")),
        vantages=reader.entries("lab_vantages", given.get("lab_vantages"), models.Vantage, VantageName),
        hours=reader.entries("lab_hours", given.get("lab_hours"), identity.Hours, HoursName),
        people=reader.entries("lab_people", given.get("lab_people"), identity.Person, PersonName),
        devices=reader.entries("lab_devices", given.get("lab_devices"), identity.Device, DeviceName),
        proxy=reader.single("lab_proxy", given.get("lab_proxy"), identity.Proxy),
        portal=reader.single("lab_portal", given.get("lab_portal"), identity.Portal),
        ca=reader.single("lab_ca", given.get("lab_ca"), identity.Ca),
        vpn=own,
        tailnet=others,
    )
    names = {kind: _keys(whole.get(f"lab_{kind}")) for kind in _KINDS}
    if given.get("lab_vpn") is not None:
        names["places"] |= {vpn.VPN}
    for role, variable in ROLE_SERVICES.items():
        if role in names["services"] and given.get(variable) is not None:
            reader.add(
                f"lab_services.{role}", f"'{role}' is declared by {variable} already (remove it here, or rename it)"
            )
        elif given.get(variable) is not None:
            names["services"] |= {role}
    return Draft(expand(lab), reader.problems, names)


_KINDS = ("places", "segments", "hosts", "services", "vantages", "hours", "people", "devices")


def _keys(value: object) -> frozenset[str]:
    return frozenset(str(key) for key in value) if isinstance(value, Mapping) else frozenset()


class _Reader:
    """Validates piece by piece, so that one bad entry does not hide the next."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, owner: str, message: str) -> None:
        self.problems.append(Problem(owner, message))

    def value(self, owner: str, kind: Any, value: object, fallback: object) -> Any:
        adapter = _adapter(kind)
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            self.problems += explain(error, owner)
            return adapter.validate_python(fallback)

    def mapping(self, owner: str, value: object, example: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.add(owner, f"{_shown(value)} is not a mapping of names (write {example})")
            return {}
        return {str(name): entry for name, entry in value.items()}

    def entries(
        self,
        owner: str,
        value: object,
        model: type[_M],
        name_type: Any,
        extra: Callable[[str, _M], None] | None = None,
    ) -> dict[str, _M]:
        names = _adapter(name_type)
        kept: dict[str, _M] = {}
        for name, entry in self.mapping(owner, value, f"{owner}: {{name: {{…}}}}").items():
            where = f"{owner}.{name}"
            try:
                names.validate_python(name)
            except ValidationError as error:
                self.problems += explain(error, where)
                continue
            try:
                kept[name] = model.model_validate({} if entry is None else entry)
            except ValidationError as error:
                self.problems += explain(error, where)
                continue
            if extra:
                extra(where, kept[name])
        return kept

    def single(self, owner: str, value: object, model: type[_M]) -> _M | None:
        if value is None:
            return None
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.problems += explain(error, owner)
            return None

    def either_vpn(self, value: object) -> tuple[vpn.Vpn | None, tailnet.Tailnet | None]:
        """Read what kind of VPN it is: its kind alone is one with the usual settings."""
        given = {"kind": value} if isinstance(value, str) else value
        kind = given.get("kind", vpn.WIREGUARD) if isinstance(given, Mapping) else vpn.WIREGUARD
        if kind == tailnet.TAILSCALE:
            return None, self.single("lab_vpn", given, tailnet.Tailnet)
        if kind != vpn.WIREGUARD:
            self.add(
                "lab_vpn.kind",
                f"{_shown(kind)} is no kind of VPN (write wireguard, or tailscale, whose server may be headscale)",
            )
            return None, None
        return self.single("lab_vpn", given, vpn.Vpn), None

    def host_service_names(self, owner: str, host: models.Host) -> None:
        for name in host.services:
            self.value(f"{owner}.services.{name}", HostServiceName, name, "x")

    def places(self, value: object) -> dict[str, tuple[Any, ...]]:
        kept: dict[str, tuple[Any, ...]] = {}
        networks = _adapter(AnyNetwork)
        example = "lab_places: {lan: [192.168.10.0/24]}"
        for name, entry in self.mapping("lab_places", value, example).items():
            owner = f"lab_places.{name}"
            self.value(owner, PlaceName, name, "x")
            if name in (models.ANYWHERE, models.INTERNET):
                self.add(owner, f"'{name}' has a meaning of its own (give the place another name)")
            if isinstance(entry, str):
                entry = [entry]
            if not isinstance(entry, list) or not entry:
                self.add(owner, f"{_shown(entry)} is not a list of networks (write {example})")
                continue
            found = []
            for item in entry:
                try:
                    found.append(networks.validate_python(item))
                except ValidationError as error:
                    self.problems += explain(error, owner)
            kept[name] = tuple(found)
        return kept

    def resolvers(self, value: object) -> tuple[Any, ...] | None:
        if value is None:
            return None
        if not isinstance(value, list):
            self.add("lab_resolvers", f"{_shown(value)} is not a list (write lab_resolvers: [192.168.10.1])")
            return ()
        found = [self.value("lab_resolvers", AnyAddress | None, item, None) for item in value]
        return tuple(address for address in found if address is not None)


def explain(error: ValidationError, owner: str) -> list[Problem]:
    """Turn pydantic's errors into problems that name the owner, the value and the fix."""
    return [_explain(detail, owner) for detail in error.errors(include_url=False)]


def _explain(detail: Any, owner: str) -> Problem:
    # A name that is none belongs to the mapping that it stands in.
    steps = list(detail["loc"][:-2] if detail["loc"][-1:] == ("[key]",) else detail["loc"])
    steps = [step for step in steps if step != ""]
    path = _path(owner, steps)
    if detail["type"] == "extra_forbidden":
        unknown, above = detail["loc"][-1], [step for step in detail["loc"][:-1] if step != ""]
        names = _names_of(_model_for(owner, above))
        fix = words.instead(_model_for(owner, above).__name__, str(unknown), names)
        return Problem(_path(owner, above), f"'{unknown}' is not a setting here ({fix})")
    if detail["type"] == "missing":
        description = _description(owner, steps)
        return Problem(_path(owner, steps[:-1]), f"'{steps[-1]}' is missing (add {steps[-1]}: … - {description})")
    if detail["type"] == "value_error":
        answer = words.in_long_form(_setting(steps), detail["input"])
        return Problem(path, f"{_shown(detail['input'])} {answer}" if answer else _plainly(detail))
    value = "the value" if any(step in _CONFIDENTIAL for step in steps) else _shown(detail["input"])
    if answer := words.misshapen(_setting(steps), detail["input"]):
        return Problem(path, f"{value} {answer}")
    reason = {
        "string_type": "is not text (quote it)",
        "dict_type": "is not a mapping (write name: value)",
        "mapping_type": "is not a mapping (write name: value)",
        "model_type": "is not a mapping (write name: value)",
        "tuple_type": "is not a list (write [one, two])",
        "too_short": "is empty (name at least one)",
        "bool_parsing": "is neither true nor false",
        "bool_type": "is neither true nor false",
        "int_type": "is not a whole number",
        "int_parsing": "is not a whole number",
        "string_pattern_mismatch": "is not written as it has to be",  # pydantic's words would show a regular expression
        "greater_than_equal": f"is too small (write {detail.get('ctx', {}).get('ge')} or more)",
        "less_than_equal": f"is too large (write {detail.get('ctx', {}).get('le')} or less)",
        "literal_error": f"is not known here (write {_one_of(detail)})",
    }.get(detail["type"], f"is not usable: {str(detail['msg']).lower()}")
    expected = _description(owner, steps)
    return Problem(path, f"{value} {reason}" + (f"; expected: {expected}" if expected else ""))


def _plainly(detail: Any) -> str:
    """Return the message of a value's own check, without Python's words for what is no text."""
    message, value = str(detail["ctx"]["error"]), detail["input"]
    for shown in (f"'{value}'", repr(str(value))) if isinstance(value, Mapping | list | bool) else ():
        if message.startswith(shown):
            return _shown(value) + message.removeprefix(shown)
    return message


def _one_of(detail: Any) -> str:
    """Return the words that a setting takes, and that it may be left out where that is one of them."""
    words_ = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    return " or ".join([*filter(None, words_), *(["leave it out"] if "" in words_ else [])])


def _setting(steps: Collection[object]) -> str:
    """Return the innermost name on the way to a value; for an element of a list that of the list."""
    return next((step for step in reversed(list(steps)) if isinstance(step, str)), "")


def _path(owner: str, steps: Collection[object]) -> str:
    return owner + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _model_for(owner: str, steps: Collection[object]) -> type[BaseModel]:
    for step in reversed([owner.partition(".")[0], *map(str, steps)]):
        if step in _MODEL_BY_KEY:
            return _MODEL_BY_KEY[step]
    return models.Lab


def _names_of(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _description(owner: str, steps: list[Any]) -> str:
    """Return what the model says about the innermost named setting on the way."""
    for index in range(len(steps) - 1, -1, -1):
        model = _model_for(owner, steps[:index])
        for name, info in model.model_fields.items():
            if steps[index] in (name, info.alias):
                return info.description or ""
    return ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "'true'" if value else "'false'"
    nested = isinstance(value, list | tuple) and any(isinstance(item, Mapping | list) for item in value)
    if value and (nested or isinstance(value, Mapping)):
        return "a mapping" if isinstance(value, Mapping) else "a list"  # what is inside may be secret
    text = "nothing" if value is None else f"'{value}'"
    return text if len(text) <= 80 else text[:78] + "…'"
