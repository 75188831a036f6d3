"""Labs by chance, and what their declaration says of each person, site, path and place: read from the words alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

GROUPS = ("admins", "family", "guests")
PEOPLE = ("anna", "ben", "eve")
PLACES = {"lan": ["192.168.10.0/24"], "vpn": ["10.99.0.0/24", "fd00:99::/64"], "office": ["198.51.100.7/32"]}
# An address in each place, and one in none.
ADDRESSES = {"lan": "192.168.10.77", "vpn": "10.99.0.3", "office": "198.51.100.7", "nowhere": "203.0.113.9"}
PATHS = ("/admin/*", "/api/*", "/api/v1/*", "/status")
ASKED = ("/", "/admin", "/admin/users", "/api/x", "/api/v1/x", "/status", "/status/x", "/administrator")
HASH = "$argon2id$v=19$m=65536,t=3,p=4$yhAtwnQPKq5g+vVqgjrqqA$DtjDyHIkxG5czHCLgZ7w9dekLOWV7dbLm9KFBmX1DQ0"
POLICIES = {"none": "bypass", "one": "one_factor", "two": "two_factor"}


def lab(seed: int) -> dict[str, Any]:
    """Return a valid lab; the same for the same seed."""
    chance = random.Random(seed)
    people = {
        name: {
            "email": f"{name}@lab.home",
            "password": HASH,
            "groups": sorted(chance.sample(GROUPS, chance.randint(0, 2)) or ["family"]),
        }
        for name in PEOPLE
    }
    services = {f"s{number}": _service(chance, people, number) for number in range(3)}
    return {
        "lab_domain": "lab.home",
        "lab_places": PLACES,
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}},
        "lab_segments": {"front": {}},
        "lab_services": services,
        "lab_proxy": {
            "host": "atlas", "image": "docker.io/library/caddy:2.11.7", "segments": ["front"],
            "from": chance.choice([["anywhere"], ["lan", "vpn"], ["lan", "vpn", "office"]]),
        },
        "lab_portal": {"host": "atlas", "image": "docker.io/authelia/authelia:4.39.24", "segments": ["front"]},
        "lab_people": people,
        "lab_ca": {"certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"},
    }  # fmt: skip


def _service(chance: random.Random, people: dict[str, Any], number: int) -> dict[str, Any]:
    known = sorted({group for person in people.values() for group in person["groups"]})

    def who() -> dict[str, Any]:
        kind = chance.choice(("people", "groups", "both", "everyone"))
        if kind == "everyone":
            return {"groups": ["everyone"]}
        found: dict[str, Any] = {}
        if kind in ("people", "both"):
            found["people"] = chance.sample(PEOPLE, chance.randint(1, 2))
        if kind in ("groups", "both"):
            found["groups"] = chance.sample(known, 1)
        return found

    def rule(*, whole: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if whole or chance.random() < 0.6:
            found["factor"] = chance.choice(("none", "one", "two", "two"))
        if found.get("factor") != "none" and (whole or chance.random() < 0.5):
            found |= who()
        if chance.random() < 0.5:
            found["from"] = chance.choice([["lan"], ["vpn"], ["lan", "office"], ["anywhere"]])
        return found

    service: dict[str, Any] = {
        "host": "atlas", "image": "docker.io/library/nextcloud:34.0.3-apache", "segments": ["front"], "port": 80,
        "site": f"s{number}",
    }  # fmt: skip
    if chance.random() < 0.1:
        return service
    access = rule(whole=True)
    chosen = chance.sample(PATHS, chance.randint(0, 3))
    for path in chosen:
        if chance.random() < 0.4:
            access.setdefault("bypass", []).append(path)
            continue
        own = rule(whole=False)
        if access["factor"] == "none" and own.get("factor", "none") != "none" and not own.keys() & {"people", "groups"}:
            own |= who()
        access.setdefault("paths", {})[path] = own
    return {**service, "access": access}


def declared(lab: dict[str, Any], person: str, service: str, path: str, place: str) -> str:
    """Return Authelia's word for what a lab says: bypass, one_factor, two_factor or deny."""
    access = lab["lab_services"][service].get("access")
    if access is None:
        return "deny"
    rule = {"from": lab["lab_proxy"]["from"], **access}
    best = _best([*access.get("bypass", ()), *access.get("paths", ())], path)
    if best in access.get("bypass", ()):
        rule["factor"] = "none"
    elif best:
        own = access["paths"][best]
        if own.keys() & {"people", "groups"}:
            rule = {key: value for key, value in rule.items() if key not in ("people", "groups")}
        rule = {**rule, **own}
    if "anywhere" not in rule["from"] and place not in rule["from"]:
        return "deny"
    if rule["factor"] == "none":
        return "bypass"
    groups = set(rule.get("groups", ()))
    may = "everyone" in groups or person in rule.get("people", ()) or groups & set(lab["lab_people"][person]["groups"])
    return POLICIES[rule["factor"]] if may else "deny"


def _best(paths: list[str], asked: str) -> str:
    """The most specific path that fits: that path alone before prefixes, long ones before short ones."""
    if asked in paths:
        return asked
    fitting = [p for p in paths if p.endswith("/*") and (asked == p[:-2] or asked.startswith(p[:-1]))]
    return max(fitting, key=len, default="")


def questions(lab: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield everything that can be asked: person, service, path, place."""
    for person in PEOPLE:
        for service in lab["lab_services"]:
            for path in ASKED:
                for place in ADDRESSES:
                    yield person, service, path, place
