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
from ringfence.importing.casts import typed
from ringfence.importing.checked import check
from ringfence.importing.interpolate import fill, fill_all, filled, read_env, read_raw, unset_in
from ringfence.importing.problems import ComposeError
from ringfence.importing.syntax import Tagged, parse

_SECTIONS = ("networks", "volumes", "secrets", "configs")
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = tuple(f"{stem}.override.{end}" for stem in ("compose", "docker-compose") for end in ("yml", "yaml"))
DEEPEST = 20  # files that include or extend one another
# Without these it is not known what is meant: which file, network or volume, and how a service is connected.
_DECIDING = ("depends_on", "env_file", "extends", "links", "network_mode", "networks", "profiles", "secrets", "configs")
_DECIDING_OF_SECTIONS = ("driver", "environment", "external", "file", "internal", "name")


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
        beside: those that were not named and read all the same, as compose finds them itself.
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
    beside: list[Path] = field(default_factory=list)


def read(
    paths: Sequence[Path], *, name: str = "", profiles: Sequence[str] = (), env_files: Sequence[Path] = ()
) -> Project:
    """Read a project.

    The variables of this process are not used: they are the controller's, not those of the host's user.

    Args:
        paths: its files, the later laid over the earlier. A directory, and one file of a usual name alone, stand for
            what compose finds there: an override beside it, or what ``COMPOSE_FILE`` of its ``.env`` names.
        name: of the project; by default ``COMPOSE_PROJECT_NAME``, the files' ``name``, or the directory's.
        profiles: whose services are imported as well; ``*`` for all.
        env_files: in place of the ``.env`` beside the first file.

    Raises:
        ComposeError: a file cannot be read, or is none of compose's.
    """
    start = paths[0] if paths[0].is_dir() else paths[0].parent
    directory = start.resolve()
    default = directory / ".env"
    variables: dict[str, str] = {}
    for path in env_files or ([default] if default.is_file() else []):
        variables |= {key: value for key, value in read_env(path, variables).items() if value is not None}
    variables.setdefault("PWD", ".")
    named = list(paths)
    paths = _found(paths, variables)
    if name:
        variables["COMPOSE_PROJECT_NAME"] = name
    if not variables.get("COMPOSE_PROJECT_NAME"):  # the files may ask for it
        given = [parse(_text(path), path).get("name") for path in paths]
        chosen = [str(fill(str(one), variables, "name")) for one in given if one]
        variables["COMPOSE_PROJECT_NAME"] = _project_name(chosen[-1] if chosen else directory.name)
    reader = _Reader(directory)
    tree = reader.files(paths, variables, directory)
    _known(tree)
    services = {key: merge.plain(value) for key, value in tree["services"].items() if value is not None}
    wanted = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    resting = {
        key: [str(profile) for profile in one["profiles"]]
        for key, one in services.items()
        if one.get("profiles") and "*" not in wanted and not wanted & {str(p) for p in one["profiles"]}
    }
    if not services:
        raise ComposeError(
            f"{paths[0]}: it has no services (its version of 2014 had them at the top: put them under services:)"
        )
    project = Project(
        name=_project_name(variables["COMPOSE_PROJECT_NAME"]),
        directory=directory,
        services={key: one for key, one in services.items() if key not in resting},
        sections={section: merge.plain(tree[section]) for section in _SECTIONS},
        extensions=merge.plain(tree["rest"]),
        resting=resting,
        variables=variables,
        files=reader.read,
        beside=[path for path in paths if path not in named and path.parent not in named],
    )
    for key, one in project.services.items():
        one["environment"] = _environment(project, key, one)
        if not one["environment"]:
            del one["environment"]
    return project


def _known(tree: Mapping[str, Any]) -> None:
    """Refuse what cannot be understood because of a variable that is not set."""
    for section, keys in (("services", _DECIDING), *((one, _DECIDING_OF_SECTIONS) for one in _SECTIONS)):
        for name, given in merge.plain(tree[section]).items():
            for key in keys if isinstance(given, Mapping) else ():
                if unset := unset_in(given.get(key)):
                    raise ComposeError(
                        f"{section}.{name}.{key} needs {', '.join(unset)}, which is not set (write it into .env beside "
                        "the file, or name the file that has it: --env-file)"
                    )


def _project_name(text: str) -> str:
    return re.sub(r"^[_-]+", "", re.sub(r"[^a-z0-9_-]", "", text.lower())) or "imported"


def _found(paths: Sequence[Path], variables: Mapping[str, str]) -> list[Path]:
    """Return the files that are meant: with a directory or its usual file alone, those that compose finds there."""
    if len(paths) != 1:
        return [file for path in paths for file in (_found([path], {}) if path.is_dir() else [path])]
    [path] = paths
    where = path if path.is_dir() else path.parent
    separator = variables.get("COMPOSE_PATH_SEPARATOR") or ":"
    listed = [where / one for one in (variables.get("COMPOSE_FILE") or "").split(separator) if one]
    if listed and (path.is_dir() or path in listed):
        return listed
    usual = [where / name for name in _NAMES if (where / name).is_file()]
    if path.is_dir() and not usual:
        raise ComposeError(f"{path}: there is no compose file in it ({', '.join(_NAMES)})")
    if path not in (where, *usual[:1]):
        return [path]
    return [usual[0], *[where / name for name in _OVERRIDES if (where / name).is_file()][:1]]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ComposeError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ComposeError(f"{path}: it is not UTF-8") from None


class _Reader:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.read: list[Path] = []
        self.depth = 0

    def files(self, paths: Sequence[Path], variables: Mapping[str, str], base: Path) -> dict[str, Any]:
        """Lay files over each other; what is relative in any of them begins at one directory."""
        tree: dict[str, Any] = {"services": {}, "rest": {}, **{section: {} for section in _SECTIONS}}
        for path in paths:
            one = self.file(path, variables, base)
            for name, service in one["services"].items():
                if service is None:
                    tree["services"].pop(name, None)
                else:
                    tree["services"][name] = merge.services(tree["services"].get(name) or {}, service)
            for section in _SECTIONS:
                tree[section] = merge.trees(tree[section], one[section])
            tree["rest"] = {**tree["rest"], **one["rest"]}
        return tree

    def file(self, path: Path, variables: Mapping[str, str], base: Path) -> dict[str, Any]:
        """Read one file with what it includes; its services are what they extend, too.

        Args:
            path: of the file.
            variables: that it is filled in with.
            base: where its relative paths begin.
        """
        self.depth += 1
        if self.depth > DEEPEST:
            raise ComposeError(f"{path}: files include one another without an end")
        content = self._content(path, variables)
        given = _mapping(content.get("services"), f"{path}: services")
        gone = [name for name, one in given.items() if isinstance(one, Tagged) and one.tag == "reset"]
        services = {
            name: self._placed(forms.service(name, one.value if isinstance(one, Tagged) else one, str(path)), base)
            for name, one in given.items()
            if name not in gone
        }
        services = {name: self._extended(name, services, path, variables, (), base) for name in services}
        tree: dict[str, Any] = {"services": {**services, **dict.fromkeys(gone)}}
        for section in _SECTIONS:
            own = _mapping(content.get(section), f"{path}: {section}")
            tree[section] = {name: self._file_of(one, base) for name, one in own.items()}
        rest = {key: value for key, value in content.items() if key not in ("services", "include", *_SECTIONS)}
        tree["rest"] = rest
        for entry in forms.listed(content.get("include")):
            included = self._included(entry, path, variables, base)
            for section in ("services", *_SECTIONS):
                for name in sorted(set(included[section]) & set(tree[section])):
                    if included[section][name] != tree[section][name]:
                        raise ComposeError(f"{path}: {section}.{name} is also in an included file (compose refuses it)")
                tree[section] = {**included[section], **tree[section]}
        self.depth -= 1
        return tree

    def _content(self, path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        text = _text(path)
        if path not in self.read:
            self.read.append(path)
        content = typed(dict(fill_all(parse(text, path), variables, str(path))), str(path))
        check(content, str(path))
        return content

    def _included(self, entry: Any, path: Path, variables: Mapping[str, str], base: Path) -> dict[str, Any]:
        given = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
        paths = [base / str(one) for one in forms.listed(given.get("path"))]
        if not paths:
            raise ComposeError(f"{path}: an include names no path")
        own = base / str(given["project_directory"]) if given.get("project_directory") else paths[0].parent
        inner = dict(variables)
        default = own / ".env"
        for file in [base / str(one) for one in forms.listed(given.get("env_file"))] or (
            [default] if default.is_file() and default.resolve() != self.directory / ".env" else []
        ):
            more = read_env(file, inner)
            inner = {**{key: value for key, value in more.items() if value is not None}, **inner}
        found = self.files(paths, inner, paths[0].parent.resolve())
        if own.resolve() != paths[0].parent.resolve() and found != self.files(paths, inner, own.resolve()):
            # As of 2.26 compose takes the first file's own, its documentation says otherwise.
            raise ComposeError(
                f"{path}: its include of {paths[0].name} has relative paths and a project_directory, where releases of "
                "compose begin at different directories (write these paths whole, as `docker inspect` shows them)"
            )
        return found

    def _extended(
        self,
        name: str,
        services: Mapping[str, Any],
        path: Path,
        variables: Mapping[str, str],
        seen: tuple[Any, ...],
        base: Path,
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
            target = (base / str(file)).resolve()
            content = self._content(target, variables)
            given = _mapping(content.get("services"), f"{target}: services")
            base = target.parent  # of what is extended, and of what that extends
            known = {key: self._placed(forms.service(key, v, str(target)), base) for key, v in given.items()}
        else:
            target, known = path, dict(services)
        if other not in known:
            raise ComposeError(f"{path}: services.{name} extends '{other}', which {target} does not have")
        under = self._extended(other, known, target, variables, (*seen, here), base)
        return merge.services(under, {key: value for key, value in one.items() if key != "extends"})

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
        # What the files before it say comes first, then the project's variables, and last the service's own.
        stated = {key: str(value) for key, value in (service.get("environment") or {}).items() if value is not None}
        before = {key: value for key, value in found.items() if value is not None}
        raw = str(entry.get("format") or "") == "raw"
        found |= read_raw(path) if raw else read_env(path, {**stated, **project.variables, **before})
        if path not in project.files:
            project.files.append(path)
    own = service.get("environment") or {}
    found |= {
        key: value for key, value in own.items() if value is not None or key not in found or key in project.variables
    }
    for key, value in found.items():
        if value is None:
            known = project.variables.get(key)
            found[key] = filled(known or "", f"${{{key}}}", () if known is not None else (key,), (key,))
    return found
