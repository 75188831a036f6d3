"""What the tests of the program `ringfence-stack` share: a converged host, projects, texts of any kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.programs import load

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden/stack"
OLD_TEMPLATE = ROOT / "tests/fixtures/stack-old/compose.yaml.j2"
STACKS = Path("/opt/ringfence/stacks")

program = load("stack")
Facts = program.Facts
File = program.File


NETWORKS = {
    "rf-back": {"id": "nb", "v6": False, "subnets": ["172.21.0.0/24"], "internal": True},
    "rf-front": {"id": "nf", "v6": False, "subnets": ["172.20.0.0/24"], "internal": False},
}
STARTED = "1970-01-01T00:33:21.000000000Z"


def made_of(desired: dict[str, Any], newest: bool = False) -> dict[str, Any]:
    """The compose document of the first project, for the oldest engine or the newest, which has IPv6 and sets MACs."""
    project = desired["projects"][0]
    home = str(program.home(project))
    return dict(program.document(project, desired["owner"], home, desired["log"], newest, newest))


def converged(desired: dict[str, Any]) -> Any:
    """The host after a complete run."""
    entries: dict[Path, Any] = {}
    trees: dict[Path, Any] = {}
    containers = []
    for project in desired["projects"]:
        values = desired["secrets"].get(project["name"], {})
        made = program.document(project, desired["owner"], str(program.home(project)), desired["log"], False)
        entries |= program.wanted_files(project, made, values, desired["owner"])
        for service in project["services"]:
            for target, files in program.wanted_trees(project, service, values).items():
                trees[program.tree_of(project, service, target)] = program.Seen("..1", files, 1000.0, True, [])
            own = f"{project['name']}-{service['name']}-1"
            containers.append({
                "id": own, "name": own, "state": "running", "status": "Up 5 minutes", "created": 2000.0, "ports": [],
                "mode": next((leg["network"] for leg in service["networks"]), service["network"] or "none"),
                "image": service["image"],
                "volumes": [f"{project['name']}_{v['name']}" for v in service["volumes"] if v.get("name")],
                "labels": {
                    "ringfence.project": project["name"], "com.docker.compose.project": project["name"],
                    "com.docker.compose.service": service["name"],
                    "ringfence.spec": program.specs(made)[service["name"]],
                    "com.docker.compose.image": "sha256:one",
                },
                "networks": {
                    leg["network"]: {
                        "id": NETWORKS[leg["network"]]["id"], "address": leg["address"], "address6": "",
                        "mac": program.mac_of(leg["address"]),
                    }
                    for leg in service["networks"]
                }
                or {"none": {"id": "none", "address": "", "address6": "", "mac": ""}},
            })  # fmt: skip
    images = {s["image"]: "sha256:one" for p in desired["projects"] for s in p["services"]}
    mtimes = dict.fromkeys(entries, 1000.0)
    home = STACKS / "shop"
    directories = {up for path in [*entries, *trees] for up in path.parents if home in up.parents}
    return Facts(
        docker=True,
        projects=["shop"],
        owners={"shop": desired["owner"]},
        entries={**dict.fromkeys(directories), **dict.fromkeys(trees), **entries},
        mtimes=mtimes,
        trees=trees,
        started={c["id"]: STARTED for c in containers},
        containers=containers,
        networks=copy.deepcopy(NETWORKS),
        images=images,
    )


def container(facts: Any, name: str) -> Any:
    return next(c for c in facts.containers if c["name"] == name)


def foreign(**changes: Any) -> dict[str, Any]:
    return {
        "id": "f", "name": "other", "labels": {}, "state": "running", "status": "Up", "created": 1.0,
        "networks": {}, "mode": "none", "ports": [], "volumes": [],
    } | changes  # fmt: skip


ODD = "".join(map(chr, [0x09, 0x0A, 0x0D, 0x7F, 0x85, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F600, 0xE9]))
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(ODD + "$#'\"{}@:- 0")
)
WORDS = st.lists(TEXTS, max_size=3)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
PARTS = TEXTS.map(lambda text: text.replace("/", "")[:40]).filter(lambda text: text not in ("", ".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
NAMES = st.sampled_from(["null", "true", "1", "0x10", "on", "y", "1e3", "0o7", "01", "no", "a"])
SERVICES = st.fixed_dictionaries({
    "name": NAMES, "image": st.just("docker.io/library/busybox:1.37"), "command": WORDS, "health": WORDS,
    "environment": st.dictionaries(VARIABLES, TEXTS, max_size=3), "user": TEXTS,
    "memory": st.sampled_from(["", "1", "64m", "2G"]), "pids": st.integers(1, 4194304),
    "files": st.lists(st.fixed_dictionaries({"target": PATHS, "content": TEXTS}), max_size=2),
    "config": st.dictionaries(PATHS, st.dictionaries(PATHS.map(lambda path: path[1:]), TEXTS, max_size=2), max_size=2),
    "volumes": st.lists(st.fixed_dictionaries({"name": NAMES, "target": PATHS}), max_size=2),
    "tmpfs": st.lists(PATHS, max_size=2), "init": st.booleans(), "read_only": st.booleans(),
    "capabilities": st.lists(st.sampled_from(["CHOWN", "NET_BIND_SERVICE"]), unique=True),
    "ports": st.lists(st.fixed_dictionaries({
        "published": st.integers(1, 65535), "port": st.integers(1, 65535), "proto": st.sampled_from(["tcp", "udp"])
    }), max_size=2),
    "extra_hosts": st.dictionaries(NAMES, st.ip_addresses().map(str), max_size=2),
})  # fmt: skip


def project_of(*services: dict[str, Any]) -> dict[str, Any]:
    return dict(program.whole({"projects": [{"name": "shop", "services": list(services)}]})["projects"][0])


LOG = {"max_size": "10m", "max_file": 3}


def undone(value: Any) -> Any:
    """What compose makes of the values that it reads: "$$" is "$"."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {key: undone(inner) for key, inner in value.items()}
    return [undone(inner) for inner in value] if isinstance(value, list) else value
