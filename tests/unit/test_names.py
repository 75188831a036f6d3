"""No name of a lab breaks out of the file, the comment or the command that it is written into on a host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.compile import compile_lab
from ringfence.model import LabError

# Everything that a name ends up in: flows, comments of rules, networks, projects, paths, keys of the address book.
SAFE = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._/:@ >-]*|")
# What a user may write freely: it stays data on its way to the host.
FREE = ("environment", "command", "health", "files", "config", "content", "volumes", "tmpfs", "user", "image")
NAMES = {
    "domain": "lab.home",
    "place": "lan",
    "segment": "front",
    "host": "atlas",
    "host service": "ssh",
    "service": "web",
    "callee": "db",
    "stack": "apps",
    "secret": "key",
    "vantage": "desk",
    "volume": "data",
}
NASTY = [
    "\n",
    "\r",
    "\0",
    "'",
    '"',
    "`",
    "$(x)",
    ";",
    "#",
    "\\",
    "{{ x }}",
    "%i",
    "\u2028",
    "\u00e9",
    "\U0001f600",
    "*",
]


def lab(**names: str) -> dict[str, Any]:
    n = {**NAMES, **names}
    service = {"host": n["host"], "image": "x:1", "segments": [n["segment"]], "stack": n["stack"]}
    return {
        "lab_domain": n["domain"],
        "lab_places": {n["place"]: ["192.168.10.0/24"]},
        "lab_resolvers": ["192.168.10.1"],
        "lab_segments": {n["segment"]: {}},
        "lab_hosts": {
            n["host"]: {
                "addresses": ["192.168.10.5"],
                "services": {n["host service"]: {"port": 22, "from": [n["place"], n["service"]]}},
            }
        },
        "lab_services": {
            n["service"]: {
                **service,
                "publish": [{"port": 80, "from": [n["place"]]}],
                "calls": [n["callee"]],
                "egress": [{"to": n["place"], "port": 443}],
                "secrets": {n["secret"]: "k3y"},
                "volumes": [f"{n['volume']}:/data"],
            },
            n["callee"]: {**service, "port": 5432},
        },
        "lab_vantages": {n["vantage"]: {"host": n["host"], "address": "192.168.10.5"}},
    }


def texts(value: Any) -> Iterator[str]:
    """Every text in compiled variables that is made of names, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            if key not in FREE:
                yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def test_the_lab_that_is_varied_compiles_and_holds_every_name() -> None:
    compiled = compile_lab(lab())
    found = " ".join(texts(dict(compiled.hosts)))
    for kind, name in NAMES.items():
        if kind not in ("domain", "volume"):  # the one is for the user's own templates, the other one is data
            assert name in found, kind


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(NAMES)), text=st.text(max_size=8), whole=st.booleans())
@example("domain", "\n", False)
@example("host", "\n", False)
@example("vantage", "\n", False)
def test_a_name_is_refused_or_harmless(kind: str, text: str, whole: bool) -> None:
    name = text if whole else NAMES[kind] + text
    try:
        compiled = compile_lab(lab(**{kind: name}))
    except LabError:
        return
    for found in texts(dict(compiled.hosts)):
        assert SAFE.fullmatch(found), found
    assert compiled.plan.lab.domain == "lab.home" or SAFE.fullmatch(compiled.plan.lab.domain)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("nasty", NASTY)
def test_a_name_with_what_means_something_elsewhere_is_refused(kind: str, nasty: str) -> None:
    # The message is one line and says how a name is written.
    for name in (f"x{nasty}", f"x{nasty}x", f"{nasty}x"):
        with pytest.raises(LabError) as caught:
            compile_lab(lab(**{kind: name}))
        assert len(str(caught.value).splitlines()) == len(caught.value.problems)
