"""``python -m ringfence.pki DOMAIN``: makes the lab's root, for a vault. ``… show``: prints the certificate alone.

The root may sign for names below its domain and for private addresses only, so that a stolen key or a mistake cannot
stand for anybody else's site on the devices that trust it. Its key is seen here and by the engines on this machine.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import sys
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.inventory.front import SETTING, InventoryError, lab_directory, load

YEARS = 10
BACKDATED = datetime.timedelta(minutes=5)
# Of nobody in particular: RFC 1918, shared address space, unique local addresses.
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
DOMAIN = re.compile(r"(?=.{1,40}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?")
USAGE = "usage: python -m ringfence.pki DOMAIN | show     (DOMAIN as in lab_domain: lab.home)"
HOW_TO_KEEP = """\
The key signs for every name below {domain}: it belongs into a vault and nowhere else. Without a plain file in between:

  python -m ringfence.pki {domain} | ansible-vault encrypt --output inventories/LAB/group_vars/all/vault_ca.yml

Then, beside it:  lab_ca: {{certificate: "{{{{ vault_lab_ca_certificate }}}}", key: "{{{{ vault_lab_ca_key }}}}"}}
A second call makes another root. docs/tls.md says how devices are told of it.
"""


class Root(NamedTuple):
    """A root's certificate and its key, both PEM."""

    certificate: str
    key: str


def make_root(domain: str, now: datetime.datetime | None = None) -> Root:
    """Make a root: ECDSA P-256, ten years, one level of intermediates, for names below the domain only.

    Raises:
        ValueError: that is no domain; the message says what one looks like.
    """
    if not DOMAIN.fullmatch(domain):
        raise ValueError(
            f"'{domain}' is no domain: write it in lower case, with a dot, at most 40 characters (lab.home)"
        )
    begun = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0) - BACKDATED
    key = ec.generate_private_key(ec.SECP256R1())
    # With the year: after a rotation devices list two of them.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ringfence root {domain} {begun:%Y}")])
    permitted = [x509.DNSName(domain), *(x509.IPAddress(ipaddress.ip_network(network)) for network in PRIVATE)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begun)
        .not_valid_after(begun + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return Root(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def as_yaml(root: Root) -> str:
    """Return the text of a vault file."""
    parts = {"vault_lab_ca_certificate": root.certificate, "vault_lab_ca_key": root.key}
    return "---\n" + "".join(
        f"{name}: |\n" + "".join(f"  {line}\n" for line in text.splitlines()) for name, text in parts.items()
    )


def shown() -> str:
    """Return the certificate of the root that the lab of RINGFENCE_LAB uses.

    Raises:
        InventoryError: the inventory cannot be read, or has none.
    """
    directory = lab_directory()
    for variables in load(directory)["hosts"].values():
        given = variables.get("pki_root") or (variables.get("lab_ca") or {}).get("certificate")
        if given:
            return str(given).strip() + "\n"
    raise InventoryError(
        f"{directory}: no host has a root (pki_root; {SETTING} chooses the lab). "
        "Make one: python -m ringfence.pki DOMAIN"
    )


def main(words: list[str]) -> int:
    """Make a root or show the certificate of the lab's; returns the exit status."""
    if len(words) != 1 or words[0].startswith("-"):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    try:
        if words[0] == "show":
            sys.stdout.write(shown())
            return 0
        text = as_yaml(make_root(words[0]))
    except (ValueError, InventoryError) as error:
        sys.stderr.write(f"ringfence.pki: {error}\n")
        return 1
    sys.stdout.write(text)
    sys.stderr.write(HOW_TO_KEEP.format(domain=words[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
