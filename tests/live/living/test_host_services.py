"""A host on which people have services of their own: processes, containers behind ufw-docker's block, route rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, Run, without_door

UFW = "../roles/ufw/deploy"
# ufw-docker's block, shortened: what decides is that it names chains of ufw's and Docker's.
BLOCK = r"""
# BEGIN UFW AND DOCKER
*filter
:ufw-user-forward - [0:0]
:ufw-docker-logging-deny - [0:0]
:DOCKER-USER - [0:0]
-A DOCKER-USER -j ufw-user-forward
-A DOCKER-USER -j RETURN -s 10.0.0.0/8
-A DOCKER-USER -j RETURN -s 172.16.0.0/12
-A DOCKER-USER -j RETURN -s 192.168.0.0/16
-A DOCKER-USER -j ufw-docker-logging-deny -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -d 172.16.0.0/12
-A DOCKER-USER -j RETURN
-A ufw-docker-logging-deny -j DROP
COMMIT
# END UFW AND DOCKER
"""
THEIRS = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends docker.io docker-cli ufw iptables >/dev/null
cat >> /etc/ufw/after.rules
ufw route allow proto tcp from any to any port 8443
for project in web proxy; do docker network create $project; done
docker run -d --name their-web --network web -p 8080:80 docker.io/library/busybox:1.37 httpd -f -p 80 -h /bin
docker run -d --name their-proxy --network proxy docker.io/library/busybox:1.37 sleep 100000
"""
MINE = [{"name": "home", "port": "8123", "proto": "tcp", "source": "any"}]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-living-host", "none", **without_door(), ufw_foreign="keep"):
        lab.sh(THEIRS, timeout=300, text=BLOCK)
        for port in (8123, 9123, 8883):
            lab.listen(port)
        lab.pyinfra("../roles/guard/deploy")
        yield lab


def _ufw(lab: Lab, **declared: object) -> Run:
    lab.declare(**declared)
    return lab.pyinfra(UFW, check=False)


def _proxied(lab: Lab) -> bool:
    ask = (
        f"printf 'GET /cat HTTP/1.0\\r\\n\\r\\n' | docker exec -i their-proxy nc -w 3 {lab.address()} 8080 | head -c 15"
    )
    return "200 OK" in lab.sh(ask, check=False)


RULES = r"cat /etc/ufw/user*.rules; iptables-save | grep -v '^#' | sed 's/\[.*\]//'"


def test_the_first_run_lists_who_loses_what_and_changes_nothing(lab: Lab) -> None:
    assert _proxied(lab), "their proxy reaches their web by the host's address"
    before = lab.sh(RULES)
    refused = _ufw(lab)
    assert refused.code != 0
    for words in ("8123/tcp on every address, python3", "8080/tcp", "containers of bridge, proxy, web", "ufw-docker"):
        assert words in refused.text, refused.text
    assert "ufw_unmanaged: keep" in refused.text
    assert "22/tcp on" not in refused.text, "sshd is declared"
    assert refused.changed == []
    assert lab.sh(RULES) == before


def test_a_held_port_is_refused_with_its_holder(lab: Lab) -> None:
    refused = _ufw(lab, ufw_unmanaged="keep")
    assert refused.code != 0
    assert "8883/tcp, which mosquitto publishes, is held by python3" in refused.text, refused.text
    lab.sh("systemctl disable --now listen@8883 2>/dev/null")


def test_what_is_kept_stays_reachable_and_what_is_given_up_does_not(lab: Lab) -> None:
    done = _ufw(lab, ufw_unmanaged="keep", ufw_unmanaged_ports={"9123/tcp": "close"})
    assert done.code == 0, done.text
    assert lab.reaches(8123)
    assert not lab.reaches(9123)
    assert _proxied(lab)
    assert lab.pyinfra(UFW).changed == []


def test_a_route_rule_stays_although_after_rules_name_its_chain(lab: Lab) -> None:
    for _ in range(2):
        assert "--dport 8443 -j ACCEPT" in lab.sh("iptables -S ufw-user-forward")
        lab.sh("ufw reload")
    assert lab.pyinfra(UFW).changed == []


def test_once_the_fence_stands_nothing_is_asked(lab: Lab) -> None:
    lab.listen(9200)
    done = _ufw(lab, ufw_rules=MINE)
    assert done.code == 0, done.text
    assert lab.reaches(8123)
    assert not lab.reaches(9200)


def test_ufws_own_words_can_be_declared(lab: Lab) -> None:
    lab.sh(
        "printf '[Paper]\\ntitle=Paper\\ndescription=paper\\nports=9123/tcp|9124/udp\\n' > /etc/ufw/applications.d/p"
    )
    words = [
        {"name": "slowly", "action": "limit", "proto": "tcp", "port": "2222"},
        {"name": "told", "action": "reject", "proto": "tcp", "port": "2323"},
        {"name": "no-mail", "action": "reject", "direction": "out", "proto": "tcp", "port": "25"},
        {"name": "routed", "direction": "route", "proto": "tcp", "port": "8444", "interface_out": "docker0"},
        {"name": "paper", "application": "Paper"},
    ]
    done = _ufw(lab, ufw_rules=[*MINE, *words])
    assert done.code == 0, done.text
    said = lab.sh("ufw status")
    for shown in ("LIMIT", "REJECT OUT", "8444/tcp on docker0", "9124/udp"):
        assert shown in said, said
    assert lab.reaches(9123)
    assert lab.pyinfra(UFW).changed == []
    unknown = _ufw(lab, ufw_rules=[*MINE, {"name": "paper", "application": "Papers"}])
    assert "there are: " in unknown.text
    assert "no application profile 'Papers'" in unknown.text


def test_a_port_is_published_on_one_address_or_for_the_host_alone_and_the_whole_verifies(lab: Lab) -> None:
    services = without_door()["lab_services"]
    services["mosquitto"]["publish"] = [
        {"port": 8883, "from": ["lan"], "address": lab.address()},
        {"port": 8883, "published": 18883, "address": "self"},
    ]
    lab.declare(lab_services=services, ufw_unmanaged_ports={"8123/tcp": "keep"})
    lab.pyinfra()
    held = lab.sh("ss -Hltn")
    assert f"{lab.address()}:8883" in held
    assert "127.0.0.1:18883" in held
    assert "0.0.0.0:8883" not in held
    assert lab.reaches(8123)
    verified = lab.verify()
    assert verified.code == 0, verified.text
    assert "8123" in verified.text
    lab.must_be_converged()
