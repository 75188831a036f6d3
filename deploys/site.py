"""Everything a host needs, in order. Run: pyinfra inventory.py deploys/site.py"""

from __future__ import annotations

from pyinfra import host

from ringfence.operations.converge import is_for, preflight
from ringfence.roles import deploy, of, role

if is_for(host):
    names = of(host.data.get("ringfence_skipped"))
    preflight([role(name) for name in names])
    # pyinfra tells operations apart by the lines that call them; `host.loop` adds the position in the list.
    for name in host.loop(names):
        deploy(name)()
