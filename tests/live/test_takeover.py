"""A host that an earlier release has provisioned is taken over by one run, without a window."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.live.conftest import cannot, fresh
from tests.live.engines.ring.attack import Attack, declare, must_hold, start
from tests.live.labs import BIN, NO_DOOR, ROOT, Lab, RunError

# From this release: its policy denied in `filter`, and those after it have left less behind.
RELEASE = "97a6b10"
CONTAINERS = "docker ps --format '{{.Names}}' | sort"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of that release, from the history of this clone."""
    tree = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        reason = f"{RELEASE} is not in the history of this clone: `git fetch --unshallow`. {archive.stderr.decode()}"
        cannot(reason)
    subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
    return tree


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from fresh("t-take-261", "26.1")


def as_declared_then(lab: Lab) -> Path:
    """The inventory without what that release does not know."""
    old = Path(shutil.copytree(lab.inventory, lab.state / "then"))
    for name in ("people", "house", "identity", "segments", "services"):  # that release had its own for every lab
        (old / f"group_vars/demo/{name}.yml").unlink()
    (old / "group_vars/demo/zz_always.yml").unlink()  # settings of tests alone, some of them of today
    edits = old / "group_vars/demo/zz_edit.yml"
    kept = {key: value for key, value in yaml.safe_load(edits.read_text()).items() if key not in NO_DOOR}
    edits.write_text("---\n" + yaml.safe_dump(kept))
    return old


@pytest.fixture(scope="module")
def attack(lab: Lab, before: Path) -> Attack:
    declare(lab)
    old = as_declared_then(lab)
    done = subprocess.run(
        [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploys/site.py"],
        cwd=before, env={**lab.environment, "RINGFENCE_LAB": str(old)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunError(done.stdout + done.stderr)
    # It is one inventory: what that release handed out is written there.
    shutil.copy(old / "addresses.yml", lab.inventory / "addresses.yml")
    return start(lab)


# The tests of this file follow one host, in order, with the attack going on.


def test_one_run_takes_the_host_over_without_a_window(attack: Attack) -> None:
    lab = attack.lab
    containers = lab.sh(CONTAINERS)
    assert len(containers.splitlines()) == len(attack.containers)
    attack.from_now_on()
    found = attack.during(lambda lab: lab.pyinfra())
    # They are made anew, once: whom they ask for names, and their MAC addresses, cannot be changed otherwise.
    assert lab.sh(CONTAINERS) == containers
    must_hold(attack, found)


def test_neither_engine_finds_anything_to_change_after_it(attack: Attack) -> None:
    attack.lab.must_be_converged()
    assert attack.lab.ansible().changed == []


def test_nothing_of_the_old_layout_is_left(attack: Attack) -> None:
    left = attack.lab.sh("iptables-save; ip6tables-save; ls /etc/ringfence/policy")
    assert "RF-FWD" not in left, "the old deny is still there"
    assert "rules.v" not in left


def test_the_host_holds_after_a_reboot(attack: Attack) -> None:
    def reboot(lab: Lab) -> None:
        lab.lab("reboot")
        lab.wait_for_ssh()

    must_hold(attack, attack.during(reboot))
    attack.lab.must_verify()
