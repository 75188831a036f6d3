"""Takes ringfence off. Run: pyinfra inventory.py deploys/remove.py (lists; docs/remove.md says how to go on)"""

from __future__ import annotations

from pyinfra import host

from ringfence.operations.converge import is_for
from ringfence.operations.remove import remove
from ringfence.roles import ROLES, role

if is_for(host):
    remove(name="remove", roles=[role(name) for name in reversed(ROLES)])
