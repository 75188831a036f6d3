"""What holds on a host after the role `guard`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any


def test_program_is_installed(host: Any) -> None:
    program = host.file("/usr/local/sbin/ringfence-guard")
    assert program.is_file
    assert program.mode == 0o755
    assert program.user == "root"


def test_reboot_takes_an_unconfirmed_change_back(host: Any) -> None:
    assert host.service("ringfence-guard-boot.service").is_enabled
    before = host.check_output("systemctl show -p Before --value ringfence-guard-boot.service").split()
    assert {"ufw.service", "ringfence-policy.service", "docker.service"} <= set(before)


def test_nothing_is_pending(host: Any) -> None:
    assert not host.file("/var/lib/ringfence/guard/pending.json").exists
    assert json.loads(host.check_output("/usr/local/sbin/ringfence-guard check </dev/null"))["changes"] == []
