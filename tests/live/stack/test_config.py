"""The role stack on a host: configuration that is tried, swapped and read again, owners, values as declared."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.render import render
from tests.live.labs import Lab, Run, waited_for
from tests.live.stack.program import BUSYBOX, STACKS, changes, container, sleeper, stack
from tests.unit.stack.cases import LOG, SERVICES, program, project_of, undone

OLD_TEMPLATE = Path(__file__).resolve().parents[2] / "fixtures/stack-old/compose.yaml.j2"


@pytest.fixture(scope="module", autouse=True)
def proxied(lab: Lab) -> None:
    lab.declare(lab_services={"proxy": proxy("one")})
    lab.pyinfra()


# -- a real web server

CADDYFILE = """
{{
  auto_https off
}}
import sites/*
:80 {{
  handle /caddy {{
    root * /usr/bin
    file_server
  }}
  handle {{
    respond "{}"
  }}
}}
"""


def proxy(answer: str, **more: str) -> dict[str, Any]:
    """Caddy, which answers everything with one word, and its own binary at /caddy."""
    reload = "while [ -e /tmp/hold ]; do sleep 0.1; done; exec caddy reload --config /etc/caddy/Caddyfile"
    files = {"Caddyfile": CADDYFILE.format(answer), "sites/none": "", **more}
    return {
        "host": "atlas", "image": "docker.io/library/caddy:2.11.7", "segments": ["frontend"],
        "publish": [{"port": 80, "from": ["lan"]}], "capabilities": ["NET_BIND_SERVICE"],
        "volumes": ["data:/data", "config:/config"],
        "config": {"/etc/caddy": files},
        "validate": "caddy validate --config /etc/caddy/Caddyfile",
        "reload": ["sh", "-c", reload],
    }  # fmt: skip


# Every 10 ms a connection of its own, meanwhile one slow download; it ends when its input does. As browsers do,
# it asks once more where a connection ends before an answer: Caddy closes those whose first request comes after it was
# told to read its configuration again.
CLIENT = """
import http.client, json, select, socket, sys, threading, time
answers, faults, size = {}, [], [0, -1]
def ask(again=True):
    try:
        c = http.client.HTTPConnection("ADDRESS", 80, timeout=10)
        c.request("GET", "/")
        a = c.getresponse().read().decode()
        answers[a] = answers.get(a, 0) + 1
    except (ConnectionResetError, http.client.RemoteDisconnected) as error:
        ask(again=False) if again else faults.append(repr(error))
    except Exception as error:
        faults.append(repr(error))
def download():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("ADDRESS", 80))
    s.sendall(b"GET /caddy HTTP/1.0\\r\\n\\r\\n")
    file = s.makefile("rb", 512)
    for line in iter(file.readline, b"\\r\\n"):
        if line.lower().startswith(b"content-length:"):
            size[1] = int(line.split(b":")[1])
    while d := file.read(65536 if stopped else 512):
        size[0] += len(d)
        if not stopped:
            time.sleep(0.01)  # a slow reader is what is tried here: the answer is still on its way meanwhile
stopped = False
slow = threading.Thread(target=download)
slow.start()
print("begun", flush=True)
workers = []
due = time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0] and len(workers) < 6000:
    workers.append(threading.Thread(target=ask))
    workers[-1].start()
    due += 0.01
    time.sleep(max(0, due - time.monotonic()))  # a rate of 100 a second is what is tried here
for w in workers:
    w.join()
stopped = True
slow.join()
print(json.dumps({"asked": len(workers), "answers": answers, "faults": faults[:5], "size": size}))
"""


class Client:
    """Asks the proxy about a hundred times a second from outside while it is entered."""

    def __init__(self, lab: Lab) -> None:
        text = base64.b64encode(CLIENT.replace("ADDRESS", lab.address()).encode()).decode()
        program = f"import base64; exec(base64.b64decode('{text}').decode())"
        self.command = [
            "ssh", "-i", str(lab.state / "id_ed25519"), "-o", f"UserKnownHostsFile={lab.state / 'known_hosts'}",
            "-o", "BatchMode=yes", f"root@{lab.address('outside')}", f'python3 -c "{program}"',
        ]  # fmt: skip
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Client:
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.child.stdout
        assert self.child.stdout.readline() == "begun\n"
        return self

    def __exit__(self, *_: object) -> None:
        out, errors = self.child.communicate("\n", timeout=120)
        assert self.child.returncode == 0, errors
        self.seen = json.loads(out)


def answer(lab: Lab, check: bool = True) -> str:
    program = f"import urllib.request as u; print(u.urlopen('http://{lab.address()}', timeout=10).read())"
    return lab.sh(f'python3 -c "{program}"', "outside", check=check)


def state(lab: Lab, project: str) -> str:
    """Every file of a project with its content, and every link with its target."""
    files, links = "find . -type f -exec sha256sum {} + | sort", "find . -type l -printf '%p %l\\n' | sort"
    return lab.sh(f"cd {STACKS}/{project} && {files} && {links}")


def test_a_bad_caddyfile_is_refused_in_caddys_words_and_the_old_site_keeps_answering(lab: Lab) -> None:
    before = container(lab, "proxy-proxy-1"), state(lab, "proxy")
    lab.declare(lab_services={"proxy": proxy("two", **{"sites/bad": ":81 {\n  respnod hello\n}\n"})})
    run = lab.pyinfra(check=False)
    assert run.code != 0
    assert "unrecognized directive: respnod" in run.text
    assert "nothing was changed" in run.text
    assert (container(lab, "proxy-proxy-1"), state(lab, "proxy")) == before
    assert "one" in answer(lab)
    assert lab.sh(f"docker ps -aq -f label=ringfence.validate; ls -d {STACKS}/.staging || true") == ""


def test_a_good_change_is_taken_over_without_a_failed_request(lab: Lab) -> None:
    before = container(lab, "proxy-proxy-1")
    lab.declare(lab_services={"proxy": proxy("two")})
    with Client(lab) as client:
        assert waited_for(lambda: "two" in (lab.pyinfra().text and answer(lab)), 60)
    assert client.seen["faults"] == []
    assert client.seen["asked"] > 100
    assert set(client.seen["answers"]) == {"one", "two"}
    received, announced = client.seen["size"]
    assert received == announced > 1_000_000
    assert container(lab, "proxy-proxy-1") == before
    lab.must_be_converged()


def test_ansible_takes_a_good_change_over_as_well(lab: Lab) -> None:
    before = container(lab, "proxy-proxy-1")
    lab.declare(lab_services={"proxy": proxy("three")})
    assert lab.ansible().changed
    assert "three" in answer(lab)
    assert container(lab, "proxy-proxy-1") == before
    assert lab.ansible().changed == []


def test_a_reload_that_fails_brings_the_old_files_back(lab: Lab) -> None:
    before = container(lab, "proxy-proxy-1")
    site = "http://:82 {\n  bind 192.0.2.1\n  respond never\n}\n"  # validate cannot know what can be bound
    lab.declare(lab_services={"proxy": proxy("four", **{"sites/unbindable": site})})
    run = lab.pyinfra(check=False)
    assert run.code != 0
    assert "cannot assign requested address" in run.text
    assert "the old files are back and in use" in run.text
    assert "three" in answer(lab)
    assert container(lab, "proxy-proxy-1") == before
    assert "three" in lab.sh("docker exec proxy-proxy-1 cat /etc/caddy/Caddyfile")
    lab.declare(lab_services={"proxy": proxy("three")})
    lab.must_be_converged()


def test_a_run_that_was_killed_before_the_reload_is_repaired_by_the_next(lab: Lab) -> None:
    before = container(lab, "proxy-proxy-1")
    lab.sh("docker exec proxy-proxy-1 touch /tmp/hold")
    lab.declare(lab_services={"proxy": proxy("five")})
    run = threading.Thread(target=lambda: lab.pyinfra(check=False))
    run.start()
    # The new files are there, and what reads them is held up: before that, killing its parent would not stop it.
    seen = "docker exec proxy-proxy-1 cat /etc/caddy/Caddyfile | grep -c five && pgrep -f '^sh -c while.*/tmp/hold' >&2"
    assert waited_for(lambda: lab.sh(f"{seen} || echo not yet", check=False) == "1\n", 120)
    lab.sh("pkill -9 -f '[r]ingfence-stack apply'; pkill -9 -f '[w]hile.*/tmp/hold'")
    lab.sh("docker exec proxy-proxy-1 rm /tmp/hold")
    run.join()
    assert "three" in answer(lab)
    assert lab.plan().changed == ["stack | state"]
    lab.pyinfra()
    assert "five" in answer(lab)
    assert container(lab, "proxy-proxy-1") == before
    lab.must_be_converged()


def test_a_restart_of_the_host_is_no_change(lab: Lab) -> None:
    before = answer(lab)
    lab.lab("reboot")
    lab.wait_for_ssh()
    assert waited_for(lambda: answer(lab, check=False) == before, 120)
    assert waited_for(lambda: lab.plan().changed == [], 60)


# -- a role that is data: tests/fixtures/roles/web

WEB: dict[str, Callable[..., Run]] = {
    "pyinfra": lambda lab, **how: lab.pyinfra("../tests/fixtures/roles/web/deploy", **how),
    "ansible": lambda lab, **how: lab.ansible(playbook="tests/fixtures/web.yml", **how),
}


def test_a_role_that_is_data_is_applied_by_either_engine(lab: Lab) -> None:
    first, second = "pyinfra", "ansible"
    lab.declare(lab_services={"proxy": proxy("five")}, web_greeting=f"by {first}")
    assert WEB[first](lab).changed
    kept = container(lab, "web-caddy-1")
    assert WEB[second](lab).changed == WEB[first](lab).changed == []
    assert lab.sh("docker exec web-caddy-1 wget -q -O - http://127.0.0.1:8080/") == f"by {first}"
    lab.must_pass_the_checks_of_the_roles("tests/fixtures/roles/web", least=1)
    lab.declare(lab_services={"proxy": proxy("five")}, web_greeting='x" "y" "z')
    run = WEB[second](lab, check=False)
    assert run.code != 0
    assert "nothing was changed; the program says" in run.text
    assert "wrong argument count" in run.text
    lab.declare(lab_services={"proxy": proxy("five")}, web_greeting="again")
    assert WEB[second](lab).changed
    assert lab.sh("docker exec web-caddy-1 wget -q -O - http://127.0.0.1:8080/") == "again"
    lab.pyinfra()  # the role stack leaves another role's project alone
    lab.must_be_converged()
    assert container(lab, "web-caddy-1") == kept


# -- the program itself, as any role calls it


def owned(owner: str, *projects: str, **more: Any) -> dict[str, Any]:
    return {"owner": owner, "projects": [{"name": name, "services": [sleeper(**more)]} for name in projects]}


def test_a_role_removes_its_own_projects_only(lab: Lab) -> None:
    stack(lab, owned("alpha", "a-one", "a-two"))
    stack(lab, owned("beta", "b-one"))
    kept = container(lab, "a-one-main-1"), container(lab, "b-one-main-1")
    assert changes(lab, owned("alpha", "a-one", "a-two")) == changes(lab, owned("beta", "b-one")) == []
    stack(lab, owned("alpha", "a-one"))
    names = lab.sh("docker ps -a --format '{{.Names}}'")
    assert "a-two" not in names
    assert (container(lab, "a-one-main-1"), container(lab, "b-one-main-1")) == kept
    lab.must_be_converged()  # the role stack sees none of them
    said = stack(lab, owned("beta", "b-one", "a-one"), check=False)
    assert "'a-one' is declared by the role beta, but the role alpha made the one that is here" in said
    assert container(lab, "a-one-main-1") == kept[0]


def test_two_roles_at_the_same_time_wait_for_each_other(lab: Lab) -> None:
    said: list[str] = []
    jobs = [
        threading.Thread(target=lambda o=owner, p=project: said.append(stack(lab, owned(o, p, pids=77))))
        for owner, project in (("alpha", "a-three"), ("beta", "b-three"))
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(said) == 2
    running = lab.sh("docker ps --format '{{.Names}}'").split()
    assert {"a-three-main-1", "b-three-main-1"} <= set(running)
    for owner in ("alpha", "beta"):
        stack(lab, owned(owner))
    assert not [name for name in lab.sh("docker ps -a --format '{{.Names}}'").split() if name[:2] in ("a-", "b-")]


def test_a_secret_is_read_again_after_a_signal_and_comes_back_when_that_fails(lab: Lab) -> None:
    script = 'trap "cat /run/secrets/token > /tmp/seen; grep -q bad /tmp/seen && exit 3" HUP; cat /run/secrets/token >'
    script += " /tmp/seen; while :; do sleep 0.1; done"
    service = sleeper(command=["sh", "-c", script], secrets=["token"], reload={"signal": "SIGHUP"})
    project = {"name": "sig", "services": [service], "secrets": [{"name": "token"}]}

    def desired(token: str) -> dict[str, Any]:
        return {"owner": "gamma", "projects": [project], "secrets": {"sig": {"token": token}}, "wait": 60}

    stack(lab, desired("first-token"))
    before = container(lab, "sig-main-1")
    stack(lab, desired("second-token"))
    assert container(lab, "sig-main-1") == before
    assert lab.sh("docker exec sig-main-1 cat /tmp/seen") == "second-token"
    assert changes(lab, desired("second-token")) == []
    said = stack(lab, desired("a-bad-token"), check=False)
    assert "did not take over its new configuration: it ended" in said
    assert "a-bad-token" not in said
    assert waited_for(lambda: lab.sh("docker exec sig-main-1 cat /tmp/seen", check=False) == "second-token", 60)
    stack(lab, desired("second-token"))
    assert changes(lab, desired("second-token")) == []
    stack(lab, {"owner": "gamma"})


def test_what_fails_its_health_check_after_a_signal_gets_the_old_files_back(lab: Lab) -> None:
    script = 'trap "rm -f /tmp/well; grep -q bad /run/secrets/token || touch /tmp/well" HUP; touch /tmp/well;'
    script += " while :; do sleep 0.1; done"
    health = ["CMD-SHELL", "test -e /tmp/well || { echo it is not well; false; }"]
    service = sleeper(command=["sh", "-c", script], health=health, secrets=["token"], reload={"signal": "SIGHUP"})
    project = {"name": "well", "services": [service], "secrets": [{"name": "token"}]}

    def desired(token: str) -> dict[str, Any]:
        return {"owner": "gamma", "projects": [project], "secrets": {"well": {"token": token}}, "wait": 60}

    stack(lab, desired("first-token"))
    before = container(lab, "well-main-1")
    stack(lab, desired("second-token"))
    said = stack(lab, desired("a-bad-token"), check=False)
    assert "its health check does not succeed any more (1):     it is not well" in said
    assert "the old files are back and in use" in said
    assert lab.sh("docker exec well-main-1 cat /run/secrets/token") == "second-token"
    assert container(lab, "well-main-1") == before
    assert changes(lab, desired("second-token")) == []
    stack(lab, {"owner": "gamma"})


ODD = [
    "\U0001f600 é \u2028 \u2029 \ufeff \x7f \x85", "it's \"so\"", "$HOME ${PATH:-x} $$ $", "a # b", "one\ntwo\r\n\ttab",
    "trailing  ", " leading", "007", "1e3", "null", "~", "@SPEC@", "{{ x }} {% y %}", "\\n \\", "- a: b", "<<",
    "!!int 3", "&a *a", "%TAG", "`id` $(id)", "", "\x1b[31m\x01",
]  # fmt: skip
READ = """
import json, pathlib, subprocess, sys
inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", "odd-null-1"]
pid = int(subprocess.run(inspect, capture_output=True, check=True).stdout)
root = pathlib.Path(f"/proc/{pid}/root")
def words(name):
    return [w.hex() for w in pathlib.Path(f"/proc/{pid}/{name}").read_bytes().split(b"\\0")[:-1]]
files = {str(p.relative_to(root)).encode("utf-8", "surrogateescape").hex(): p.read_bytes().hex()
         for top in ("odd", "cfg") for p in (root / top).rglob("*") if p.is_file()}
health = (root / "tmp/health")
print(json.dumps({"words": words("cmdline"), "environment": words("environ"), "files": files,
                  "health": health.read_bytes().hex() if health.exists() else None}))
"""


def test_every_value_arrives_byte_for_byte(lab: Lab) -> None:
    paths = [text.replace("/", "|").strip("\0") for text in ODD if text.strip()]
    service = sleeper(
        name="null",
        init=False,
        command=["sh", "-c", "while :; do sleep 1; done", *ODD],
        environment={f"ODD_{number}": text for number, text in enumerate(ODD)},
        health=["sh", "-c", 'printf "%s|" "$@" > /tmp/health', "x", *ODD],
        files=[{"target": f"/odd/{path}", "content": text} for path, text in zip(paths, ODD, strict=False)],
        config={
            f"/cfg/{number}{path}": {path: text} for number, (path, text) in enumerate(zip(paths, ODD, strict=False))
        },
    )
    desired = {"owner": "delta", "projects": [{"name": "odd", "services": [service]}], "wait": 60}
    stack(lab, desired)
    assert changes(lab, desired) == []
    assert waited_for(lambda: "odd-null-1" in lab.sh("docker ps -f health=healthy --format '{{.Names}}'"), 60)
    text = base64.b64encode(READ.encode()).decode()
    got = json.loads(lab.sh(f"python3 -c \"import base64; exec(base64.b64decode('{text}'))\""))
    assert [bytes.fromhex(word).decode() for word in got["words"]][3:] == ODD
    environment = dict(bytes.fromhex(item).decode().split("=", 1) for item in got["environment"])
    assert {name: environment[name] for name in service["environment"]} == service["environment"]
    assert bytes.fromhex(got["health"]).decode() == "".join(f"{text}|" for text in ODD)
    files = {bytes.fromhex(path).decode(): bytes.fromhex(content).decode() for path, content in got["files"].items()}
    for number, (path, content) in enumerate(zip(paths, ODD, strict=False)):
        assert files[f"odd/{path}"] == content
        assert files[f"cfg/{number}{path}/{path}"] == content
    privileged = lab.sh("docker inspect -f '{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}' odd-null-1")
    assert privileged == "false []\n"
    stack(lab, {"owner": "delta"})


READ_BY_COMPOSE = """
import base64, json, pathlib, subprocess, sys, tempfile
for text in json.load(sys.stdin):
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(base64.b64decode(text))
        file.flush()
        command = ["docker", "compose", "-f", file.name, "config", "--format", "json"]
        done = subprocess.run(command, capture_output=True, cwd="/")
        print(json.dumps([done.returncode, (done.stdout or done.stderr).decode()]))
"""


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(services=st.lists(SERVICES, min_size=25, max_size=25))
def test_compose_itself_reads_every_text_as_it_was_declared(lab: Lab, services: list[dict[str, Any]]) -> None:
    odd = {"name": "0x10", "image": BUSYBOX, "environment": {f"ODD_{n}": text for n, text in enumerate(ODD)}}
    services = [*services, {**odd, "command": ODD, "volumes": [{"name": "null", "target": "/a"}]}]
    made = [program.document(project_of(service), "x", "/opt/x", LOG, False) for service in services]
    texts = json.dumps([base64.b64encode(program.as_yaml(one).encode()).decode() for one in made])
    reader = base64.b64encode(READ_BY_COMPOSE.encode()).decode()
    sent = base64.b64encode(texts.encode()).decode()
    lab.sh("rm -f /tmp/given")
    for start in range(0, len(sent), 100_000):  # an argument has at most 128 KiB
        lab.sh(f"printf %s {sent[start : start + 100_000]} >> /tmp/given")
    out = lab.sh(
        f"base64 -d /tmp/given | python3 -c \"import base64; exec(base64.b64decode('{reader}'))\"", timeout=300
    )
    lines = out.splitlines()
    assert len(lines) == len(services)
    for one, line in zip(made, lines, strict=True):
        code, said = json.loads(line)
        assert code == 0, said
        ((name, want),) = one["services"].items()
        ((read_name, read),) = json.loads(said)["services"].items()
        assert read_name == name
        for key in ("environment", "command", "user"):
            # What compose prints is escaped once more.
            assert undone(read.get(key) or type(want.get(key, ""))()) == want.get(key, type(want.get(key, ""))()), key
        assert undone((read.get("healthcheck") or {}).get("test")) == want.get("healthcheck", {}).get("test")
        sources = [undone(v["source"]) for v in read.get("volumes") or [] if v["type"] == "bind"]
        assert sources == [v["source"] for v in want.get("volumes", []) if v["type"] == "bind"]
        assert {"privileged", "pid", "ipc", "devices"}.isdisjoint(read)


def test_a_file_and_a_directory_change_places(lab: Lab) -> None:
    for files in ({"/cfg/app": "file"}, {"/cfg/app/conf": "below"}, {"/cfg/app": "file again"}):
        service = sleeper(files=[{"target": target, "content": content} for target, content in files.items()])
        desired = {"owner": "delta", "projects": [{"name": "swap", "services": [service]}]}
        stack(lab, desired)
        for target, content in files.items():
            assert lab.sh(f"docker exec swap-main-1 cat {target}") == content
            here = f"{STACKS}/swap/files/main{target}"
            assert lab.sh(f"cat {here}") == content
            # A file's mode is for the container, whose user may be any; nobody else on the host comes to it.
            assert "Permission denied" in lab.sh(f"su nobody -s /bin/sh -c 'cat {here}' 2>&1; true")
        assert changes(lab, desired) == []
    # What somebody made in the way of a file is removed, and said before.
    lab.sh(f"cd {STACKS}/swap/files/main/cfg && rm app && mkdir -p app/by/hand")
    assert f"+ file {STACKS}/swap/files/main/cfg/app: a directory is in its place" in changes(lab, desired)
    stack(lab, desired)
    assert lab.sh("docker exec swap-main-1 cat /cfg/app") == "file again"
    stack(lab, {"owner": "delta"})


def test_containers_of_the_release_before_are_kept(lab: Lab) -> None:
    project = {
        "name": "old",
        "services": [
            sleeper(name="a", environment={"A": "$x 'y' <z>"}, depends=["b"], volumes=[{"name": "v", "target": "/v"}]),
            sleeper(name="b", files=[{"target": "/etc/b.conf", "content": "b\n"}], health=["true"]),
        ],
    }
    text = render(OLD_TEMPLATE, {"project": project, "stack_log_max_size": "10m", "stack_log_max_file": 3})
    old = base64.b64encode(text.encode()).decode()
    program = (
        "import base64, hashlib, re, sys; t = base64.b64decode(sys.argv[1]).decode();"
        r" b = re.split(r'^  [a-z]:\n', re.search(r'^services:\n((?:  .*\n)*)', t, re.M)[1], flags=re.M)[1:];"
        " p = t.split('@SPEC@'); d = [hashlib.sha256(x.encode()).hexdigest() for x in b];"
        " open('/opt/ringfence/stacks/old/compose.yaml', 'w').write(''.join(x + y for x, y in zip(p, [*d, ''])))"
    )
    lab.sh(
        f"mkdir -p {STACKS}/old/files/b/etc && printf 'b\\n' > {STACKS}/old/files/b/etc/b.conf &&"
        f" chmod 711 {STACKS}; chmod 640 {STACKS}/old/compose.yaml 2>/dev/null;"
        f" chmod 644 {STACKS}/old/files/b/etc/b.conf;"
        f' python3 -c "{program}" {old} && docker compose -p old -f {STACKS}/old/compose.yaml up -d',
        timeout=120,
    )
    before = container(lab, "old-a-1"), container(lab, "old-b-1")
    desired = {"owner": "stack", "projects": [project, *lab.variables()["stack_projects"]]}
    desired["networks"] = lab.variables()["stack_networks"]
    pending = changes(lab, desired)
    assert not [line for line in pending if "container" in line]
    assert f"~ directory {STACKS}: other users of the host come to the files in it" in pending
    stack(lab, desired)
    assert lab.sh(f"stat -c %a {STACKS}") == "700\n"
    assert (container(lab, "old-a-1"), container(lab, "old-b-1")) == before
    assert changes(lab, desired) == []
    # One that changes is made anew, and only that one.
    project["services"][0]["environment"] = {"A": "other"}
    stack(lab, desired)
    assert container(lab, "old-a-1") != before[0]
    assert container(lab, "old-b-1") == before[1]
    lab.pyinfra()  # which removes it
    assert "old-a-1" not in lab.sh("docker ps -a --format '{{.Names}}'")


def test_a_port_moves_off_what_ends_slowly_while_another_run_waits(lab: Lab) -> None:
    """Whoever gets it was started while it was not free yet: "port is already allocated"."""
    plain = {"host": "atlas", "image": BUSYBOX, "segments": ["frontend"], "init": True, "command": ["sleep", "86400"]}
    slow = {**plain, "init": False, "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}
    port = {"publish": [{"port": 8123, "from": ["lan"]}]}
    standing = {"proxy": proxy("three")}
    lab.declare(lab_services={**standing, "slow": {**slow, **port}, "other": plain})
    lab.pyinfra()
    lab.declare(lab_services={**standing, "slow": plain, "other": {**plain, **port}})
    with ThreadPoolExecutor() as pool:
        moving = pool.submit(lab.pyinfra)
        assert waited_for(lambda: moving.done() or "ringfence-stack apply" in lab.sh("ps -eo args"), 60)
        waiting = lab.ansible()
        assert "stopping slow-slow-1: another one is to get its address or port" in moving.result().text
    assert re.search(r"waits, for \d+ of at most 3600 s: another run \(.*, ringfence apply stack\)", waiting.text)
    assert waiting.changed == []
    assert "8123" in lab.sh("docker port other-other-1")
    lab.declare(lab_services=standing)
    lab.pyinfra()
