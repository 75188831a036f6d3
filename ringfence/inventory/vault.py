"""``python -m ringfence.inventory.vault DIRECTORY``: encrypts for the user's own Ansible vault, in its own process.

The plain text comes on standard input and leaves encrypted; it is never on disk or in a command line. ansible-core
sets up vault passwords once in a process, and the one that asks has read the inventory with them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ringfence.inventory.front import ROOT, InventoryError


def encrypted(text: str, directory: Path, vault_ids: Sequence[str] = (), password_file: str = "") -> str:
    """Return a text, encrypted as ``ansible-vault encrypt`` would.

    Args:
        text: to be encrypted.
        directory: the inventory, whose ``.vault-password`` counts as well.
        vault_ids: ``LABEL@SOURCE``, as ``ansible-vault --vault-id`` takes them; the first encrypts.
        password_file: a file with the password, or a program that prints it.

    Raises:
        InventoryError: there is no password, or several and none was named.
    """
    words = [f"--vault-id={one}" for one in vault_ids]
    words += [f"--vault-password-file={password_file}"] if password_file else []
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.inventory.vault", *words, str(directory)],
        input=text,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.startswith("$ANSIBLE_VAULT;"):
        raise InventoryError(done.stderr.strip() or f"{directory}: the vault could not be used")
    return done.stdout


def _encrypt(text: str, directory: Path, vault_ids: Sequence[str], password_file: str) -> str:
    from ansible import constants
    from ansible.cli import CLI  # first: it checks the locale and sets up the output streams
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.vault import VaultLib, match_encrypt_secret

    from ringfence.inventory.source import VAULT_PASSWORD

    identities = [*vault_ids, *(constants.DEFAULT_VAULT_IDENTITY_LIST or [])]
    own = directory / VAULT_PASSWORD
    if own.exists():
        identities.append(f"{constants.DEFAULT_VAULT_IDENTITY}@{own}")
    files = [password_file] if password_file else []
    secrets = CLI.setup_vault_secrets(DataLoader(), identities, vault_password_files=files, auto_prompt=False)
    if not secrets:
        raise InventoryError(
            f"{directory}: there is no vault password, and secrets are not written in plain text "
            f"(put it into {own}, or name a file: --vault-password-file FILE)"
        )
    first = vault_ids[0].partition("@")[0] if vault_ids and "@" in vault_ids[0] else None
    name, secret = match_encrypt_secret(secrets, encrypt_vault_id=first or constants.DEFAULT_VAULT_ENCRYPT_IDENTITY)
    label = None if name == constants.DEFAULT_VAULT_IDENTITY else name
    sealed: bytes = VaultLib(secrets).encrypt(text, secret=secret, vault_id=label)
    return sealed.decode() + "\n"


def main(words: list[str]) -> int:
    """Encrypt what comes on standard input. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.inventory.vault", description="Encrypt for a vault.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vault-id", action="append", default=[])
    parser.add_argument("--vault-password-file", default="")
    given = parser.parse_args(words)
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    try:
        sys.stdout.write(_encrypt(sys.stdin.read(), given.directory, given.vault_id, given.vault_password_file))
    except InventoryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Exception as error:  # ansible-core has many kinds; none of their messages has the text or the password
        sys.stderr.write(f"{given.directory}: the vault cannot be used: {' '.join(str(error).split())}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
