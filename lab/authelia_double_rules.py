"""What the double of Authelia (authelia_double.py) reads: the generated configuration, addresses, and the rules.

A key that is not in authelia_double.yml is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import re
import threading
import time
from base64 import b32decode
from pathlib import Path
from posixpath import normpath
from urllib.parse import quote, unquote_to_bytes

import argon2
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
    rb"(?:([a-z][a-z0-9+.-]*):(?://(?:[a-z0-9._~:!$&'()*+,;=%@-]*@)?(\[[0-9a-f:.]+\]|(?:[]a-z0-9._~!$&'()*+,;=<>\"-]|"
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
    """A URL as the real one reads it; rules are matched with `resource`: path, decoded and cleaned, and query."""

    def __init__(self, raw: bytes) -> None:
        found = URL.fullmatch(raw)
        if not found or re.search(rb"[\x00-\x1f\x7f]", raw):
            raise RefusedError("no URL")
        scheme, host, before, query = ((part or b"").decode("utf-8", "replace") for part in found.groups())
        self.scheme, self.host = scheme.lower(), (host[1:-1] if host[:1] == "[" else host).lower()
        path = unquote_to_bytes(found[3]).decode("utf-8", "replace")
        clean = normpath(re.sub("^/+", "/", path)) + "/" * (len(path) > 1 and path.endswith("/"))
        self.resource = clean + "?" * bool(query) + query
        # How the real one writes it again: as it came, or with all that needs an escape escaped.
        plain = re.fullmatch(r"[A-Za-z0-9_.~!$&'()*+,;=:@\[\]%/-]*", before)
        written = found[3] if plain else quote(unquote_to_bytes(found[3]), safe="/$&+,:;=@").encode()
        self.secure = self.scheme in ("https", "wss")
        self.text = scheme.lower().encode() + raw[len(scheme) : found.start(3)] + written + raw[found.end(3) :]


def parse(raw: bytes) -> Url | None:
    try:
        return Url(raw)
    except RefusedError:
        return None


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
            any(url.host == name or (name[:2] == "*." and url.host.endswith(name[1:])) for name in self.hosts)
            and (not self.resources or any(each.search(url.resource) for each in self.resources))
            and (not self.networks or any(address in network for network in self.networks))
            and (not self.subjects or not mine or any(each <= mine for each in self.subjects))
        )


class Portal:
    """What is remembered and decided. Whoever calls holds the lock."""

    def __init__(self, config: dict) -> None:
        self.config, self.lock, self.users = config, threading.RLock(), {}
        self.sessions: dict[str, dict] = {}
        self.bans: dict[str, float] = {}
        self.buckets: dict[str, tuple[float, float]] = {}
        self.attempts: list[tuple[float, bool, tuple[str, ...]]] = []
        rules, session, regulation = config["access_control"], config["session"], config["regulation"]
        networks = config.get("definitions", {}).get("network", {})
        self.rules = [Rule(rule, networks) for rule in rules.get("rules") or []]
        self.default = LEVELS[rules["default_policy"]]
        self.search = config["authentication_backend"].get("file", {}).get("search", {})
        self.second = 2 in [self.default, *(rule.level for rule in self.rules)]
        self.domains = {each["domain"]: each for each in session["cookies"]}
        self.inactivity, self.expiration = seconds(session["inactivity"]), seconds(session["expiration"])
        self.find_time, self.ban_time = seconds(regulation["find_time"]), seconds(regulation["ban_time"])
        limits = config["server"]["endpoints"].get("rate_limits", {}).get("second_factor_totp", {})
        self.limits = [(seconds(each["period"]), each["requests"]) for each in limits.get("buckets", [])] or [
            (60, 30),
            (120, 40),
        ]
        self.header_limit = config["server"].get("buffers", {}).get("read", 4096)
        self.codes = Path(config["storage"].get("local", {}).get("path", "/tmp/authelia") + ".double.json")  # noqa: S108
        portals = {name: Url(each["authelia_url"].encode()) for name, each in self.domains.items()}
        faults = {
            "session: authelia_url: not https, or not below the domain": any(
                at.scheme != "https" or self.domain(at) != name for name, at in portals.items()
            ),
            "session: remember_me: the double knows -1 only": session.get("remember_me") != -1,
            "storage: encryption_key: required, 20 characters": len(config["storage"].get("encryption_key", "")) < 20,
            "regulation: find_time is longer than ban_time": self.find_time > self.ban_time,
            # The real 4.39.21 then keeps the names of removed people, and with them their sessions.
            "authentication_backend: file: search: case_insensitive: refused": self.search.get("case_insensitive"),
        }
        if any(faults.values()):
            raise RefusedError("\n".join(words for words, wrong in faults.items() if wrong))

    def person(self, name: str) -> tuple[str, dict]:
        """Who bears this name or e-mail address; "" is one who is unknown or disabled."""
        file = self.config["authentication_backend"]["file"]
        try:
            users = yaml.safe_load(Path(file["path"]).read_text())["users"]
            self.users = {name: each for name, each in users.items() if argon2.extract_parameters(each["password"])}
        except (OSError, yaml.YAMLError, TypeError, KeyError, argon2.exceptions.InvalidHash) as error:
            if not self.users:
                raise RefusedError(f"{file['path']}: no users that can be read: {error!r}") from error
        for person, each in self.users.items():
            by_email = self.search.get("email") and name.lower() == str(each.get("email")).lower()
            if (name == person or by_email) and not each.get("disabled"):
                return person, each
        return "", {}

    def required(self, person: str, details: dict, address: object, url: Url) -> tuple[bool, int]:
        mine = {f"user:{person}", *(f"group:{name}" for name in details.get("groups") or [])} if person else set()
        found = [rule for rule in self.rules if rule.matches(mine, address, url)]
        return (bool(found[0].subjects), found[0].level) if found else (False, self.default)

    def domain(self, url: Url) -> str:
        return next((name for name in self.domains if f".{url.host}".endswith(f".{name}")), "")

    def banned(self, *who: str) -> bool:
        return any(self.bans.get(each, 0) > time.time() for each in who)

    def mark(self, good: bool, *who: str) -> None:
        """Remember a try of (ip …, user …), and ban both after too many failures in a row."""
        now, regulation = time.time(), self.config["regulation"]
        recent = [each for each in self.attempts if each[0] > now - self.find_time]
        self.attempts = [(now, good, who), *recent]
        for each in who:
            mine = [attempt[1] for attempt in self.attempts if each in attempt[2]][: regulation["max_retries"]]
            if each.split()[0] in regulation["modes"] and mine == [False] * regulation["max_retries"]:
                self.bans[each] = now + self.ban_time

    def limited(self, who: str) -> bool:
        """As many requests as a bucket has places, then one for each of its periods."""
        now, full = time.time(), False
        for period, places in self.limits:
            used, since = self.buckets.get(f"{who} {period}", (0.0, now))
            used = max(0.0, used - (now - since) / period)
            full |= used + 1 > places
            self.buckets[f"{who} {period}"] = (used if used + 1 > places else used + 1, now)
        return full

    def keep(self, session: dict) -> None:
        now = time.time()
        session["end"] = now + self.expiration
        self.sessions = {number: each for number, each in self.sessions.items() if each["end"] > now}
        self.sessions[session["number"]] = session

    def is_password(self, known: str, given: str) -> bool:
        try:
            return argon2.PasswordHasher().verify(known, given)
        except argon2.exceptions.VerifyMismatchError:
            return False

    def write(self, codes: dict) -> None:
        part = self.codes.with_name(f"{self.codes.name}.part")
        part.write_text(json.dumps(codes))
        part.chmod(0o600)
        part.replace(self.codes)

    def set_code(self, verb: str, person: str, secret: str, force: bool) -> None:
        """`storage user totp generate|delete`; like the real one only where the program has run before."""
        codes = json.loads(self.codes.read_text())
        if (verb == "generate" and person in codes and not force) or (verb == "delete" and person not in codes):
            raise RefusedError(f"{person}: has a TOTP configuration already (see --force), or has none")
        b32decode(secret)
        codes |= {person: {"secret": secret, "used": []}}
        self.write({name: code for name, code in codes.items() if name != person or verb == "generate"})

    def redeem(self, person: str, token: str) -> bool:
        """Whether this is a code of that person, and not one that was used before."""
        codes = json.loads(self.codes.read_text())
        mine = codes.get(person, {"secret": "", "used": []})
        step = self.step(mine["secret"], token) if mine["secret"] else 0
        if step and step not in mine["used"]:
            mine["used"] = [*mine["used"][-9:], step]
            self.write(codes)
            return True
        return False

    def step(self, secret: str, token: str) -> int:
        """The step whose one-time code this is, of the current one and its neighbours; 0 is none."""
        for step in (int(time.time() // 30) + each for each in (0, 1, -1)):
            digest = hmac.digest(b32decode(secret + "=" * (-len(secret) % 8)), step.to_bytes(8, "big"), "sha1")
            number = int.from_bytes(digest[digest[-1] & 15 :][:4], "big") & 0x7FFFFFFF
            if hmac.compare_digest(f"{number % 10**6:06}".encode(), token.encode()):
                return step
        return 0
