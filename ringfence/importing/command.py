"""``python -m ringfence import docker-compose.yml …``: writes a part of the lab, and the vault that goes with it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ringfence.importing import written
from ringfence.importing.files import Project, read
from ringfence.importing.problems import ComposeError
from ringfence.importing.running import Running, ask
from ringfence.importing.translate import Imported, Wishes, translate
from ringfence.inventory.front import ROOT, InventoryError, lab_directory
from ringfence.inventory.labs import hosts_file
from ringfence.inventory.vault import encrypted
from ringfence.model.expand import ROLE_SERVICES
from ringfence.model.questions import asked


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m ringfence import",
        description="Write the services of compose files as a part of the lab (RINGFENCE_LAB says which), with "
        "questions for what the files do not tell. Nothing is changed on any host.",
        epilog="docs/import.md says what becomes of what.",
    )
    made.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="compose files; later ones change earlier ones"
    )
    made.add_argument("--host", default="", help="host of lab_hosts that runs it; needed where there are several")
    made.add_argument(
        "--from",
        dest="places",
        action="append",
        default=[],
        metavar="PLACE",
        help="place that may use the published ports, for all of them; otherwise each is a question",
    )
    made.add_argument("--directory", default="", help="where the files lie on the host, for paths that begin with ./")
    made.add_argument(
        "--running", action="store_true", help="ask the host over Ansible which images run, and where the files lie"
    )
    made.add_argument(
        "-p", "--project-name", default="", help="compose's name of the project, if the files do not say it"
    )
    made.add_argument("--profile", action="append", default=[], help="import the services of this profile too")
    made.add_argument(
        "--env-file", action="append", default=[], type=Path, help="in place of .env beside the first file"
    )
    made.add_argument("--group", default="", help="group whose group_vars/ get the files; by default all")
    made.add_argument(
        "--vault-id", action="append", default=[], metavar="LABEL@SOURCE", help="as ansible-vault takes it"
    )
    made.add_argument("--vault-password-file", default="", metavar="FILE", help="as ansible-vault takes it")
    return made  # fmt: skip


def main(arguments: list[str]) -> int:
    """Import compose files. Returns the exit status."""
    try:
        given = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    settings(given)
    try:
        said = run(given)
    except (ComposeError, InventoryError) as error:
        sys.stderr.write(f"ringfence import: {error}\n")
        return 1
    sys.stdout.write(said)
    return 0


def settings(given: argparse.Namespace) -> None:
    """Have ansible-core read the plain directory behind inventory.py, with the passwords that are named."""
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    os.environ["ANSIBLE_INVENTORY_ENABLED"] = "yaml"
    os.environ["ANSIBLE_VARS_ENABLED"] = "host_group_vars"
    if given.vault_id:
        os.environ["ANSIBLE_VAULT_IDENTITY_LIST"] = ",".join(given.vault_id)
    if given.vault_password_file:
        os.environ["ANSIBLE_VAULT_PASSWORD_FILE"] = given.vault_password_file


def run(given: argparse.Namespace) -> str:
    """Import what the command line says; returns what to tell.

    Raises:
        ComposeError, InventoryError: with what is in the way; nothing is written then.
    """
    directory = lab_directory()
    lab = declared(directory)
    project = read(given.files, name=given.project_name, profiles=given.profile, env_files=given.env_file)
    host = _host(given.host, lab)
    running = ask(hosts_file(directory), host, project.name) if given.running else Running()
    imported = translate(project, wishes(given, lab, host, running))
    folder = directory / "group_vars" / (given.group or "all")
    part, vault = folder / f"{imported.stack}.yml", folder / f"vault_{imported.stack}.yml"
    for path in (part, vault):
        if path.exists():
            raise ComposeError(
                f"{path} is there already, and is not overwritten (move it away, or choose another name: -p)"
            )
    if folder.with_suffix(".yml").is_file():
        raise ComposeError(
            f"{folder.with_suffix('.yml')} is a file: make it {folder}/main.yml, so that others fit beside it"
        )
    texts = {part: written.part(imported, ", ".join(path.name for path in project.files))}
    if imported.vault:
        plain = written.vault(imported.vault)
        # First: a part that refers to a vault which is not there would fail in other words.
        texts = {vault: encrypted(plain, directory, given.vault_id, given.vault_password_file), **texts}
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for path, text in texts.items():
            _write(path, text)
            made.append(path)
    except ComposeError:
        for path in made:  # one without the other would be in the way of the next import
            path.unlink()
        raise
    return _told(project, imported, list(texts), running)


def wishes(given: argparse.Namespace, lab: Mapping[str, Any], host: str, running: Running) -> Wishes:
    """Return what is known beside the files."""
    parts = [value for name, value in lab.items() if name.startswith("lab_part_") and isinstance(value, Mapping)]
    names = {"anywhere", "internet", "self", *ROLE_SERVICES}
    for kind in ("services", "hosts", "places", "vantages", "devices"):
        names |= {str(name) for name in lab.get(f"lab_{kind}") or {}}
    names |= {str(name) for part in parts for name in part.get("services") or {}}
    segments = {str(name) for name in lab.get("lab_segments") or {}}
    segments |= {str(name) for part in parts for name in part.get("segments") or {}}
    known = {"anywhere", *(["vpn"] if lab.get("lab_vpn") else []), *(str(one) for one in lab.get("lab_places") or {})}
    unknown = sorted(set(given.places) - known)
    if unknown:
        raise ComposeError(f"--from: '{unknown[0]}' is not one of lab_places ({', '.join(sorted(known))})")
    where = given.directory or running.directory
    if where and not where.startswith("/"):
        raise ComposeError(f"--directory: '{where}' is not an absolute path (write where the files lie on the host)")
    return Wishes(host, tuple(given.places), where, running.images, names, segments)


def declared(directory: Path) -> dict[str, Any]:
    """Return the lab as far as it is declared; it need not be whole yet."""
    from ringfence.inventory import source as ansible  # only now: it reads its settings when it is imported

    try:
        source = ansible.read(directory, hosts_file(directory), ROOT)
    except ansible.SourceError as error:
        raise InventoryError(str(error)) from error
    found: dict[str, Any] = {}
    for values in (*source.lazy.values(), *source.hosts.values()):
        found |= {name: value for name, value in values.items() if name.startswith("lab_")}
    return found


def _host(wanted: str, lab: Mapping[str, Any]) -> str:
    hosts = sorted(str(name) for name in lab.get("lab_hosts") or {})
    if wanted and hosts and wanted not in hosts:
        raise ComposeError(f"--host: '{wanted}' is not one of lab_hosts: {', '.join(hosts)}")
    if wanted or len(hosts) == 1:
        return wanted or hosts[0]
    raise ComposeError(
        f"which host runs it? Write --host NAME, one of lab_hosts: {', '.join(hosts) or 'none is declared'}"
    )


def _write(path: Path, text: str) -> None:
    """Write a new file for its owner only; nothing that is there is touched."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ComposeError(f"{path}: {error.strerror}") from None


def _told(project: Project, imported: Imported, paths: list[Path], running: Running) -> str:
    # As it is written: every question that a run will ask.
    count = len(list(asked(yaml.safe_load(yaml.safe_dump(_plain(imported.part))), "")))
    lines = [f"{path.name} was read as well, as compose does" for path in project.beside]
    lines += [f"written: {path}" for path in paths]
    lines.append(
        f"{len(project.services)} services, {len(imported.vault)} secrets in the vault, "
        f"{count} question{'' if count == 1 else 's'} to answer in the file; "
        "`python -m ringfence.inventory` lists those that are left"
    )
    for name in running.unpinned:
        lines.append(f"{name}: its image was made on the host and has no digest")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value
