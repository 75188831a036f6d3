"""Who may do what, said twice: as Authelia's rules (`access_control`), and as what is to come out (`expected_policy`).

A rule is one of the role's `authelia_rules`: name, path ("", "/exact" or "/prefix/*"), policy, subjects (any of them),
places (none: from anywhere). The first that fits decides; after them everything is denied.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

Rule = Mapping[str, Any]
Places = Mapping[str, Sequence[str]]

PLACES: Places = {"lan": ["192.168.10.0/24", "fd00:10::/64"], "vpn": ["10.99.0.0/24"]}


def rule(name: str, path: str, policy: str, subjects: Sequence[str] = (), places: Sequence[str] = ()) -> Rule:
    return {"name": name, "path": path, "policy": policy, "subjects": list(subjects), "places": list(places)}


RULES = (
    rule("cloud.lab.home", "/status.php", "bypass"),
    rule("cloud.lab.home", "/remote/*", "bypass", places=["lan"]),
    rule("cloud.lab.home", "/admin/*", "two_factor", ["group:admins"], ["lan"]),
    rule("cloud.lab.home", "/admin/*", "deny"),
    rule("cloud.lab.home", "", "one_factor", ["group:family", "user:ann"], ["lan", "vpn"]),
    rule("grafana.lab.home", "", "two_factor", ["group:admins"], ["lan"]),
    rule("media.lab.home", "", "one_factor", places=["lan"]),
    rule("open.lab.home", "", "bypass"),
    rule("shut.lab.home", "", "deny", ["group:family"]),
)


def pattern(path: str, policy: str) -> str:
    """What a path is in `resources`: a bypass is exact, what asks for more does not mind the case."""
    start = "^" if policy == "bypass" else "(?i)^"
    return f"{start}{re.escape(path[:-1])}" if path.endswith("*") else f"{start}{re.escape(path)}([?].*)?$"


def access_control(rules: Sequence[Rule] = RULES) -> dict[str, Any]:
    """The rules in Authelia's words."""
    made: list[dict[str, Any]] = []
    for each in rules:
        made.append({"domain": each["name"], "policy": each["policy"]})
        made[-1] |= {"resources": [pattern(each["path"], each["policy"])]} if each["path"] else {}
        made[-1] |= {"subject": [[one] for one in each["subjects"]]} if each["subjects"] else {}
        made[-1] |= {"networks": each["places"]} if each["places"] else {}
    return {"default_policy": "deny", "rules": made}


def expected_policy(
    rules: Sequence[Rule], person: str, groups: Sequence[str], url: str, ip: str, places: Places = PLACES
) -> str:
    """Return the policy of a request. Nobody (person "") is held to the first rule that might be theirs."""
    address, mine = ipaddress.ip_address(ip), {f"user:{person}", *(f"group:{group}" for group in groups)}
    at = urlsplit(url)
    path = posixpath.normpath("/" + unquote(at.path).lstrip("/"))
    path += "/" if at.path.endswith("/") and path != "/" else ""
    for each in rules:
        exact = each["policy"] == "bypass"
        asked, ruled = (path, each["path"]) if exact else (path.lower(), each["path"].lower())
        on_path = not ruled or asked == ruled or (ruled.endswith("*") and asked.startswith(ruled[:-1]))
        networks = [network for place in each["places"] for network in places[place]]
        from_place = not networks or any(address in ipaddress.ip_network(network) for network in networks)
        theirs = not each["subjects"] or not person or not mine.isdisjoint(each["subjects"])
        if at.hostname == each["name"] and on_path and from_place and theirs:
            return str(each["policy"])
    return "deny"
