"""The one module that knows ansible-core's insides: an inventory directory to resolved variables.

ansible-core calls this interface internal; the tests in tests/parity compare the result with ansible's own programs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.cli import CLI  # first: it checks the locale and sets up the output streams
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import AnsibleVaultError
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ringfence.inventory.pure import is_pure
from ringfence.inventory.wellformed import problems

# What Ansible adds itself, for every play anew.
MAGIC = frozenset(
    {
        "ansible_check_mode",
        "ansible_config_file",
        "ansible_diff_mode",
        "ansible_facts",
        "ansible_forks",
        "ansible_inventory_sources",
        "ansible_limit",
        "ansible_playbook_python",
        "ansible_run_tags",
        "ansible_skip_tags",
        "ansible_verbosity",
        "ansible_version",
        "environment",
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "omit",
        "playbook_dir",
        "vars",
    }
)
# Those of them that the inventory's files decide as well.
_SETTLED = {
    "group_names", "groups", "hostvars", "inventory_dir", "inventory_file", "inventory_hostname",
    "inventory_hostname_short", "omit",
}  # fmt: skip
VOLATILE = MAGIC - _SETTLED
VAULT_PASSWORD = ".vault-password"  # noqa: S105 - the name of a file


class SourceError(Exception):
    """The inventory cannot be read; the message names the file and the fix."""


class Loader(DataLoader):  # type: ignore[misc]
    """Reads files as Ansible does, and sees their text, decrypted.

    Attributes:
        problems: what YAML reads otherwise than it was meant: one line each, with file and line.
    """

    def __init__(self, beside: Path) -> None:
        """`beside`: the directory from which paths are shown."""
        super().__init__()
        self._beside = beside
        self.problems: list[str] = []

    def load(self, data: str, file_name: str | None = None, *words: Any, **more: Any) -> Any:
        path = Path(file_name or "")
        shown = path.relative_to(self._beside) if path.is_relative_to(self._beside) else path
        found = [f"{shown}: {problem}" for problem in problems(str(data))]
        self.problems += found
        # Nothing is worked out from it, and what contains itself would never end.
        return {} if found else super().load(data, file_name, *words, **more)

    def must_be_well_formed(self) -> None:
        """Raises SourceError with all that was found so far."""
        if self.problems:
            raise SourceError("\n".join(dict.fromkeys(self.problems)))


@dataclass(frozen=True)
class Source:
    """An inventory as Ansible sees it.

    Attributes:
        groups: group → names of its own hosts and of its child groups.
        hosts: host → variable → value, fully templated and decrypted, plain builtins.
        lazy: host → variable → value as written, where templating failed (it needs facts, for instance).
        errors: host → variable → why templating failed.
        pure: whether all of it follows from the inventory's files alone (`ringfence.inventory.pure`).
    """

    groups: Mapping[str, Mapping[str, list[str]]]
    hosts: Mapping[str, Mapping[str, Any]]
    lazy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pure: bool = False


def read(directory: Path, hosts_file: Path, root: Path) -> Source:
    """Read an inventory.

    Args:
        directory: the inventory directory; holds ``group_vars/``, ``host_vars/`` and perhaps ``.vault-password``.
        hosts_file: the file with hosts and groups.
        root: directory whose ``group_vars/`` and ``host_vars/`` count as those beside the playbook.

    Raises:
        SourceError: something cannot be read or decrypted.
    """
    try:
        return _read(directory, hosts_file, root)
    except AnsibleError as error:
        raise SourceError(explain(error, directory)) from error


def _read(directory: Path, hosts_file: Path, root: Path) -> Source:
    loader = Loader(root)
    loader.set_basedir(str(root))
    identities = list(constants.DEFAULT_VAULT_IDENTITY_LIST or [])
    elsewhere = bool(identities or constants.DEFAULT_VAULT_PASSWORD_FILE)
    password = directory / VAULT_PASSWORD
    if password.exists():
        identities.append(f"{constants.DEFAULT_VAULT_IDENTITY}@{password}")
    loader.set_vault_secrets(_vault_secrets(loader, identities))
    _well_formed(loader, hosts_file)
    inventory = InventoryManager(loader=loader, sources=[str(hosts_file)])
    manager = VariableManager(loader=loader, inventory=inventory)
    HostVars(inventory, manager, loader)  # registers itself: without it `hostvars` is undefined
    values: dict[str, dict[str, Any]] = {}
    lazy: dict[str, dict[str, Any]] = {}
    errors: dict[str, dict[str, str]] = {}
    pure = not elsewhere and not os.access(password, os.X_OK)
    raws = {host.name: manager.get_vars(host=host, include_hostvars=True) for host in inventory.get_hosts()}
    loader.must_be_well_formed()
    for host, raw in raws.items():
        templar = Templar(loader=loader, variables=raw)
        values[host] = {}
        for name, value in raw.items():
            if name in MAGIC:
                continue
            pure = pure and is_pure(plain(value), VOLATILE)
            try:
                values[host][str(name)] = plain(templar.template(value))
            except AnsibleError as error:
                if _is_vault(error):
                    raise
                lazy.setdefault(host, {})[str(name)] = plain(value)
                errors.setdefault(host, {})[str(name)] = _why(templar, value, error)
    return Source(_groups(inventory), values, lazy, errors, pure)


def _vault_secrets(loader: Any, identities: list[str]) -> Any:
    """Read the vault passwords; a warning that is followed by an error would only say the same twice."""
    with contextlib.redirect_stderr(io.StringIO()) as warnings:
        secrets = CLI.setup_vault_secrets(loader, vault_ids=identities, auto_prompt=False)
    sys.stderr.write(warnings.getvalue())
    return secrets


def _well_formed(loader: Loader, hosts_file: Path) -> None:
    """Ansible only warns about a hosts file that it cannot parse, and goes on without hosts."""
    data = loader.load_from_file(str(hosts_file))
    loader.must_be_well_formed()
    if not isinstance(data, Mapping) or not data:
        raise AnsibleError(f"{hosts_file} has no groups (write 'all: {{hosts: {{atlas: {{ansible_host: …}}}}}}')")
    for name, group in data.items():
        if group is not None and not isinstance(group, Mapping):
            raise AnsibleError(f"{hosts_file}: the group '{name}' is not a mapping (write hosts:, children:, vars:)")
        for key in group or {}:
            if key not in ("hosts", "children", "vars"):
                raise AnsibleError(f"{hosts_file}: '{key}' in the group '{name}' (write hosts:, children: or vars:)")


def _groups(inventory: Any) -> dict[str, dict[str, list[str]]]:
    return {
        str(name): {
            "hosts": [str(host.name) for host in group.hosts],
            "children": [str(child.name) for child in group.child_groups],
        }
        for name, group in inventory.groups.items()
    }


def plain(value: Any) -> Any:
    """Return the value without Ansible's tags: only dict, list, str, int, float, bool and None."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)  # strings, dates; a vaulted string decrypts itself here


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _is_vault(error: BaseException) -> bool:
    return any(isinstance(cause, AnsibleVaultError) for cause in _causes(error))


def _why(templar: Any, value: Any, error: BaseException) -> str:
    """Say which texts in a value cannot be worked out, where they stand, and why; none of what is around them."""
    found = []
    for where, text in _texts(value):
        try:
            templar.template(text)
        except AnsibleError as fault:
            key = f"{where}: " if where else ""
            found.append(f"{_origin(fault)}{key}{_one_line(fault)}{_expressions(text)}{_hint(fault)}")
    return "; ".join(found) or _one_line(error)


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every text in a value, with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{where}[{number}]")
    elif isinstance(value, str):
        yield where, value


def _hint(fault: BaseException) -> str:
    """What may be meant for an application is a template to Ansible as well."""
    wrong = str(fault).lower().startswith("syntax error")
    return " (write !unsafe in front of the text if its braces are the application's)" if wrong else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _expressions(value: Any) -> str:
    """Return the template expressions of a value for a message, without the text around them: it may be secret."""
    found = re.findall(r"{{.*?}}", str(value), re.DOTALL) if isinstance(value, str) else []
    return f" in {' '.join(found)}" if found else ""


def _origin(error: BaseException) -> str:
    """Return "file:line: ", where ansible-core knows it and does not say so in its message."""
    for cause in _causes(error):
        context = str(getattr(cause, "_formatted_source_context", None) or "")
        found = re.search(r"^Origin: (\S+?:\d+)", context, re.MULTILINE)
        if found and found[1].partition(":")[0] not in str(error):
            return f"{found[1]}: "
    return ""


def explain(error: BaseException, directory: Path) -> str:
    """Return one line about an error of ansible-core; for vault errors with the ways to give the password."""
    text = _origin(error) + _one_line(error)
    if _is_vault(error) or "vault" in text.lower():
        return (
            f"{directory}: a vaulted value cannot be decrypted: {text} (put the password into "
            f"{directory / VAULT_PASSWORD}, or name a file with it in ANSIBLE_VAULT_PASSWORD_FILE)"
        )
    return text
