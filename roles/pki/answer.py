"""Signs a host's intermediate, on the controller: the root's key is seen here and goes nowhere.

Stands alone (Python's ``cryptography``, which ansible-core has as well). Both engines call `answer` with what
``ringfence-pki`` asks on the host. A host may be anybody's: of what it asks, nothing but its public key is used.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = datetime.timedelta(minutes=5)
MAKE_ONE = "make a root with `python -m ringfence.pki DOMAIN`, which prints both"


class AnswerError(Exception):
    """It is not signed; the message names the variable and the fix, and holds no secret."""


def answer(asked: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, str]:
    """Sign the host's intermediate for exactly the names that its leaves are declared with.

    Args:
        asked: ``csr`` (PEM), ``host``, ``names`` and ``addresses``.
        variables: the role's.

    Returns:
        ``{"intermediate": PEM}``

    Raises:
        AnswerError: root and key do not fit, or the host asks for something that is not declared for it.
    """
    root, key = root_of(variables)
    csr = request_of(asked)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"ringfence intermediate {host_of(asked, variables)}")]
    )
    if csr.subject != subject:
        raise AnswerError(f"the host asks for '{csr.subject.rfc4514_string()}' instead of '{subject.rfc4514_string()}'")
    names, addresses = declared(variables)
    if set(asked.get("names") or []) != set(names) or set(asked.get("addresses") or []) != set(addresses):
        raise AnswerError("the host asks for other names than pki_leaves declares for it, so nothing is signed")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    until = min(now + datetime.timedelta(days=int(variables["pki_intermediate_days"])), root.not_valid_after_utc)
    if until <= now:
        raise AnswerError(f"pki_root ended on {root.not_valid_after_utc:%Y-%m-%d}: {MAKE_ONE}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATED, root.not_valid_before_utc))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(constraints(names, addresses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        .add_extension(authority(root), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return {"intermediate": certificate.public_bytes(serialization.Encoding.PEM).decode()}


def root_of(variables: Mapping[str, Any]) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the root that signs, the first one of pki_root, and its key."""
    given = {name: str(variables.get(name) or "").strip() for name in ("pki_root", "pki_root_key")}
    for name, text in given.items():
        if not text:
            raise AnswerError(f"{name} is empty, and this host needs a signature: {MAKE_ONE}; keep the key in a vault")
    try:
        root = x509.load_pem_x509_certificates(given["pki_root"].encode())[0]
    except ValueError:
        raise AnswerError(f"pki_root holds no certificate in PEM (-----BEGIN CERTIFICATE-----): {MAKE_ONE}") from None
    try:
        key = serialization.load_pem_private_key(given["pki_root_key"].encode(), password=None)
    except TypeError:
        raise AnswerError(
            "pki_root_key is encrypted with a password of its own: give it plain, it is the vault that encrypts it"
        ) from None
    except Exception:
        raise AnswerError(
            f"pki_root_key holds no private key in PEM (it is not shown): write it as a block scalar (|), or {MAKE_ONE}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AnswerError(f"pki_root_key is no ECDSA key: {MAKE_ONE}")
    if key.public_key() != root.public_key():
        raise AnswerError(
            "pki_root_key does not belong to pki_root (to its first certificate): give the two that were made together"
        )
    try:
        basic = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        basic = x509.BasicConstraints(ca=False, path_length=None)
    if not basic.ca or basic.path_length == 0:
        raise AnswerError(f"pki_root is no certificate that may sign an intermediate: {MAKE_ONE}")
    return root, key


def request_of(asked: Mapping[str, Any]) -> x509.CertificateSigningRequest:
    """Return the host's request, which proves that it has the key."""
    try:
        csr = x509.load_pem_x509_csr(str(asked["csr"]).encode())
        valid = csr.is_signature_valid
    except (KeyError, ValueError, InvalidSignature):
        valid = False
    if not valid:
        raise AnswerError("the host's request cannot be read, or its signature is wrong: nothing is signed")
    key = csr.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AnswerError("the host's request is for a key that is not ECDSA P-256: nothing is signed")
    return csr


def host_of(asked: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """Return the host's name: the declared one, or where none is, what it says itself."""
    name = str(variables.get("pki_host") or asked.get("host") or "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", name):
        raise AnswerError("pki_host: give the host a name of letters, digits, dots and dashes, at most 40 of them")
    return name


def declared(variables: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return every name and address of the host's leaves, all of them inside the domain."""
    domain, leaves = str(variables["pki_domain"]), list(variables.get("pki_leaves") or [])
    names = sorted({str(name) for leaf in leaves for name in leaf["names"]})
    addresses = sorted({str(ipaddress.ip_address(one)) for leaf in leaves for one in leaf.get("addresses") or []})
    outside = [name for name in names if name != domain and not name.endswith(f".{domain}")]
    if outside or not names:
        raise AnswerError(f"pki_leaves: {', '.join(outside) or 'no name'} is in the domain {domain} (pki_domain)")
    return names, addresses


def constraints(names: list[str], addresses: list[str]) -> x509.NameConstraints:
    """Return what the intermediate may sign for: these names, these addresses, nothing else."""
    networks = [x509.IPAddress(ipaddress.ip_network(address)) for address in addresses]
    everything = [x509.IPAddress(ipaddress.ip_network(network)) for network in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints(
        permitted_subtrees=[*(x509.DNSName(name) for name in names), *networks],
        # A kind of name that is not mentioned would be free.
        excluded_subtrees=None if networks else everything,
    )


def authority(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how a certificate names the root's key."""
    try:
        identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
