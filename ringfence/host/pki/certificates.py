"""Certificates as `openssl` reads, checks and signs them."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import secrets
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import make_directory, replace_file
from ringfence.host.kept import keep, recall
from ringfence.host.running import Fault, must, run, search_path

SCRATCH = Path("/run/ringfence")  # in memory: keys are made there
MOST = 256  # of which it is kept what they say: a host has some dozens
BACKDATED = 300  # seconds: clocks of a house differ
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
USAGES = {"server": "serverAuth", "client": "clientAuth"}
_PURPOSES = {"TLS Web Server Authentication": "server", "TLS Web Client Authentication": "client"}

Address = ipaddress.IPv4Network | ipaddress.IPv6Network


class Certificate(NamedTuple):
    """What counts of a certificate.

    Attributes:
        subject: its common name.
        since, until: seconds since the epoch.
        key: its public key, PEM.
        names, addresses: what it stands for.
        usage: "server", "client".
        authority: whether it may sign others.
        permitted, networks: what those may stand for; names, and addresses.
    """

    subject: str
    since: float
    until: float
    key: str
    names: frozenset[str]
    addresses: frozenset[str]
    usage: frozenset[str]
    authority: bool
    permitted: frozenset[str]
    networks: tuple[Address, ...]


def has_openssl() -> bool:
    """Whether there is anything that certificates can be read with: not before the role's package is installed."""
    return shutil.which("openssl", path=search_path()) is not None


def blocks(text: str) -> list[str]:
    """Return the certificates in a PEM text, each ending in a newline."""
    found = re.findall(f"{BEGIN}.*?{END}", text, re.S)
    return ["\n".join(line.strip() for line in one.splitlines()) + "\n" for one in found]


@functools.cache
def read_certificate(pem: str) -> Certificate:
    """Read a certificate; one that was read before costs nothing. Raises Fault: it is none."""
    known = recall("certificate", pem)
    if known is not None:
        return parsed(known.decode())
    extensions = "basicConstraints,nameConstraints,subjectAltName,extendedKeyUsage"
    out = must(
        "openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", "-dates", "-pubkey", "-ext", extensions,
        text=pem,
    )  # fmt: skip
    found = parsed(out)
    keep("certificate", pem, out.encode(), most=MOST)
    return found


def parsed(out: str) -> Certificate:
    """Read what `openssl x509` says of a certificate. Raises Fault: it says something else."""
    said = dict(re.findall(r"^(subject|notBefore|notAfter)=(.*)$", out, re.M))
    key = re.search(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", out, re.S)
    if len(said) != 3 or not key:
        raise Fault(f"`openssl x509` says something that cannot be read: {out[:200]}")
    parts = dict(re.findall(r"^X509v3 ([^:\n]+):[^\n]*\n((?:[ \t]+[^\n]*\n?)*)", out, re.M))
    permitted = re.search(r"Permitted:\n((?:[ \t]+(?:DNS|IP):[^\n]*\n?)*)", parts.get("Name Constraints", ""))
    inside = permitted[1] if permitted else ""
    others = parts.get("Subject Alternative Name", "")
    return Certificate(
        subject=str(said["subject"]).removeprefix("CN="),
        since=ssl.cert_time_to_seconds(said["notBefore"]),
        until=ssl.cert_time_to_seconds(said["notAfter"]),
        key=key[0] + "\n",
        names=frozenset(re.findall(r"DNS:([^\s,]+)", others)),
        addresses=frozenset(str(ipaddress.ip_address(one)) for one in re.findall(r"IP Address:([^\s,]+)", others)),
        usage=frozenset(use for words, use in _PURPOSES.items() if words in parts.get("Extended Key Usage", "")),
        authority="CA:TRUE" in parts.get("Basic Constraints", ""),
        permitted=frozenset(re.findall(r"DNS:(\S+)", inside)),
        networks=tuple(_network(one) for one in re.findall(r"IP:(\S+)", inside)),
    )


def _network(text: str) -> Address:
    """Read an address with its mask; Python takes no mask in words for IPv6."""
    address, _, mask = text.partition("/")
    length = bin(int(ipaddress.ip_address(mask))).count("1")
    return ipaddress.ip_network(f"{address}/{length}")


def verified(pem: str, chain: str, root: str, usage: Sequence[str] = ()) -> str:
    """Say why a certificate does not lead to a root; "" if it does."""
    key = repr((pem, chain, root, list(usage)))
    if recall("verified", key) is not None and _all_valid(pem, chain, root):
        return ""
    with scratch() as directory:
        for name, text in {"it": pem, "chain": chain, "root": root}.items():
            (directory / name).write_text(text)
        chained = ["-untrusted", str(directory / "chain")] if chain else []
        purpose = ["-purpose", "sslserver" if "server" in usage else "sslclient"] if usage else []
        done = run(
            "openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-attime", str(int(time.time())),
            *purpose, "-CAfile", str(directory / "root"), *chained, str(directory / "it"),
        )  # fmt: skip
    if not done.returncode:
        keep("verified", key, b"", most=MOST)
        return ""
    said = re.findall(r"^error .*?lookup: ?(.*)$", f"{done.stdout}\n{done.stderr}", re.M)
    return "; ".join(said) or done.stderr.strip() or f"openssl verify ends with {done.returncode}"


def _all_valid(*texts: str) -> bool:
    """Whether each certificate is within its time: nothing else can change about what they were found to say."""
    every = [read_certificate(one) for text in texts for one in blocks(text)]
    return all(one.since <= time.time() < one.until for one in every)


def new_key() -> str:
    """Make a private key, PEM."""
    return must("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def public_half(key: Path) -> str:
    """Return the public key of a private one, PEM; "" where there is none that can be read."""
    done = run("openssl", "pkey", "-in", str(key), "-pubout")
    return "" if done.returncode else done.stdout


def belongs(certificate: Path, key: Path) -> bool:
    """Whether a private key is that of the first certificate in a file; False where either cannot be read."""
    try:
        # A password would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError):
        return False
    return True


def signing_request(key: Path, subject: str) -> str:
    """Return a request for a signature, PEM."""
    return must("openssl", "req", "-new", "-sha256", "-key", str(key), "-subj", f"/CN={subject}")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory that only root can look into, gone afterwards."""
    make_directory(SCRATCH)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="pki-") as name:
        yield Path(name)


def forget_scratch() -> None:
    """Remove what a killed run has left in memory."""
    for path in SCRATCH.glob("pki-*"):
        shutil.rmtree(path, ignore_errors=True)


_CONFIGURATION = """\
[ca]
default_ca = us
[us]
database = {directory}/index
serial = {directory}/serial
new_certs_dir = {directory}
certificate = {signer}
private_key = {signer_key}
default_md = sha256
policy = any
email_in_dn = no
unique_subject = no
copy_extensions = none
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = {usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = @names
[names]
{names}
"""


def signed(
    signer: Path, signer_key: Path, key: str, subject: str, names: Sequence[str], addresses: Sequence[str],
    usage: Sequence[str], since: float, until: float,
) -> str:  # fmt: skip
    """Sign a leaf for a private key; returns its certificate, PEM.

    `openssl x509 -req` counts in days before OpenSSL 3.4; `openssl ca` has always counted in seconds.
    """
    with scratch() as directory:
        replace_file(directory / "key", key, 0o600)
        (directory / "index").touch()
        lines = [f"DNS.{n} = {name}" for n, name in enumerate(names)]
        lines += [f"IP.{n} = {address}" for n, address in enumerate(addresses)]
        text = _CONFIGURATION.format(
            directory=directory, signer=signer, signer_key=signer_key, names="\n".join(lines),
            usage=",".join(USAGES[one] for one in usage),
        )  # fmt: skip
        (directory / "configuration").write_text(text)
        (directory / "serial").write_text((secrets.randbits(158) or 1).to_bytes(20).hex())
        (directory / "request").write_text(signing_request(directory / "key", subject))
        must(
            "openssl", "ca", "-batch", "-notext", "-config", str(directory / "configuration"),
            "-startdate", _clock(since), "-enddate", _clock(until),
            "-in", str(directory / "request"), "-out", str(directory / "certificate"),
        )  # fmt: skip
        return blocks((directory / "certificate").read_text())[0]


def _clock(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))


def day(seconds: float) -> str:
    """Return a time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
