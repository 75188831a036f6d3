"""Secrets that are made on the host: once, and never sent.

The value is kept where no project's directory is, so that it outlives the project, as a volume does. The files that
containers mount are copies of it, and are compared with it as if it had been sent.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

from ringfence.host.files import make_directory, replace_file
from ringfence.host.running import Fault, must, run

STORE = Path("/var/lib/ringfence/stack/secrets")  # <project>/<name>, for root only
FOR_ALL = Path("/var/lib/ringfence")  # what stands beside it may be for others

HEX64, RSA2048 = "hex64", "rsa2048"
KINDS = {
    HEX64: re.compile(r"[0-9a-f]{64}"),
    RSA2048: re.compile(r"-----BEGIN PRIVATE KEY-----\n(?:[A-Za-z0-9+/=]+\n)+-----END PRIVATE KEY-----\n?"),
}
_RSA = ("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "PEM")


def generated(project: dict[str, Any]) -> dict[str, str]:
    """Return the secrets of a project that are made on the host, each with its kind."""
    return {str(s["name"]): str(s["generate"]) for s in project["secrets"] if s.get("generate")}


def has_openssl() -> bool:
    """Whether keys can be made here."""
    return run("openssl", "version").returncode == 0


def make_secret(kind: str) -> str:
    """Return a new value. Raises Fault where openssl is missing or fails."""
    if kind == HEX64:
        return secrets.token_hex(32)
    made = must(*_RSA, timeout=120)
    if not KINDS[RSA2048].fullmatch(made):
        raise Fault("`openssl genpkey` made something that is no private key in PKCS#8: install Debian's openssl")
    return made


def kept_secrets(project: str) -> dict[str, str]:
    """Return the values that are kept for a project, by name. Raises OSError."""
    if not (STORE / project).is_dir():
        return {}
    return {
        path.name: path.read_text(encoding="utf-8", errors="replace")
        for path in sorted((STORE / project).iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def keep_secret(project: str, name: str, value: str) -> None:
    """Keep a value: from now on every run finds this one, whenever it is killed."""
    make_directory(FOR_ALL)
    make_directory(STORE / project, 0o700)
    replace_file(STORE / project / name, value, 0o400)


def rotation(project: dict[str, Any]) -> dict[str, Any]:
    """Return what `rotate` needs to know of a project once it has been applied; {} where nothing was made on the host.

    Which of its secrets are of which kind ("": not made on the host), and which services read them in which way.
    """
    made = generated(project)
    if not made:
        return {}
    return {
        "secrets": {str(s["name"]): made.get(str(s["name"]), "") for s in project["secrets"]},
        "services": [
            {
                "name": s["name"], "secrets": list(s["secrets"]), "config": sorted(s["config"]), "reload": s["reload"],
            }
            for s in project["services"]
            if made.keys() & set(s["secrets"])
        ],
    }  # fmt: skip
