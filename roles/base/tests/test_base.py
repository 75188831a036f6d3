"""What holds on a host after the role `base`, whichever engine applied it."""

from __future__ import annotations

from typing import Any

import pytest


def settings(host: Any) -> list[str]:
    """What sshd makes of its configuration; OpenSSH 10 writes it in mixed case and has a new name for a value."""
    text = host.check_output("/usr/sbin/sshd -T").lower()
    return str(text).replace("prohibit-password", "without-password").splitlines()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("permitemptypasswords", "no"),
        ("permitrootlogin", "without-password"),
        ("x11forwarding", "no"),
    ],
)
def test_sshd_takes_keys_only(host: Any, keyword: str, value: str) -> None:
    assert f"{keyword} {value}" in settings(host)


def test_updates_are_scheduled(host: Any) -> None:
    assert host.package("unattended-upgrades").is_installed
    assert 'Unattended-Upgrade "1"' in host.file("/etc/apt/apt.conf.d/20auto-upgrades").content_string


def test_a_time_daemon_is_enabled(host: Any) -> None:
    names = ("systemd-timesyncd", "chrony", "ntpsec", "openntpd")
    installed = [name for name in names if host.package(name).is_installed]
    assert any(host.service(name).is_enabled for name in installed)


def test_kernel_settings_hold(host: Any) -> None:
    assert host.file("/etc/sysctl.d/60-ringfence.conf").mode == 0o644
    assert host.sysctl("net.ipv4.conf.all.accept_redirects") == 0
    assert host.sysctl("net.ipv4.tcp_syncookies") == 1
