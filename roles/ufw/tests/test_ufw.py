"""What holds on a host after the role `ufw`, whichever engine applied it."""

from __future__ import annotations

from typing import Any

import pytest


def test_active_now_and_at_boot(host: Any) -> None:
    assert "ENABLED=yes" in host.file("/etc/ufw/ufw.conf").content_string
    assert host.service("ufw.service").is_enabled
    assert host.check_output("ufw status").startswith("Status: active")


@pytest.mark.parametrize(("program", "prefix"), [("iptables", "ufw"), ("ip6tables", "ufw6")])
def test_incoming_is_denied_unless_declared(host: Any, program: str, prefix: str) -> None:
    rules = host.check_output(f"{program} -S INPUT").splitlines()
    assert rules[0] == "-P INPUT DROP"
    assert f"-A INPUT -j {prefix}-before-input" in rules
    assert host.run(f"{program} -S {prefix}-user-input").rc == 0


@pytest.mark.parametrize("path", ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"])
def test_database_ports_are_denied_by_name(host: Any, path: str) -> None:
    tuples = [line for line in host.file(path).content_string.splitlines() if line.startswith("### tuple ###")]
    for port in ("5432", "3306", "6379", "27017"):
        assert any(line.startswith(f"### tuple ### deny_log tcp {port} ") for line in tuples), port


def test_no_new_connections_are_held(host: Any) -> None:
    assert "RF-HOLD" not in host.check_output("iptables-save -t mangle; ip6tables-save -t mangle")
