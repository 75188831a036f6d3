"""What holds on a host after the role `wireguard`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any

HOME, KEYS = "/etc/wireguard", "/etc/wireguard/ringfence"


def declared(host: Any) -> dict[str, Any]:
    """What was brought about; {} where there is no VPN, and then the role does nothing."""
    kept = host.file("/etc/ringfence/wireguard/desired.json")
    return dict(json.loads(kept.content_string)) if kept.exists else {}


def test_units_are_there_where_the_interface_is(host: Any) -> None:
    wish = declared(host)
    timer = host.service("ringfence-wireguard.timer")
    assert timer.is_enabled == timer.is_running == bool(wish)
    if wish:
        unit = host.service(f"wg-quick@{wish['interface']}.service")
        assert unit.is_enabled
        assert unit.is_running


def test_the_interface_has_what_is_declared(host: Any) -> None:
    wish = declared(host)
    if not wish:
        assert not host.file(KEYS).exists or host.file(KEYS).listdir() == []
        return
    name = wish["interface"]
    interface = json.loads(host.check_output(f"ip -j address show dev {name}"))[0]
    have = {f"{one['local']}/{one['prefixlen']}" for one in interface["addr_info"] if one["scope"] != "link"}
    assert have == set(wish["addresses"])
    assert interface["mtu"] == int(wish["mtu"])
    assert wish["port"] in (0, int(host.check_output(f"wg show {name} listen-port")))
    given = {one["public_key"] for one in wish["peers"] if one.get("public_key")}
    peers = set(host.check_output(f"wg show {name} peers").split())
    assert given <= peers
    assert len(peers) <= len(wish["peers"])


def test_the_key_in_use_is_the_one_that_was_made_here_and_is_roots_alone(host: Any) -> None:
    wish = declared(host)
    if not wish:
        return
    name = wish["interface"]
    key, conf = host.file(f"{KEYS}/{name}.{wish['key']}.key"), host.file(f"{HOME}/{name}.conf")
    assert (host.file(KEYS).mode, key.mode, conf.mode) == (0o700, 0o600, 0o600)
    assert host.file(f"{KEYS}/{name}.key").linked_to == key.path
    public = host.check_output(f"wg show {name} public-key")
    assert host.file(f"{KEYS}/{name}.pub").content_string.strip() == public
    host.run_expect([0], f"test \"$(wg pubkey < {key.path})\" = '{public}'")
