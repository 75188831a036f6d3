#!/usr/bin/env python3
"""The one front door: pyinfra's inventory, and Ansible's (executed with --list or --host).

The environment variable RINGFENCE_LAB chooses the lab: a name in inventories/ or a path; by default the demo.
"""

import sys as _sys
from pathlib import Path as _Path

_sys.path.insert(0, str(_Path(__file__).resolve().parent))

from ringfence.inventory import front as _front

if __name__ == "__main__":
    _sys.exit(_front.main(_sys.argv[1:]))

# pyinfra takes every list at the top of this module for a group.
globals().update(_front.for_pyinfra())
