"""ringfence is taken off a host, which goes on working, and comes back: either engine, either firewall back end."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.live.labs import Lab, Run, waited_for

CONFIRM = "ringfence_remove=yes"
THEIRS = (
    "docker run -d --name theirs --restart unless-stopped -p 8123:80 docker.io/library/busybox:1.37"
    " httpd -f -p 80 -h /bin"
)
# What a volume and a directory of the host hold, told by what is in them and to whom it belongs.
CONTENT = (
    "cd /var/lib/docker/volumes && find . -path './*/_data/*' -name 'kept*' -printf '%p %U %m %s\\n' -exec cat {} + |"
    " sort; cat /srv/kept"
)
UFW = "ufw status verbose; cat /etc/ufw/user.rules /etc/ufw/user6.rules"
LEFT = (
    "iptables-save; ip6tables-save; nft list tables 2>/dev/null; ls /usr/local/sbin /etc/systemd/system /etc/ringfence"
    " /etc/logrotate.d /run; systemctl list-units --all --plain --no-legend 'ringfence*'; docker network ls; ip link"
)


@pytest.fixture(scope="module", autouse=True)
def kept(lab: Lab) -> None:
    """What is not ringfence's, and must be there whatever happens."""
    lab.undeclare()
    lab.pyinfra()
    lab.sh(THEIRS, timeout=120)
    lab.sh("for v in /var/lib/docker/volumes/*/_data; do echo intact > $v/kept; chown 999 $v/kept; done")
    lab.sh("echo intact > /srv/kept")
    # What the timer writes when it looks is listed as well: it comes once, after a boot.
    assert waited_for(lambda: lab.sh("ls /run/ringfence/watch.json", check=False) != "", 60, 1.0)
    lab.listen(9100)  # for nobody: UFW keeps everybody out, with ringfence and without


@pytest.fixture
def run(lab: Lab, engine: str) -> Callable[..., Run]:
    """The engine that takes ringfence off this host: called with whether the user has said so, or just looks."""

    def run(*, dry: bool = False, confirmed: bool = False) -> Run:
        if engine == "ansible":
            words = [*(["--check"] if dry else []), *(["-e", CONFIRM] if confirmed else [])]
            return lab.ansible(*words, check=False, playbook="playbooks/remove.yml")
        words = ["--data", CONFIRM] if confirmed else []
        return lab.plan("remove", *words) if dry else lab.pyinfra("remove", *words, check=False)

    return run


def _listed(text: str) -> list[str]:
    """The lines that name what goes, without the host's name and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.findall(r"^(?:\s*\[atlas\]\s+|atlas: )(\w+: [-+~] .*)$", plain, re.MULTILINE)


def _without_ring(lab: Lab) -> None:
    """Docker and UFW work as anybody knows them."""
    assert "Status: active" in lab.sh("ufw status")
    assert lab.reaches(22)
    assert not lab.reaches(9100)
    assert "200 OK" in lab.sh(
        f"python3 -c \"import urllib.request as u; print(u.urlopen('http://{lab.address()}:8123/cat').status, 'OK')\"",
        host="outside",
    )
    # Out through the host, to a machine beyond it: its sshd greets whoever comes.
    ask = f"echo | docker exec -i theirs nc -w 5 {lab.address('outside')} 22 | head -c 4"
    assert lab.sh(ask) == "SSH-"


def test_without_the_users_word_it_is_listed_and_nothing_else(lab: Lab, run: Callable[..., Run]) -> None:
    before = lab.sh("iptables-save | sed 's/\\[.*\\]//' | grep -v '^#'; docker ps -q | sort; ls /usr/local/sbin")
    dry, refused = run(dry=True), run()
    assert dry.code == 0, dry.text
    assert refused.code != 0
    assert CONFIRM in refused.text
    assert _listed(dry.text) == _listed(refused.text) != []
    for line in (
        "stack: - project nextcloud",
        "segments: - network rf-iot",
        "policy: - ",
        "guard: - file /usr/local/sbin",
    ):
        assert any(found.startswith(line) for found in _listed(dry.text)), (line, dry.text)
    after = lab.sh("iptables-save | sed 's/\\[.*\\]//' | grep -v '^#'; docker ps -q | sort; ls /usr/local/sbin")
    assert after == before


@pytest.mark.engines("29-nftables")  # the guard is the same everywhere, and this back end has more to come back
def test_a_removal_that_no_new_connection_confirms_is_taken_back(lab: Lab, run: Callable[..., Run]) -> None:
    ring = (
        "cat /etc/ringfence/policy/policy.json; iptables-save -t mangle | grep -- '^-A RF-';"
        " nft --stateless list table inet ringfence"
    )
    before = lab.sh(ring, check=False)
    lab.declare(guard_ports=[4443], guard_seconds=300)
    refused = run(confirmed=True)
    lab.undeclare()
    assert refused.code != 0
    assert "4443" in refused.text
    assert "the old state is back" in refused.text
    assert lab.sh(ring, check=False) == before
    assert "nothing" not in lab.sh("ringfence-guard status")
    # Programs and units are still there, so one run makes it whole again.
    lab.pyinfra()
    lab.must_verify()


def test_ringfence_goes_and_the_host_works_on(lab: Lab, run: Callable[..., Run]) -> None:
    before, ufw = lab.sh(CONTENT), lab.sh(UFW)
    assert before.count("intact") >= 5
    started = lab.sh("docker inspect -f '{{.State.StartedAt}}' theirs")
    dry = run(dry=True)
    done = run(confirmed=True)
    assert done.code == 0, done.text
    assert _listed(done.text) == _listed(dry.text)  # exactly what was announced
    left = [line for line in lab.sh(LEFT).splitlines() if re.search(r"ringfence(?!-lab)|\bRF-|\brf-(?!\+)", line)]
    assert left == []
    now = lab.sh(UFW).splitlines()
    if lab.engine == "29":  # nothing else lets pass there what Docker's nftables back end lets pass
        now = [line for line in now if not re.search(r"(docker0|br-\+|rf-\+)", line)]
    assert [line for line in ufw.splitlines() if line not in now] == []
    assert [line for line in now if line not in ufw] == []
    assert lab.sh(CONTENT) == before
    assert lab.sh("docker inspect -f '{{.State.StartedAt}}' theirs") == started, "a foreign container was restarted"
    _without_ring(lab)
    # Nothing of it is needed to start Docker, or the host, either.
    lab.lab("reboot")
    lab.wait_for_ssh()
    lab.sh("timeout 60 sh -c 'until docker inspect -f {{.State.Running}} theirs | grep -q true; do sleep 0.2; done'")
    _without_ring(lab)
    assert lab.sh(CONTENT) == before


def test_there_is_nothing_to_take_off_twice(lab: Lab, run: Callable[..., Run]) -> None:
    again = run(confirmed=True)
    assert again.code == 0, again.text
    assert (_listed(again.text), again.changed) == ([], [])


def test_the_projects_start_without_a_fence_where_somebody_wants_that(lab: Lab) -> None:
    lab.sh("sh /var/lib/ringfence/removed/start-projects.sh 2>&1", timeout=300)
    assert "mosquitto" in lab.sh("docker ps --format '{{.Names}}'")
    assert lab.reaches(8883)


@pytest.mark.engines("26.1")  # on a host without a fence it is a first run, which the main job has with each back end
def test_the_fence_comes_back_with_everything_in_it(lab: Lab) -> None:
    before = lab.sh(CONTENT)
    lab.pyinfra()
    lab.must_verify()
    lab.must_be_converged()
    assert lab.ansible().changed == []
    assert lab.sh(CONTENT) == before
