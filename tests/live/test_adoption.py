"""A host that already runs somebody else's containers, networks and UFW rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, without_door

THEIRS = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends docker.io docker-cli ufw iptables >/dev/null
ufw allow 22/tcp
ufw allow 8123/tcp comment 'their home automation'
ufw --force enable
docker network create theirs
docker run -d --name their-web --network theirs -p 8123:80 docker.io/library/busybox:1.37 httpd -f -p 80 -h /bin
docker run -d --name their-client --network theirs docker.io/library/busybox:1.37 sleep 100000
"""
STARTED = "docker inspect -f '{{.State.StartedAt}}' their-web their-client"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-adopt", "none", **without_door()):
        lab.sh(THEIRS, timeout=300)
        yield lab


def _they_still_work(lab: Lab) -> None:
    # nc: Debian's static busybox cannot look names up in wget.
    ask = r"printf 'GET /cat HTTP/1.0\r\n\r\n' | docker exec -i their-client nc -w 3 their-web 80 | head -1"
    assert "200 OK" in lab.sh(ask)
    fetch = f"python3 -c \"import socket; socket.create_connection(('{lab.address()}', 8123), 5)\" && echo yes"
    assert lab.sh(fetch, host="outside") == "yes\n"


def test_the_first_run_lists_their_rules_and_changes_nothing(lab: Lab) -> None:
    before = lab.sh("cat /etc/ufw/user.rules; iptables-save | grep -v '^#' | sed 's/\\[.*\\]//'")
    refused = lab.pyinfra(check=False)
    assert refused.code != 0
    assert "8123" in refused.text
    assert "ufw_foreign" in refused.text
    assert refused.changed == []
    assert lab.sh("cat /etc/ufw/user.rules; iptables-save | grep -v '^#' | sed 's/\\[.*\\]//'") == before


def test_kept_rules_and_containers_keep_working_and_are_listed(lab: Lab) -> None:
    started = lab.sh(STARTED)
    lab.declare(ufw_foreign="keep")
    lab.pyinfra()
    assert lab.sh(STARTED) == started, "their containers were restarted"
    _they_still_work(lab)
    verified = lab.verify()
    assert verified.code == 0, verified.text
    for theirs in ("8123", "their-web"):
        assert theirs in verified.text
    lab.must_be_converged()


def test_their_containers_do_not_reach_into_a_segment(lab: Lab) -> None:
    database = lab.sh(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'"
        " $(docker ps -q -f label=com.docker.compose.service=nextcloud-db)"
    ).strip()
    probe = f"docker exec their-client nc -w 3 {database} 5432 </dev/null && echo open || echo closed"
    assert lab.sh(probe) == "closed\n"


def test_removed_rules_are_gone_and_ssh_stays(lab: Lab) -> None:
    lab.declare(ufw_foreign="remove")
    assert lab.pyinfra().changed == ["ufw | state"]
    assert "8123" not in lab.sh("ufw status")
    lab.must_verify()


def test_closing_what_is_unmanaged_closes_it(lab: Lab) -> None:
    _they_still_work(lab)
    lab.declare(ufw_foreign="remove", policy_unmanaged="close")
    lab.pyinfra()
    probe = f"python3 -c \"import socket; socket.create_connection(('{lab.address()}', 8123), 3)\" || echo closed"
    assert "closed" in lab.sh(probe, host="outside", check=False)
    lab.must_verify()
