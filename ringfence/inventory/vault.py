"""Encrypts for the user's own Ansible vault. The plain text is in this process's memory and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ansible import constants
from ansible.cli import CLI  # first: it checks the locale and sets up the output streams
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, match_encrypt_secret

from ringfence.inventory.source import VAULT_PASSWORD, SourceError


def encrypted(text: str, directory: Path, vault_ids: Sequence[str] = (), password_file: str = "") -> str:
    """Return a text, encrypted as ``ansible-vault encrypt`` would.

    Args:
        text: to be encrypted.
        directory: the inventory, whose ``.vault-password`` counts as well.
        vault_ids: ``LABEL@SOURCE``, as ``ansible-vault --vault-id`` takes them; the first encrypts.
        password_file: a file with the password, or a program that prints it.

    Raises:
        SourceError: there is no password, or several and none was named.
    """
    identities = [*vault_ids, *(constants.DEFAULT_VAULT_IDENTITY_LIST or [])]
    own = directory / VAULT_PASSWORD
    if own.exists():
        identities.append(f"{constants.DEFAULT_VAULT_IDENTITY}@{own}")
    first = vault_ids[0].partition("@")[0] if vault_ids and "@" in vault_ids[0] else None
    try:
        secrets = CLI.setup_vault_secrets(
            DataLoader(),
            vault_ids=identities,
            vault_password_files=[password_file] if password_file else [],
            auto_prompt=False,
        )
        if not secrets:
            raise SourceError(
                f"{directory}: there is no vault password, and secrets are not written in plain text "
                f"(put it into {own}, or name a file: --vault-password-file FILE)"
            )
        chosen = first or constants.DEFAULT_VAULT_ENCRYPT_IDENTITY
        name, secret = match_encrypt_secret(secrets, encrypt_vault_id=chosen)
        label = None if name == constants.DEFAULT_VAULT_IDENTITY else name
        sealed: bytes = VaultLib(secrets).encrypt(text, secret=secret, vault_id=label)
        return sealed.decode() + "\n"
    except AnsibleError as error:
        raise SourceError(f"{directory}: the vault cannot be used: {' '.join(str(error).split())}") from error
