"""The program of the role `pki`: an intermediate, leaves, and nothing that the controller alone may have."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import verification

from ringfence.pki import Root, make_root
from tests.unit.pki.conftest import ME, Host, leaf


def text(path: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout


def test_a_bare_host_gets_its_intermediate_and_leaves_and_the_next_run_changes_nothing(host: Host) -> None:
    assert host.check()["changes"] == [
        "+ intermediate of atlas, signed by the root",
        "+ certificate caddy (caddy.lab.home)",
        "+ ringfence-pki.timer enabled",
        "+ ringfence-pki.service enabled",
        "+ ringfence-pki.timer started",
        f"+ {host.module.DESIRED}",
    ]
    assert not host.module.HOME.exists()
    assert host.apply()["changes"]
    assert host.verify("caddy", "-purpose", "sslserver", "-verify_hostname", "caddy.lab.home").returncode == 0
    host.settled()
    before = host.cert("caddy").resolve()
    host.apply()
    assert host.cert("caddy").resolve() == before


def test_what_the_leaf_says(host: Host) -> None:
    host.variables["pki_leaves"] = [
        leaf(
            "broker", "mqtt.lab.home", "mosquitto.lab.home",
            addresses=["192.168.10.5", "fd00::5"], usage=["client", "server"],
        ),
        leaf("sensor", usage=["client"]),
    ]  # fmt: skip
    host.apply()
    said = text(host.cert("broker"))
    for words in (
        "Subject: CN=broker", "DNS:mqtt.lab.home, DNS:mosquitto.lab.home, IP Address:192.168.10.5, IP Address:FD00:",
        "TLS Web Server Authentication, TLS Web Client Authentication", "CA:FALSE", "Digital Signature",
        "ASN1 OID: prime256v1", "ecdsa-with-SHA256",
    ):  # fmt: skip
        assert words in said.replace(" = ", "="), words
    assert "Server Authentication" not in text(host.cert("sensor"))
    assert host.verify("sensor", "-purpose", "sslclient").returncode == 0
    assert host.verify("sensor", "-purpose", "sslserver").returncode != 0
    found = host.module.pair("broker")
    assert -330 <= found.since - time.time() <= -300
    assert 167 * 3600 < found.until - time.time() <= 168 * 3600
    assert found.addresses == {"192.168.10.5", "fd00::5"}
    host.settled()


def test_modes_and_owners(host: Host) -> None:
    host.apply()
    home = host.directory / "leaves" / "caddy"
    modes = {
        home: 0o755, host.cert("caddy").parent: 0o755, host.cert("caddy"): 0o444, host.key("caddy"): 0o400,
        home / "ca.pem": 0o444, host.module.SIGNER_KEY: 0o600, host.module.HOME: 0o700, host.module.DESIRED: 0o600,
        Path(host.variables["pki_metrics"]): 0o644,
    }  # fmt: skip
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in modes} == modes
    assert host.key("caddy").stat().st_uid == int(ME)
    assert not (home / "current").readlink().is_absolute()
    assert (home / "ca.pem").read_text() == host.root.certificate


def test_the_roots_key_is_never_sent_and_the_hosts_key_never_leaves(host: Host) -> None:
    host.apply()
    everything = json.dumps(host.sent)
    for line in host.root.key.splitlines()[1:-1]:
        assert line not in everything
    files = [path for path in host.directory.rglob("*") if path.is_file()]
    assert len(files) > 8
    secret = host.root.key.splitlines()[1]
    assert [path for path in files if secret in path.read_text()] == []
    assert "PRIVATE KEY" not in everything


def test_the_constraints_hold_a_leaf_of_one_host_is_refused_for_anothers_name(host: Host) -> None:
    """Whoever has the host's key signs a leaf for another host's name: no client takes it."""
    host.apply()
    module = host.module
    for name, address in (("vault.lab.home", None), ("google.com", None), ("caddy.lab.home", "192.168.10.9")):
        key = module.new_key()
        forged = module.signed(
            module.SIGNER, module.SIGNER_KEY, key, "caddy", [name], [address] if address else [], ["server"],
            time.time() - 60, time.time() + 3600,
        )  # fmt: skip
        why = module.verified(forged, module.SIGNER.read_text(), host.root.certificate, ["server"])
        assert re.search("permitted subtree violation|excluded subtree violation", why), name


def test_the_intermediate_signs_no_further_one_and_only_for_tls(host: Host) -> None:
    host.apply()
    said = text(host.module.SIGNER)
    assert "CA:TRUE, pathlen:0" in said
    nothing_else = r"Permitted:\s+DNS:caddy.lab.home\s+Excluded:\s+IP:0.0.0.0/0.0.0.0\s+IP:0:0:0:0:0:0:0:0/0:0"
    assert re.search(rf"Name Constraints: critical\s+{nothing_else}", said)
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in said


def test_whoever_has_the_domain_itself_may_sign_for_all_of_it_and_that_is_said(host: Host) -> None:
    host.variables["pki_leaves"] = [leaf("caddy", "lab.home", "auth.lab.home")]
    [line] = host.check()["notices"]
    assert line.startswith("pki_leaves.caddy.names: with 'lab.home' this host may sign for every name below it")


@pytest.mark.parametrize("usage", ["server", "client"])
def test_a_second_reader_of_certificates_agrees(host: Host, usage: str) -> None:
    """Not OpenSSL: the verifier of `cryptography`, which holds the rules of public CAs."""
    host.variables["pki_leaves"] = [leaf("caddy", usage=[usage])]
    host.apply()
    chain = x509.load_pem_x509_certificates(host.cert("caddy").read_bytes())
    roots = verification.Store([x509.load_pem_x509_certificate(host.root.certificate.encode())])
    builder = verification.PolicyBuilder().store(roots)
    if usage == "client":
        assert builder.build_client_verifier().verify(chain[0], chain[1:]).subjects
        return
    assert builder.build_server_verifier(x509.DNSName("caddy.lab.home")).verify(chain[0], chain[1:])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("vault.lab.home")).verify(chain[0], chain[1:])
    with pytest.raises(verification.VerificationError):
        builder.build_client_verifier().verify(chain[0], chain[1:])


NO_NAMES: dict[str, Any] = {"names": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ["cloud.example.com"]}, "pki_leaves.caddy.names: 'cloud.example.com' is outside of lab.home"),
        ({"names": ["lab.home.evil.org"]}, "call it lab.lab.home"),
        ({"names": ["evillab.home"]}, "outside of lab.home"),
        ({"names": ["*.lab.home"]}, "patterns (*) are not signed"),
        ({"names": ["Cloud.lab.home"]}, "no name in lower case"),
        (NO_NAMES, "stands for at least one name"),
        ({"addresses": ["192.168.1.0/24"]}, "is no address"),
        ({"addresses": ["9.9.9.9"]}, "'9.9.9.9' is outside of the networks for which pki_root signs"),
        ({"owner": "postgres"}, "'postgres' is no user id"),
        ({"name": "root"}, "root and intermediate are taken"),
        ({"name": "../etc"}, "make a name"),
        ({"reload": {"signal": "SIGHUP"}}, "which container"),
        ({"reload": {"container": "x", "signal": "HUP"}}, "write it as SIGHUP"),
        ({"reload": {"container": "x", "signal": "SIGHUP", "command": ["true"]}}, "remove one of the two"),
    ],
)
def test_what_cannot_be_signed_is_refused_before_anything_is_changed(
    host: Host, changes: dict[str, Any], said: str
) -> None:
    host.variables["pki_leaves"] = [{**leaf("caddy"), **changes}]
    assert any(said in line for line in host.check()["refusals"]), host.check()
    with pytest.raises(host.module.Fault):
        host.apply()
    assert not host.module.HOME.exists()


def test_a_name_outside_of_the_root_is_refused_whatever_the_domain_says(host: Host) -> None:
    host.variables |= {"pki_domain": "lab.example", "pki_leaves": [leaf("caddy", "caddy.lab.example")]}
    assert "outside of lab.home, for which alone pki_root signs" in host.check()["refusals"][0]


def test_a_root_that_is_missing_broken_or_no_root_is_named_with_the_fix(host: Host) -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
    for given, said in (("", "is empty"), ("hello", "no certificate in PEM"), (broken, "cannot be read")):
        host.variables["pki_root"] = given
        [line] = host.check()["refusals"]
        assert line.startswith("pki_root: ")
        assert said in line
        assert "python -m ringfence.pki" in line
    host.variables["pki_root"] = host.root.certificate
    host.apply()
    host.variables["pki_root"] = host.cert("caddy").read_text()
    assert "may not sign others" in host.check()["refusals"][0]


def test_without_the_key_a_host_that_needs_it_is_refused_and_one_that_has_its_intermediate_is_not(host: Host) -> None:
    key = host.variables.pop("pki_root_key")
    host.variables["pki_root_key"] = ""
    assert host.check()["refusals"][0].startswith("pki_root_key: empty")
    host.variables["pki_root_key"] = key
    host.apply()
    host.variables["pki_root_key"] = ""
    host.settled()
    host.variables["pki_intermediate_days"] = 3000  # two thirds of that are over
    found = host.check()
    assert found["refusals"] == []
    assert "give a run pki_root_key" in found["notices"][0]


def test_a_role_without_leaves_does_and_says_nothing(host: Host) -> None:
    host.variables |= {"pki_leaves": [], "pki_root": "", "pki_root_key": ""}
    host.settled()
    assert host.apply() == {"changes": []}
    assert not host.module.HOME.exists()
    assert not host.module.LEAVES.exists()


def test_other_names_need_another_intermediate_and_only_the_changed_leaf_is_made_anew(host: Host) -> None:
    host.apply()
    caddy, key = host.cert("caddy").resolve(), host.module.SIGNER_KEY.read_text()
    host.variables["pki_leaves"].append(leaf("db"))
    assert host.check()["changes"] == [
        "~ intermediate of atlas, signed by the root: other names",
        "+ certificate db (db.lab.home)",
        f"~ {host.module.DESIRED}",
    ]
    host.apply()
    assert host.module.SIGNER_KEY.read_text() == key
    assert host.cert("caddy").resolve() == caddy
    assert [host.verify(name).returncode for name in ("caddy", "db")] == [0, 0]
    host.settled()
    host.variables["pki_leaves"] = [leaf("caddy", "caddy.lab.home", "cloud.lab.home")]
    assert "- certificate db" in host.check()["changes"]
    host.apply()
    assert host.cert("caddy").resolve() != caddy
    assert sorted(path.name for path in host.module.LEAVES.iterdir()) == ["caddy"]
    host.settled()


def test_another_root_makes_everything_anew_and_the_old_one_may_stay_trusted(host: Host) -> None:
    host.apply()
    before, old = host.cert("caddy").resolve(), host.root
    host.root = make_root("lab.home")
    host.variables |= {"pki_root": host.root.certificate + old.certificate, "pki_root_key": host.root.key}
    changes = host.check()["changes"]
    assert changes[0].startswith("~ intermediate of atlas, signed by the root: another root (")
    assert "~ certificate caddy: it does not lead to the root" in changes[1]
    host.apply()
    assert host.cert("caddy").resolve() != before
    assert host.verify("caddy").returncode == 0
    assert (host.module.LEAVES / "caddy" / "ca.pem").read_text() == host.root.certificate + old.certificate
    host.settled()


def test_the_intermediate_never_outlives_the_root(host: Host) -> None:
    host.variables["pki_intermediate_days"] = 36500
    host.apply()
    assert host.module.signer().until == host.module.read_certificate(host.root.certificate).until
    assert host.check()["changes"] == []  # there is no more to be had


def test_what_certificates_say_is_read_once_and_their_time_each_time(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # only root keeps what it found out
    host.apply()
    host.settled()
    module, ran = host.module, []
    run = module.run

    def counted(*argv: str, **more: Any) -> Any:
        ran.append(argv)
        return run(*argv, **more)

    monkeypatch.setattr(module, "run", counted)

    def openssl() -> list[str]:
        module.read_certificate.cache_clear()  # as in another process
        ran.clear()
        host.check()
        return [argv[1] for argv in ran if argv[0] == "openssl"]

    assert openssl() == []
    # Past its time nothing that was found out counts.
    past = module.signer().until + 1
    with monkeypatch.context() as later:
        later.setattr(module.time, "time", lambda: past)
        assert module._all_valid(module.read(module.SIGNER)) is False
    # Nor for another certificate.
    other = make_root("lab.home")
    host.variables["pki_root"] = other.certificate
    assert "verify" in openssl()
    assert host.check()["changes"]


DAMAGES = ("key", "chain", "link", "mode", "foreign key", "intermediate", "intermediate key", "ca")


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_seen_and_made_anew(host: Host, damage: str) -> None:
    host.apply()
    home, module = host.module.LEAVES / "caddy", host.module
    if damage == "key":
        host.key("caddy").unlink()
    elif damage == "chain":
        host.cert("caddy").chmod(0o600)
        host.cert("caddy").write_text("")
    elif damage == "link":
        (home / "current").unlink()
    elif damage == "mode":
        host.key("caddy").chmod(0o444)
    elif damage == "foreign key":
        host.key("caddy").unlink()
        host.key("caddy").write_text(module.new_key())
        host.key("caddy").chmod(0o400)
    elif damage == "intermediate":
        module.SIGNER.write_text("")
    elif damage == "intermediate key":
        module.SIGNER_KEY.unlink()
    else:
        (home / "ca.pem").unlink()
    assert host.check()["changes"], damage
    host.apply()
    host.settled()
    assert host.verify("caddy").returncode == 0
    assert len([path for path in home.iterdir() if path.is_dir() and path.name != "current"]) <= 2


def test_removing_takes_what_signs_and_leaves_what_containers_have(host: Host) -> None:
    host.apply()
    steps, stays = host.module.going()
    lines = [step.line for step in steps]
    assert lines[0] == "- ringfence-pki.timer stopped and disabled"
    assert f"- {host.module.SIGNER_KEY}" in lines
    assert "stays, with its key, for its container until " in stays[0]
    remove = host.module.remover(host.module.going)
    assert remove(["--dry"])["changes"] == lines
    assert host.module.SIGNER_KEY.exists()
    remove([])
    assert list(host.module.HOME.iterdir()) == []
    assert host.verify("caddy").returncode == 0
    assert remove([])["changes"] == []
    host.apply()
    host.settled()


def test_without_any_leaf_declared_everything_goes(host: Host) -> None:
    host.apply()
    host.variables["pki_leaves"] = []
    assert "- certificate caddy" in host.check()["changes"]
    host.apply()
    host.settled()
    assert list(host.module.HOME.iterdir()) == []
    assert list(host.module.LEAVES.iterdir()) == []


def test_before_openssl_is_installed_everything_is_pending(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.module, "has_openssl", lambda: False)
    assert host.check()["changes"][:2] == [
        "+ intermediate of atlas, signed by the root", "+ certificate caddy (caddy.lab.home)",
    ]  # fmt: skip


def test_what_the_controller_signs_for_another_key_or_by_another_root_is_not_taken(host: Host, root: Root) -> None:
    desired = host.desired()
    asks = host.module.apply(desired)["asks"]
    assert asks["names"] == ["caddy.lab.home"]
    for intermediate in ("", root.certificate):
        with pytest.raises(host.module.Fault, match="what the controller signed is not taken"):
            host.module.apply({**desired, "answer": {"intermediate": intermediate}})
    assert not host.module.SIGNER.exists()
