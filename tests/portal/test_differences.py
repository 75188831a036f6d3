"""What nobody thought of: random requests, asked of the double and of the real program side by side."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.portal.cases import AWAY, LAN, VPN
from tests.portal.conftest import need_real
from tests.portal.program import Answer, Program, running

HOSTS = ["cloud.lab.home", "CLOUD.lab.home", "grafana.lab.home", "media.lab.home", "open.lab.home", "shut.lab.home"]
ALPHABET = "/.%?#@:;\\&=+ ax2fFeE[]()<>\"'|^`{}~!*$,-_\xff\xc3\xa4"


def headers(chance: random.Random, number: str) -> dict[str, str]:
    noise = "".join(chance.choices(ALPHABET, k=chance.randint(0, 6)))
    host, uri = chance.choice(HOSTS), chance.choice(["/", "/x", "/admin/x", "/remote/", "/status.php", ""])
    where = chance.random()
    if where < 0.3:
        at = chance.randint(0, len(host))
        host = host[:at] + noise + host[at:]
    elif where < 0.9:
        at = chance.randint(0, len(uri))
        uri = uri[:at] + noise + uri[at:]
    made = {
        "X-Forwarded-Method": chance.choice(["GET", "GET", "POST", "HEAD", "PUT", "get"]),
        "X-Forwarded-Proto": chance.choice(["https"] * 9 + ["http", "wss", ""]),
        "X-Forwarded-Host": host,
        "X-Forwarded-Uri": uri,
        "X-Forwarded-For": chance.choice([LAN] * 6 + [VPN, AWAY, f"{VPN},{AWAY}", "::ffff:10.99.0.7", "x", ""]),
        "Accept": chance.choice(["text/html", "*/*", "application/json", "text/plain;q=1, text/html;q=0"]),
        "Cookie": chance.choice(
            [f"authelia_session={number}", "", f"a=b; authelia_session={number}", "authelia_session"]
        ),
    }
    return {name: value for name, value in made.items() if chance.random() < 0.97}


def facts(answer: Answer) -> dict[str, object]:
    names = ("Location", "Remote-User", "Remote-Groups")
    return {"status": answer.status, "cookie": bool(answer.cookie), **{name: answer.header(name) for name in names}}


@pytest.mark.authelia
def test_side_by_side(tmp_path: Path) -> None:
    need_real()
    with running(tmp_path / "double", real=False) as double, running(tmp_path / "real", real=True) as real:
        programs: list[tuple[Program, str]] = [(each, each.person("kid", address=LAN)) for each in (double, real)]
        differ, statuses = [], set()
        for seed in range(6000):
            seen = []
            for program, number in programs:
                asked = headers(random.Random(seed), number)
                seen.append(facts(program.ask("GET", "/api/authz/forward-auth", asked)))
            statuses.add(seen[1]["status"])
            if seen[0] != seen[1]:
                differ.append((asked, *seen))
        words = "\n".join(f"{asked}\n  double {ours}\n  real   {theirs}" for asked, ours, theirs in differ)
        assert not differ, f"{len(differ)} differences:\n{words}"
        assert statuses == {200, 302, 303, 400, 401, 403}
