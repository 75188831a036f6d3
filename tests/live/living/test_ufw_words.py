"""UFW's own words can be declared, on the host that was adopted."""

from __future__ import annotations

import pytest

from tests.live.labs import Lab
from tests.live.living.test_adopted import answered
from tests.live.living.test_steps import one

pytestmark = pytest.mark.engines("26.1")
WORDS = [
    {"name": "slowly", "action": "limit", "proto": "tcp", "port": "2222"},
    {"name": "told", "action": "reject", "proto": "tcp", "port": "2323"},
    {"name": "no-mail", "action": "reject", "direction": "out", "proto": "tcp", "port": "25"},
    {"name": "routed", "direction": "route", "proto": "tcp", "port": "8444", "interface_out": "docker0"},
    {"name": "paper", "application": "Paper"},
]


def test_limit_reject_out_route_and_profiles_can_be_declared(lab: Lab) -> None:
    lab.sh(
        "printf '[Paper]\\ntitle=Paper\\ndescription=paper\\nports=9123/tcp|9124/udp\\n' > /etc/ufw/applications.d/p"
    )
    lab.listen(9123)
    assert not lab.reaches(9123)
    answered(lab, ufw_rules=WORDS)
    done = one(lab, "ufw")
    assert done.code == 0, done.text
    said = lab.sh("ufw status")
    for shown in ("LIMIT", "REJECT OUT", "8444/tcp on docker0", "9124/udp"):
        assert shown in said, said
    assert lab.reaches(9123)
    assert lab.pyinfra("../roles/ufw/deploy").changed == []
    answered(lab, ufw_rules=[{"name": "paper", "application": "Papers"}])
    unknown = one(lab, "ufw")
    assert "no application profile 'Papers'" in unknown.text
    assert "there are: " in unknown.text


def test_what_is_declared_no_more_goes(lab: Lab) -> None:
    answered(lab)
    lab.pyinfra()
    assert not lab.reaches(9123)
    lab.must_verify()
