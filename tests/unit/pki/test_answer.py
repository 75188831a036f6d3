"""What the controller signs, and what it does not; and the root that it is signed with."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ringfence import pki
from ringfence.answering import AnswerError, answered
from ringfence.pki import Root, as_yaml, make_root
from tests.unit.pki.conftest import ANSWER, leaf

REPOSITORY = Path(__file__).resolve().parents[3]


def csr(subject: str = "ringfence intermediate atlas", key: Any = None, tampered: bool = False) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    evil = x509.SubjectAlternativeName([x509.DNSName("google.com")])
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(evil, critical=False)
        .sign(key, hashes.SHA256())
    )
    if tampered:
        raw = bytearray(made.public_bytes(serialization.Encoding.DER))
        raw[raw.index(b"atlas")] ^= 0x20  # another subject under the same signature
        made = x509.load_der_x509_csr(bytes(raw))
    return made.public_bytes(serialization.Encoding.PEM).decode()


def asked(**changes: Any) -> dict[str, Any]:
    return {"csr": csr(), "host": "atlas", "names": ["caddy.lab.home"], "addresses": [], **changes}


def variables(root: Root, **changes: Any) -> dict[str, Any]:
    return {
        "pki_host": "atlas", "pki_domain": "lab.home", "pki_root": root.certificate, "pki_root_key": root.key,
        "pki_intermediate_days": 365, "pki_leaves": [leaf("caddy")], **changes,
    }  # fmt: skip


def signed(root: Root, **changes: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(
        answered(ANSWER, asked(), variables(root, **changes))["intermediate"].encode()
    )


def test_nothing_of_a_request_but_its_key_is_taken(root: Root) -> None:
    found = signed(root)
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    limits = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [one.value for one in limits.value.permitted_subtrees or []] == ["caddy.lab.home"]
    with pytest.raises(x509.ExtensionNotFound):
        found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days in (364, 365)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(root.certificate.encode()))


def test_an_intermediate_ends_with_its_root_at_the_latest(root: Root) -> None:
    end = x509.load_pem_x509_certificate(root.certificate.encode()).not_valid_after_utc
    assert signed(root, pki_intermediate_days="9999").not_valid_after_utc == end


def test_the_first_root_signs(root: Root) -> None:
    newer = make_root("lab.home")
    assert signed(newer, pki_root=newer.certificate + root.certificate).issuer
    with pytest.raises(AnswerError, match="does not belong to pki_root"):
        signed(newer, pki_root=root.certificate + newer.certificate)


def test_a_wrong_or_missing_key_names_the_variable_and_the_fix_and_no_secret(root: Root) -> None:
    other = make_root("lab.home")
    locked = serialization.load_pem_private_key(root.key.encode(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    strange = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cases = {
        "": "pki_root_key is empty, and this host needs a signature: make a root",
        "hunter2": "pki_root_key holds no private key in PEM",
        root.key[:120]: "write it as a block scalar",
        other.key: "pki_root_key does not belong to pki_root",
        locked.decode(): "pki_root_key is encrypted with a password of its own",
        strange.decode(): "pki_root_key is no ECDSA key",
    }
    for given, said in cases.items():
        with pytest.raises(AnswerError) as caught:
            signed(root, pki_root_key=given)
        assert str(caught.value).startswith("role pki: pki_root_key")
        assert said in str(caught.value)
        assert not [line for line in given.splitlines() if line and line in str(caught.value)]
    for given, said in {"": "pki_root is empty", "x": "pki_root holds no certificate"}.items():
        with pytest.raises(AnswerError, match=said):
            signed(root, pki_root=given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ["caddy.lab.home", "vault.lab.home"]}, "other names than pki_leaves declares"),
        ({"addresses": ["192.168.1.1"]}, "other names than pki_leaves declares"),
        ({"csr": csr("ringfence intermediate zeus")}, "asks for 'CN=ringfence intermediate zeus' instead of"),
        ({"csr": csr(tampered=True)}, "its signature is wrong"),
        ({"csr": "hello"}, "cannot be read"),
        ({"csr": csr(key=rsa.generate_private_key(65537, 2048))}, "not ECDSA P-256"),
        ({"csr": csr(key=ec.generate_private_key(ec.SECP384R1()))}, "not ECDSA P-256"),
    ],
)
def test_a_host_gets_nothing_but_what_is_declared_for_it(root: Root, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        answered(ANSWER, asked(**changes), variables(root))


def test_a_name_outside_of_the_domain_is_not_signed(root: Root) -> None:
    with pytest.raises(AnswerError, match=r"pki_leaves: google\.com is .*outside|pki_leaves: google\.com"):
        answered(ANSWER, asked(names=["google.com"]), variables(root, pki_leaves=[leaf("caddy", "google.com")]))


def test_a_host_without_a_declared_name_says_its_own(root: Root) -> None:
    given = variables(root, pki_host="")
    assert answered(ANSWER, asked(), given)["intermediate"]
    with pytest.raises(AnswerError, match="pki_host"):
        answered(ANSWER, asked(host="x\ny"), given)


def test_an_error_of_the_file_itself_says_no_words_that_may_hold_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "answer.py"
    path.parent.mkdir()
    path.write_text("def answer(asked, variables):\n    raise RuntimeError(variables['key'])\n")
    with pytest.raises(AnswerError, match=r"role tiny: an error in .*: RuntimeError$"):
        answered(path, {}, {"key": "hunter2"})
    path.write_text("import no_such_module_here\n")
    with pytest.raises(AnswerError, match="pip install no_such_module_here"):
        answered(path, {}, {})


# -- the root


def test_a_root_is_for_its_domain_and_private_addresses_only(root: Root) -> None:
    found = x509.load_pem_x509_certificate(root.certificate.encode())
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 1)
    limits = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    values = [str(one.value) for one in limits.value.permitted_subtrees or []]
    assert values == ["lab.home", *pki.PRIVATE]
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 3650
    assert "lab.home" in found.subject.rfc4514_string()


@pytest.mark.parametrize(
    "domain", ["home", "Lab.home", "lab.home.", "*.lab.home", "lab home", "-x.home", "a" * 40 + ".home"]
)
def test_what_is_no_domain_gets_no_root(domain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.main([domain]) == (2 if domain.startswith("-") else 1)
    assert capsys.readouterr().out == ""


def test_the_command_prints_a_vault_file_and_says_how_to_encrypt_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.pki", "lab.home"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = yaml.safe_load(done.stdout)
    assert set(found) == {"vault_lab_ca_certificate", "vault_lab_ca_key"}
    made = Root(found["vault_lab_ca_certificate"], found["vault_lab_ca_key"])
    assert signed(made)
    assert yaml.safe_load(as_yaml(made)) == found
    assert "ansible-vault encrypt" in done.stderr
    assert "PRIVATE" not in done.stderr


def test_the_command_shows_the_certificate_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Root
) -> None:
    hosts: dict[str, Any] = {"zeus": {}, "atlas": {"pki_root": root.certificate, "pki_root_key": root.key}}
    monkeypatch.setenv("RINGFENCE_LAB", "example")
    monkeypatch.setattr(pki, "load", lambda _: {"hosts": hosts})
    assert pki.main(["show"]) == 0
    assert capsys.readouterr().out == root.certificate
    hosts["atlas"] = {}
    assert pki.main(["show"]) == 1
    assert "no host has a root" in capsys.readouterr().err
