"""``python -m ringfence.inventory DIRECTORY``: prints an inventory with its compiled lab as one JSON object.

``groups`` (name → hosts, children), ``hosts`` (name → variables, final), ``lazy`` (variables that need facts, as they
were written), ``errors`` (why) and ``pure`` (whether the next answer is the same unless a file changes). Exit status 1
and one message on standard error if it cannot be used.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Read the directory given as the only argument. Returns the exit status."""
    if len(arguments) != 1:
        return _fail("ringfence.inventory: write python -m ringfence.inventory DIRECTORY")
    directory = Path(arguments[0]).resolve()
    if not directory.is_dir():
        return _fail(f"{directory}: there is no such directory")
    gc.disable()  # it reads, prints and ends
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    # ansible.cfg is about reading inventory.py; here the plain directory behind it is read.
    os.environ["ANSIBLE_INVENTORY_ENABLED"] = "yaml"
    os.environ["ANSIBLE_VARS_ENABLED"] = "host_group_vars"
    try:
        # Not at the top: importing ansible-core may fail too, and then a message is wanted.
        from ringfence.inventory.assemble import assemble
        from ringfence.inventory.front import InventoryError
        from ringfence.model import LabError
    except ImportError as error:
        return _fail(
            f"ringfence.inventory: {error.name} is missing (activate the environment that has ringfence's dependencies)"
        )
    try:
        data, notices = assemble(directory)
    except (InventoryError, LabError) as error:
        return _fail(str(error))
    except Exception as error:
        if os.environ.get("RINGFENCE_DEBUG"):
            raise
        text = " ".join(str(error).split())
        return _fail(f"{directory}: {type(error).__name__}: {text} (RINGFENCE_DEBUG=1 shows where)")
    for notice in notices:
        sys.stderr.write(f"{notice}\n")
    json.dump(data, sys.stdout)
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
