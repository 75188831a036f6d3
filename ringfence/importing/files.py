"""Reads a compose project: its files laid over each other, with what they include and extend, and its ``.env``."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.importing import forms, merge
from ringfence.importing.interpolate import fill_all, filled, read_env
from ringfence.importing.problems import ComposeError
from ringfence.importing.syntax import Tagged, parse

_SECTIONS = ("networks", "volumes", "secrets", "configs")
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
DEEPEST = 20  # files that include or extend one another


@dataclass
class Project:
    """A compose project as compose would see it.

    Attributes:
        name: of the project, as its volumes and networks are called on the host.
        directory: of the first file; relative paths begin there.
        services: name → settings in their long forms.
        sections: networks, volumes, secrets and configs by name.
        extensions: other keys of the files, such as ``version`` and ``x-…``.
        resting: services of profiles that were not asked for → these profiles.
        missing: (service, path) of environment files that are not here.
        variables: what the ``.env`` files say.
        files: all that was read.
    """

    name: str
    directory: Path
    services: dict[str, dict[str, Any]]
    sections: dict[str, dict[str, Any]]
    extensions: dict[str, Any] = field(default_factory=dict)
    resting: dict[str, list[str]] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def read(
    paths: Sequence[Path], *, name: str = "", profiles: Sequence[str] = (), env_files: Sequence[Path] = ()
) -> Project:
    """Read a project.

    The variables of this process are not used: they are the controller's, not those of the host's user.

    Args:
        paths: its files, the later laid over the earlier; or a directory with one of a usual name.
        name: of the project; by default the files' ``name``, or the directory's.
        profiles: whose services are imported as well; ``*`` for all.
        env_files: in place of the ``.env`` beside the first file.

    Raises:
        ComposeError: a file cannot be read, or is none of compose's.
    """
    paths = [file for path in paths for file in _files_in(path)]
    directory = paths[0].parent.resolve()
    default = directory / ".env"
    variables: dict[str, str] = {}
    for path in env_files or ([default] if default.is_file() else []):
        variables |= {key: value for key, value in read_env(path, variables).items() if value is not None}
    variables.setdefault("PWD", ".")
    reader = _Reader(directory)
    tree = reader.files(paths, variables)
    services = {key: merge.plain(value) for key, value in tree["services"].items() if value is not None}
    wanted = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    resting = {
        key: [str(profile) for profile in one["profiles"]]
        for key, one in services.items()
        if one.get("profiles") and "*" not in wanted and not wanted & {str(p) for p in one["profiles"]}
    }
    chosen = str(name or tree["rest"].get("name") or variables.get("COMPOSE_PROJECT_NAME") or directory.name)
    project = Project(
        name=re.sub(r"^[_-]+", "", re.sub(r"[^a-z0-9_-]", "", chosen.lower())) or "imported",
        directory=directory,
        services={key: one for key, one in services.items() if key not in resting},
        sections={section: merge.plain(tree[section]) for section in _SECTIONS},
        extensions=merge.plain(tree["rest"]),
        resting=resting,
        variables=variables,
        files=reader.read,
    )
    for key, one in project.services.items():
        one["environment"] = _environment(project, key, one)
        if not one["environment"]:
            del one["environment"]
    return project


def _files_in(path: Path) -> list[Path]:
    """Return a file, or of a directory the one that compose takes, with what overrides it."""
    if path.is_dir():
        for name in _NAMES:
            if (path / name).is_file():
                stem = name.partition(".")[0]
                over = [path / f"{stem}.override.{end}" for end in ("yml", "yaml")]
                return [path / name, *[one for one in over if one.is_file()][:1]]
        raise ComposeError(f"{path}: there is no compose file in it ({', '.join(_NAMES)})")
    return [path]


class _Reader:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.read: list[Path] = []
        self.depth = 0

    def files(self, paths: Sequence[Path], variables: Mapping[str, str]) -> dict[str, Any]:
        """Lay files over each other."""
        tree: dict[str, Any] = {"services": {}, "rest": {}, **{section: {} for section in _SECTIONS}}
        for path in paths:
            one = self.file(path, variables)
            for name, service in one["services"].items():
                tree["services"][name] = merge.services(tree["services"].get(name) or {}, service)
            for section in _SECTIONS:
                tree[section] = merge.trees(tree[section], one[section])
            tree["rest"] = {**tree["rest"], **one["rest"]}
        return tree

    def file(self, path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        """Read one file with what it includes; its services are what they extend, too."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise ComposeError(f"{path}: files include one another without an end")
        content = self._content(path, variables)
        base = path.parent.resolve()
        services = {
            name: self._placed(forms.service(name, given, str(path)), base)
            for name, given in _mapping(content.get("services"), f"{path}: services").items()
        }
        services = {name: self._extended(name, services, path, variables, ()) for name in services}
        tree: dict[str, Any] = {"services": services}
        for section in _SECTIONS:
            given = _mapping(content.get(section), f"{path}: {section}")
            tree[section] = {name: self._file_of(one, base) for name, one in given.items()}
        rest = {key: value for key, value in content.items() if key not in ("services", "include", *_SECTIONS)}
        tree["rest"] = rest
        for entry in forms.listed(content.get("include")):
            included = self._included(entry, path, variables)
            for section in ("services", *_SECTIONS):
                for name in sorted(set(included[section]) & set(tree[section])):
                    if included[section][name] != tree[section][name]:
                        raise ComposeError(f"{path}: {section}.{name} is also in an included file (compose refuses it)")
                tree[section] = {**included[section], **tree[section]}
        self.depth -= 1
        return tree

    def _content(self, path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ComposeError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ComposeError(f"{path}: it is not UTF-8") from None
        if path not in self.read:
            self.read.append(path)
        return dict(fill_all(parse(text, path), variables, str(path)))

    def _included(self, entry: Any, path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        given = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
        paths = [path.parent / str(one) for one in forms.listed(given.get("path"))]
        if not paths:
            raise ComposeError(f"{path}: an include names no path")
        own = path.parent / str(given["project_directory"]) if given.get("project_directory") else paths[0].parent
        inner = dict(variables)
        default = own / ".env"
        for file in [path.parent / str(one) for one in forms.listed(given.get("env_file"))] or (
            [default] if default.is_file() and default.resolve() != self.directory / ".env" else []
        ):
            more = read_env(file, inner)
            inner = {**{key: value for key, value in more.items() if value is not None}, **inner}
        return self.files(paths, inner)

    def _extended(
        self, name: str, services: Mapping[str, Any], path: Path, variables: Mapping[str, str], seen: tuple[Any, ...]
    ) -> dict[str, Any]:
        one = services[name]
        extends = one.get("extends")
        if not extends:
            return dict(one)
        here = (str(path.resolve()), name)
        if here in seen:
            raise ComposeError(f"{path}: services.{name} extends itself")
        other, file = str(extends.get("service") or name), extends.get("file")
        if file:
            target = (path.parent / str(file)).resolve()
            content = self._content(target, variables)
            given = _mapping(content.get("services"), f"{target}: services")
            known = {key: self._placed(forms.service(key, v, str(target)), target.parent) for key, v in given.items()}
        else:
            target, known = path, dict(services)
        if other not in known:
            raise ComposeError(f"{path}: services.{name} extends '{other}', which {target} does not have")
        base = self._extended(other, known, target, variables, (*seen, here))
        return merge.services(base, {key: value for key, value in one.items() if key != "extends"})

    def _placed(self, service: dict[str, Any], base: Path) -> dict[str, Any]:
        """Say relative paths from the project's directory on: other files may lie elsewhere."""
        if base == self.directory:
            return service
        for mount in _of(service.get("volumes")):
            if mount.get("type") == "bind" and not str(mount.get("source")).startswith(("/", "~")):
                mount["source"] = self._relative(str(mount["source"]), base)
        for env in _of(service.get("env_file")):
            env["path"] = self._relative(str(env["path"]), base)
        return service

    def _file_of(self, one: Any, base: Path) -> Any:
        if isinstance(one, Mapping) and isinstance(one.get("file"), str) and base != self.directory:
            return {**one, "file": self._relative(one["file"], base)}
        return one

    def _relative(self, path: str, base: Path) -> str:
        if path.startswith("/"):
            return path
        moved = posixpath.normpath(posixpath.join(os.path.relpath(base, self.directory), path))
        return moved if moved.startswith("..") else f"./{moved}"


def _of(value: Any) -> list[dict[str, Any]]:
    return list((value.value if isinstance(value, Tagged) else value) or [])


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ComposeError(f"{where} is not a mapping")
    return {str(key): one for key, one in value.items()}


def _environment(project: Project, name: str, service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service's variables with those of its files; names alone are looked up as compose does."""
    found: dict[str, Any] = {}
    for entry in service.get("env_file") or []:
        path = project.directory / str(entry["path"])
        if not path.is_file():
            if entry.get("required", True):
                project.missing.append((name, str(entry["path"])))
            continue
        found |= read_env(path, project.variables)
        if path not in project.files:
            project.files.append(path)
    found |= service.get("environment") or {}
    for key, value in found.items():
        if value is None:
            known = project.variables.get(key)
            found[key] = filled(known or "", f"${{{key}}}", () if known is not None else (key,), (key,))
    return found
