"""What the double of Authelia (authelia_double.py) reads: the generated configuration, addresses, and the rules.

A key that is not in authelia_double.yml is refused.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path
from posixpath import normpath
from urllib.parse import quote, unquote_to_bytes

import yaml

KNOWN = yaml.safe_load(Path(__file__).with_name("authelia_double.yml").read_text())
LEVELS = {"bypass": 0, "one_factor": 1, "two_factor": 2, "deny": 3}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SECRETS = (
    "session.secret storage.encryption_key storage.postgres.password authentication_backend.ldap.password "
    "notifier.smtp.password identity_providers.oidc.hmac_secret identity_validation.reset_password.jwt_secret"
)
# As Go's url.ParseRequestURI takes them: scheme, host (what is before an @ is no part of it), path, query.
URL = re.compile(
    rb"(?:([a-z][a-z0-9+.-]*):(?://(?:[a-z0-9._~:!$&'()*+,;=%@-]*@)?(\[[0-9a-f:.]+\]|(?:[a-z0-9._~!$&'()*+,;=<>\"-]|"
    rb"[\x80-\xff]|%25|%[89a-f][0-9a-f])*)(?::[0-9]*)?(?=[/?]|\Z)|(?!//))|(?=/))((?:[^?%]|%[0-9a-f]{2})*)(?:\?(.*))?",
    re.IGNORECASE,
)


class RefusedError(Exception):
    """A configuration or a URL that is not taken, with the reason."""


def seconds(value: object) -> float:
    """A duration as Authelia writes it: 900, `15 minutes`, `1h30m`."""
    text = f"{value} s" if str(value).isdigit() else str(value)
    if not re.fullmatch(r"(?:\d+ ?(?:[smhdw]|(?:second|minute|hour|day|week)s?) ?)+", text):
        raise RefusedError(f"'{value}' is no duration")
    return sum(float(count) * UNITS[unit] for count, unit in re.findall(r"(\d+) ?([a-z])", text))


def unknown(value: object, known: object, path: str) -> list[str]:
    """The keys of a configuration that are not among the known ones."""
    if isinstance(value, dict) and isinstance(known, dict):
        parts = [(part, known.get(name, known.get("*", False)), f"{path}.{name}") for name, part in value.items()]
    elif isinstance(value, list) and isinstance(known, list):
        parts = [(part, known[0], f"{path}[]") for part in value]
    else:
        return [] if known is None and not isinstance(value, dict) else [path.lstrip(".")]
    return [key for part in parts for key in unknown(*part)]


def read(path: str) -> dict:
    """The configuration with its secrets. The filter `template` is understood as far as the generated file uses it."""
    text = Path(path).read_text()
    if "template" in os.environ.get("X_AUTHELIA_CONFIG_FILTERS", ""):
        filled = r"\{\{-? *(?:secret|fileContent) +\"([^\"]+)\"[^}]*\}\}"
        text = re.sub(filled, lambda found: json.dumps(Path(found[1]).read_text()), text)
    config = yaml.safe_load(text)
    faults = [f"configuration key not expected: {key}" for key in unknown(config, KNOWN, "")]
    names = {f"AUTHELIA_{key.replace('.', '_').upper()}_FILE": key.split(".") for key in SECRETS.split()}
    for name in [name for name in os.environ if name.startswith("AUTHELIA_")]:
        *above, last = names.get(name, ["no key"])
        part = config
        for step in above:
            part = part.setdefault(step, {})
        if name not in names or last in part:
            faults.append(f"{name}: not expected, or given twice")
        else:
            part[last] = Path(os.environ[name]).read_text().strip()
    if faults:
        raise RefusedError("\n".join(faults))
    return config


class Url:
    """A URL as the real one reads it. `resource` is what rules are matched with: path, decoded and cleaned, and query."""

    def __init__(self, raw: bytes) -> None:
        found = URL.fullmatch(raw)
        if not found or re.search(rb"[\x00-\x1f\x7f]", raw):
            raise RefusedError("no URL")
        scheme, host, before, query = ((part or b"").decode("utf-8", "replace") for part in found.groups())
        self.scheme, self.host = scheme.lower(), host.strip("[]").lower()
        path = unquote_to_bytes(found[3]).decode("utf-8", "replace")
        clean = normpath(re.sub("^/+", "/", path)) + "/" * (len(path) > 1 and path.endswith("/"))
        self.resource = clean + "?" * bool(query) + query
        # How the real one writes it again: as it came, or with all that needs an escape escaped.
        plain = re.fullmatch(r"[A-Za-z0-9_.~!$&'()*+,;=:@\[\]%/-]*", before)
        self.start = scheme.lower().encode() + raw[len(scheme) : found.start(3)]
        self.text = self.start + (before if plain else quote(path, safe="/$&+,:;=@")).encode() + raw[found.end(3) :]


class Rule:
    def __init__(self, rule: dict, networks: dict) -> None:
        parts = {key: part if isinstance(part, list) else [part] for key, part in rule.items()}
        named = [part for name in parts.get("networks", []) for part in networks.get(name, [name])]
        self.level, self.hosts = LEVELS[rule["policy"]], [name.lower() for name in parts["domain"]]
        self.networks = [ipaddress.ip_network(part) for part in named]
        self.subjects = [set(each if isinstance(each, list) else [each]) for each in parts.get("subject", [])]
        # Go's $ is the end of the text; Python's is also before a newline there.
        ends = [re.sub(r"(?<!\\)\$(?=$|[|)])", r"\\Z", each) for each in parts.get("resources", [])]
        self.resources = [re.compile(each) for each in ends]

    def matches(self, mine: set[str], address: object, url: Url) -> bool:
        return (
            url.host in self.hosts
            and (not self.resources or any(each.search(url.resource) for each in self.resources))
            and (not self.networks or any(address in network for network in self.networks))
            and (not self.subjects or not mine or any(each <= mine for each in self.subjects))
        )
