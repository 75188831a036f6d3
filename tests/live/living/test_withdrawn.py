"""What people have on a host is closed in the end, where they say so."""

from __future__ import annotations

import pytest

from tests.live.labs import Lab
from tests.live.living.crowd import asks
from tests.live.living.test_adopted import answered

pytestmark = pytest.mark.engines("26.1")


def test_their_containers_do_not_reach_into_a_segment(lab: Lab) -> None:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    idle = lab.sh(f"docker inspect -f '{form}' idle-idle-1").strip()
    lab.sh("docker exec -d idle-idle-1 httpd -p 8080 -h /bin")
    assert asks(lab, "idle-idle-1", "127.0.0.1", 8080)
    for container in ("edge-proxy-1", "home-assistant-1"):
        probe = f"docker exec {container} nc -w 3 {idle} 8080 </dev/null && echo open || echo closed"
        said = lab.sh(probe)
        # Root of the host reaches its containers, and so does who is in its network as root.
        assert said == ("open\n" if container.startswith("home") else "closed\n"), container


def test_removed_rules_are_gone_and_ssh_stays(lab: Lab) -> None:
    assert "8443" in lab.sh("ufw status")
    answered(lab, ufw_foreign="remove")
    assert lab.pyinfra().changed == ["ufw | state"]
    assert "8443" not in lab.sh("ufw status")
    lab.must_verify()


def test_closing_what_is_unmanaged_closes_it(lab: Lab) -> None:
    assert lab.reaches(8080)
    answered(lab, ufw_foreign="remove", policy_unmanaged="close")
    lab.pyinfra()
    assert not lab.reaches(8080)
    lab.must_verify()
