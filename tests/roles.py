"""A tiny role for tests of both engines: its program keeps its state in a file, and nothing of it needs root."""

from __future__ import annotations

import getpass
import grp
import json
import os
import shutil
from pathlib import Path

import yaml

PROGRAM = """#!/usr/bin/python3
import json, pathlib, sys

STATE = pathlib.Path({state!r})
REQUEST = globals().get("REQUEST")
verb, *words = REQUEST["arguments"] if REQUEST else sys.argv[1:]
if verb == "remove":
    lines = ["- value " + STATE.read_text()] if STATE.exists() else []
    if not words:
        STATE.unlink(missing_ok=True)
    print(json.dumps({{"changes": lines, "refusals": [], "notices": ["its secret stays"]}}))
    sys.exit()
desired = REQUEST["desired"] if REQUEST else json.load(sys.stdin)
have = STATE.read_text() if STATE.exists() else ""
changes = [] if have == desired["value"] else ["~ value: " + have + " becomes " + desired["value"]]
if verb == "check":
    print(json.dumps({{"changes": changes, "refusals": desired["refusals"], "notices": desired["notices"]}}))
elif desired["value"] == "broken":
    sys.exit("ringfence-tiny: wiki could not be attached to its network again")
else:
    print("writing", file=sys.stderr)
    STATE.write_text(desired["value"])
    print(json.dumps({{"changes": changes}}))
"""
ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = {
    "tiny_packages": [], "tiny_value": "new", "tiny_secret": "", "tiny_secrets": {}, "tiny_refusals": [],
    "tiny_notices": [],
}  # fmt: skip
TYPES = {
    "tiny_packages": {"type": "list"},
    "tiny_refusals": {"type": "list"},
    "tiny_notices": {"type": "list"},
    "tiny_secrets": {"type": "dict", "no_log": True},
}


def make_tiny(directory: Path) -> Path:
    """Make ``roles/tiny`` below a directory, which also stands for the host. Returns the role's folder."""
    role = directory / "roles" / "tiny"
    owner = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
    host = directory / "host"
    texts = {
        "defaults/main.yml": yaml.safe_dump(DEFAULTS),
        "vars/main.yml": yaml.safe_dump(
            {
                "tiny_files": [
                    {"src": "ringfence-tiny", "dest": str(host / "ringfence-tiny"), "mode": "0755", **owner},
                    {"template": "tiny.conf.j2", "dest": str(host / "tiny.conf"), "mode": "0644", **owner},
                    {"template": "secret.j2", "dest": str(host / "secret"), "mode": "0600", **owner},
                ]
            }
        ),
        "meta/argument_specs.yml": yaml.safe_dump(
            {
                "argument_specs": {
                    "main": {"options": {name: TYPES.get(name, {"type": "str"}) for name in DEFAULTS}},
                }
            }
        ),
        "templates/desired.json.j2": json.dumps({"value": 0, "secret": 3, "refusals": 1, "notices": 2})
        .replace("0", "{{ tiny_value | tojson }}")
        .replace("1", "{{ tiny_refusals | tojson }}")
        .replace("2", "{{ tiny_notices | tojson }}")
        .replace("3", "{{ tiny_secret | tojson }}"),
        "templates/tiny.conf.j2": "value = {{ tiny_value }}\n",
        "templates/secret.j2": "{{ tiny_secret }}\n",
        "files/ringfence-tiny": PROGRAM.format(state=str(host / "state")),
    }
    for name in ("deploy.py", "tasks/main.yml"):
        texts[name] = (ROOT / "roles" / "guard" / name).read_text(encoding="utf-8").replace("guard", "tiny")
    for name, text in texts.items():
        path = role / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for folder in ("library", "action_plugins"):
        shutil.copytree(ROOT / "roles" / "guard" / folder, role / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return role


def state(directory: Path) -> str:
    """What the program wrote last."""
    path = directory / "host" / "state"
    return path.read_text(encoding="utf-8") if path.exists() else ""
