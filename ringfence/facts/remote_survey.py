"""Sent to a host and run there: compares packages, files and roles' programs with what is wanted, in one go.

Standard library only, Python 3.11; nothing is written. Not imported on the controller but for its tests.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from typing import Any

CHECK_SECONDS = 60
LOADER = (
    "import json,sys; r=json.load(sys.stdin); "
    'exec(compile(r["program"], "ringfence", "exec"), {"__name__": "__main__", "REQUEST": r})'
)


def missing_packages(wanted: list[str]) -> list[str]:
    """Name the packages that dpkg does not report as installed."""
    if not wanted:
        return []
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def file_difference(want: dict[str, str]) -> str | None:
    """Say how a file differs from what is wanted: ``missing``, ``content``, ``mode``, ``owner`` or None."""
    try:
        status = os.lstat(want["path"])
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        with open(want["path"], "rb") as handle:  # noqa: PTH123 - one call less per file than pathlib
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"
    if digest != want["sha256"]:
        return "content"
    if stat.S_IMODE(status.st_mode) != int(want["mode"], 8):
        return "mode"
    try:
        owner = (pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name)
    except KeyError:
        return "owner"
    return None if owner == (want["user"], want["group"]) else "owner"


def survey(desired: dict[str, Any]) -> dict[str, Any]:
    """Compare each role's wishes with this host.

    Args:
        desired: ``{role: {"packages": [...], "files": [{path, sha256, mode, user, group}], "program": source,
            "desired": {...}}}``.

    Returns:
        ``{role: {"packages": [...], "files": {path: difference}, "changes": [...], "refusals": [...],
        "notices": [...]}}``.
    """
    # All programs at once: each spends most of its time waiting for iptables or Docker to answer.
    running = {}
    for role, want in desired.items():
        child = subprocess.Popen(
            [sys.executable, "-c", LOADER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        request = {"program": want["program"], "arguments": ["check"], "desired": want["desired"]}
        running[role] = (child, json.dumps(request))
    results = {}
    for role, (child, text) in running.items():
        want = desired[role]
        answer: dict[str, list[str]] = {"changes": [], "refusals": [], "notices": []}
        try:
            out, err = child.communicate(text, timeout=CHECK_SECONDS)
            if child.returncode == 0:
                answer = json.loads(out)
            else:
                answer["refusals"] = [f"the check of role {role} failed on this host: {err.strip()[-2000:]}"]
        except subprocess.TimeoutExpired:
            child.kill()
            answer["refusals"] = [f"the check of role {role} did not answer within {CHECK_SECONDS} s"]
        differences = {f["path"]: file_difference(f) for f in want["files"]}
        results[role] = {
            **answer,
            "packages": missing_packages(want["packages"]),
            "files": {path: difference for path, difference in differences.items() if difference},
        }
    return results


if __name__ == "__main__":
    json.dump(survey(globals()["REQUEST"]["desired"]), sys.stdout)
