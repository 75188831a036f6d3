"""A role as pyinfra sees it: its documented variables, and what it wants on a host.

``roles/<role>/deploy.py`` states what is wanted as data (`Wanted`); the operations that bring it about are the same
for every role. Being data, the wishes of all roles can be compared with a host in one round trip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ringfence.argument_specs import ArgumentError, validate
from ringfence.render import render

Variables = dict[str, Any]


class RoleError(Exception):
    """A role was given variables that it does not take; the message names the variable, the value and the fix."""


@dataclass(frozen=True)
class File:
    """A file on the host, with its content.

    Attributes:
        path: absolute path; missing parent directories are made with mode 0755.
        content: the text.
        mode: octal permission bits.
        user, group: owner names.
    """

    path: str
    content: str
    mode: str = "0644"
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class Program:
    """A role's host-side program and the state that it is asked to bring about.

    Attributes:
        name: file name of the program in the role's ``files/`` and in ``/usr/local/sbin`` of the host.
        desired: what the program reads on standard input; may hold secrets, is never logged.
        guarded: whether applying can cut off the controller, so that it needs the role ``guard``'s window.
    """

    name: str
    desired: Mapping[str, Any]
    guarded: bool = False


@dataclass(frozen=True)
class Wanted:
    """Everything that a role wants on a host."""

    program: Program
    packages: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


class Role:
    """The folder of a role: ``defaults/``, ``meta/``, ``templates/`` and ``files/`` beside its ``deploy.py``."""

    def __init__(self, deploy_file: str) -> None:
        self.directory = Path(deploy_file).resolve().parent
        self.name = self.directory.name

    def file(self, name: str) -> str:
        """Return the text of ``files/<name>``."""
        return (self.directory / "files" / name).read_text(encoding="utf-8")

    def render(self, template: str, variables: Mapping[str, object]) -> str:
        """Render ``templates/<template>``; raises `ringfence.render.RenderError`."""
        return render(self.directory / "templates" / template, variables)

    def render_json(self, template: str, variables: Mapping[str, object]) -> Variables:
        """Render ``templates/<template>`` and read it as a JSON object.

        Raises:
            RoleError: the rendered text is not JSON.
        """
        text = self.render(template, variables)
        try:
            desired: Variables = json.loads(text)
        except json.JSONDecodeError as error:
            raise RoleError(f"role {self.name}: templates/{template} does not render to JSON: {error}") from error
        return desired

    @cached_property
    def defaults(self) -> Variables:
        """The role's variables with their defaults."""
        return dict(yaml.safe_load((self.directory / "defaults" / "main.yml").read_text(encoding="utf-8")) or {})

    @cached_property
    def _options(self) -> dict[str, Any]:
        text = (self.directory / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
        return dict(yaml.safe_load(text)["argument_specs"]["main"].get("options") or {})

    def variables(self, given: Mapping[str, Any]) -> Variables:
        """Complete the given variables with the role's defaults and check them against its argument_specs.

        Args:
            given: any variables; only those that the role documents are looked at.

        Raises:
            RoleError: a variable has the wrong type or a value that is not among the choices.
        """
        merged = {name: given.get(name, default) for name, default in self.defaults.items()}
        try:
            return validate(self._options, merged)
        except ArgumentError as error:
            raise RoleError(
                f"role {self.name}: {error} (every variable is described in roles/{self.name}/README.md)"
            ) from error

    def converge(self, wanted: Callable[[Variables], Wanted]) -> None:
        """Add the operations that bring about what the role wants on pyinfra's current host."""
        # Not at the top: templates, the compiler and the tests use roles without pyinfra's runtime.
        from ringfence.operations.converge import converge

        converge(self, wanted)
