"""What holds on a host after the role `pki`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any

HOME, LEAVES = "/etc/ringfence/pki", "/srv/ringfence/pki"


def declared(host: Any) -> dict[str, Any]:
    """What was brought about; {} where no leaf is declared, and then the role does nothing."""
    kept = host.file(f"{HOME}/desired.json")
    return dict(json.loads(kept.content_string)) if kept.exists else {}


def test_the_timer_waits_where_there_is_something_to_renew(host: Any) -> None:
    timer = host.service("ringfence-pki.timer")
    assert timer.is_enabled == timer.is_running == bool(declared(host))


def test_every_leaf_leads_to_the_root_for_its_names(host: Any) -> None:
    for leaf in declared(host).get("leaves", []):
        home = f"{LEAVES}/{leaf['name']}"
        cert, key = f"{home}/current/cert.pem", host.file(f"{home}/current/key.pem")
        for name in leaf["names"]:
            host.run_expect(
                [0],
                f"openssl verify -x509_strict -CAfile {home}/ca.pem -untrusted {cert} -verify_hostname {name} {cert}",
            )
        assert (key.mode, key.uid) == (0o400, int(leaf.get("owner") or 0))
        public = host.check_output(f"openssl pkey -pubout -in {home}/current/key.pem")
        assert host.check_output(f"openssl x509 -noout -pubkey -in {cert}") == public


def test_the_roots_key_is_not_here(host: Any) -> None:
    if not declared(host):
        assert not host.file(f"{HOME}/intermediate.key").exists
        return
    assert set(host.file(HOME).listdir()) == {"desired.json", "intermediate.key", "intermediate.pem", "root.pem"}
    assert (host.file(HOME).mode, host.file(f"{HOME}/intermediate.key").mode) == (0o700, 0o600)
    root = host.check_output(f"openssl x509 -noout -pubkey -in {HOME}/root.pem")
    assert host.check_output(f"openssl pkey -pubout -in {HOME}/intermediate.key") != root
