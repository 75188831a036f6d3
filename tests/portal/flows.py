"""What one answer gives, the next one is asked with: logins, codes, bans, people who leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.portal.cases import AWAY, LAN


@dataclass(frozen=True)
class Do:
    """A step of a flow. `expect`: status, and where named: redirect, level, words (of the answer's message)."""

    what: str  # sign (in with a password), code, see (a site), state, out, rewrite (the users file)
    value: str  # the person, the code's offset in half minutes or the code, host and path, change of the person's entry
    expect: Mapping[str, Any]
    address: str = ""  # "" is one that no other flow has
    password: str = "correct horse battery"  # of all who are in the tests
    target: str = ""
    use: int = -1  # which of the sessions so far


OK, NO = {"status": 200}, {"status": 401, "words": "Authentication failed. Check your credentials."}
NO_CODE = {"status": 403, "words": "Authentication failed, please retry later."}
GRAFANA, MEDIA = "https://grafana.lab.home/d", "https://media.lab.home/m"


def wrong(person: str, address: str, times: int = 1) -> list[Do]:
    return [Do("sign", person, NO, address, password="wrong")] * times


FLOWS: dict[str, list[Do]] = {
    "two factors, from the site and back": [
        Do("sign", "t0", {"status": 200, "redirect": None}, LAN, target=GRAFANA),
        Do("state", "t0", {"level": 1}),
        Do("see", "grafana.lab.home/d", {"status": 302}, LAN),
        Do("code", "0", {"status": 200, "redirect": GRAFANA}, LAN, target=GRAFANA),
        Do("state", "t0", {"level": 2}),
        Do("see", "grafana.lab.home/d", {"status": 200}, LAN),
        Do("see", "grafana.lab.home/d", {"status": 302}, LAN, use=0),  # a session gets a new number with each factor
        Do("out", "", OK),
        Do("see", "grafana.lab.home/d", {"status": 302}, LAN),
        Do("state", "", {"level": 0}),
    ],
    "one factor, from the site and back": [
        Do("sign", "t1", {"status": 200, "redirect": MEDIA}, LAN, target=MEDIA),
        Do("see", "media.lab.home/m", {"status": 200}, LAN),
        Do("see", "media.lab.home/m", {"status": 403}, AWAY),
    ],
    "to a forbidden site": [Do("sign", "guest", {"status": 200, "redirect": "https://cloud.lab.home/x"}, LAN,
                               target="https://cloud.lab.home/x")],
    "from nowhere": [
        Do("sign", "t2", {"status": 200, "redirect": None}),
        Do("code", "0", {"status": 200, "redirect": "https://home.lab.home"}),
    ],
    "open redirect": [
        Do("sign", "t3", {"status": 200, "redirect": None}, target="https://evil.test/"),
        Do("sign", "t3", {"status": 200, "redirect": None}, target="http://media.lab.home/"),
        Do("sign", "t3", {"status": 200, "redirect": None}, target="//evil.test/"),
        Do("sign", "t3", {"status": 200, "words": NO["words"]}, target="https://evil.test\\.lab.home/"),
        Do("code", "-1", {"status": 200, "redirect": None}, target="https://evil.test/"),
        Do("code", "0", {"status": 200, "words": NO_CODE["words"]}, target="evil.test"),
    ],
    "by e-mail address, in capitals": [
        Do("sign", "T4@LAB.home", OK), Do("state", "t4", {"level": 1}), Do("sign", "T4", NO, "198.51.100.24"),
    ],
    "codes": [
        Do("code", "0", {"status": 403}),
        Do("sign", "t5", OK),
        Do("code", "000000x", {"status": 400}),
        Do("code", "12345", {"status": 400}),
        Do("code", "abcdef", NO_CODE),
        Do("code", "3", NO_CODE),
        Do("code", "-3", NO_CODE),
        Do("see", "grafana.lab.home/", {"status": 302}, LAN),
        Do("code", "0", OK),
        Do("code", "0", NO_CODE),  # used up
        Do("sign", "t5", OK),
        Do("code", "0", NO_CODE),  # also for another session
        Do("code", "1", OK),
    ],
    "a code of somebody else": [
        Do("sign", "t6", OK), Do("code", "0", OK), Do("sign", "t7", OK), Do("code", "0", OK),
    ],
    "many codes": [
        Do("sign", "t8", OK, "198.51.100.8"),
        *[Do("code", "111111", NO_CODE, "198.51.100.8")] * 10,
        Do("code", "0", {"status": 429}, "198.51.100.8"),
        Do("code", "0", OK, "198.51.100.9"),
    ],
    "unknown and disabled people": [
        Do("sign", "nobody", NO, "198.51.100.20"), Do("sign", "gone", NO, "198.51.100.21"),
        Do("sign", "", NO, "198.51.100.22"), Do("sign", "t9", NO, "198.51.100.23", password=""),
    ],
    "a person is banned, from everywhere": [
        *[step for last in (30, 31, 32) for step in wrong("t10", f"198.51.100.{last}")],
        Do("sign", "t10", NO, "198.51.100.33"),
        Do("sign", "t10@lab.home", NO, "198.51.100.33"),
        Do("sign", "t11", OK, "198.51.100.30"),
    ],
    "an address is banned, for everybody": [
        *[step for name in ("t12", "t13", "t14") for step in wrong(name, "198.51.100.40")],
        Do("sign", "t15", NO, "198.51.100.40"),
        Do("sign", "t12", OK, "198.51.100.41"),
    ],
    "an address is banned for guessing names": [
        *[step for name in ("x", "y", "z") for step in wrong(name, "198.51.100.45")],
        Do("sign", "t15", NO, "198.51.100.45"),
        Do("sign", "t15", OK, "198.51.100.46"),
    ],
    "the first address is the one that is banned": [
        *wrong("t16", "198.51.100.50, 198.51.100.51", 3),
        Do("sign", "t17", NO, "198.51.100.50"),
        Do("sign", "t17", OK, "198.51.100.51, 198.51.100.50"),
    ],
    "a login in between": [
        *wrong("t18", "198.51.100.60", 2), Do("sign", "t18", OK, "198.51.100.60"), *wrong("t18", "198.51.100.60", 2),
        Do("sign", "t18", OK, "198.51.100.60"),
    ],
    "who is banned keeps what they have": [
        Do("sign", "t19", OK, "198.51.100.70"), *wrong("t19", "198.51.100.71", 3),
        Do("see", "media.lab.home/", {"status": 200}, LAN),
    ],
    "a person is disabled": [
        Do("sign", "t20", OK), Do("see", "media.lab.home/", {"status": 200}, LAN), Do("rewrite", "t20 disabled", {}),
        Do("see", "media.lab.home/", {"status": 302}, LAN), Do("sign", "t20", NO, "198.51.100.80"),
        Do("rewrite", "t20 back", {}),
        Do("sign", "t20", OK, "198.51.100.81"), Do("see", "media.lab.home/", {"status": 302}, LAN, use=0),
    ],
    "a person is removed": [
        Do("sign", "t21", OK), Do("see", "media.lab.home/", {"status": 200}, LAN), Do("rewrite", "t21 removed", {}),
        Do("see", "media.lab.home/", {"status": 302}, LAN), Do("sign", "t21", NO, "198.51.100.82"),
        Do("rewrite", "t21 back", {}),
    ],
    "a person leaves a group": [
        Do("sign", "t22", OK), Do("see", "cloud.lab.home/x", {"status": 200}, LAN), Do("rewrite", "t22 groups", {}),
        Do("see", "cloud.lab.home/x", {"status": 403}, LAN), Do("rewrite", "t22 back", {}),
        Do("see", "cloud.lab.home/x", {"status": 200}, LAN),
    ],
    "a damaged users file": [
        Do("sign", "t23", OK), Do("rewrite", "damaged", {}), Do("see", "media.lab.home/", {"status": 200}, LAN),
        Do("sign", "t23", OK), Do("rewrite", "t23 back", {}),
    ],
}  # fmt: skip
