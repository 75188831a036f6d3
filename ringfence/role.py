"""A role as pyinfra sees it: its documented variables, and what it wants on a host.

A role is data: ``vars/main.yml`` lists its files (`Files` below), ``templates/desired.json.j2`` says what its program
is asked to bring about. The operations that bring it about are the same for every role, and the wishes of all roles
can be compared with a host in one round trip. Ansible reads the same files (``library/ringfence_role.py`` of a role).

``vars/main.yml`` holds::

    <role>_files:     [{src: a file of files/, or template: one of templates/, dest:, mode:, owner: root, group: root}]
    <role>_guarded:   whether applying can cut off the controller (default: no)
    <role>_program:   the role whose program brings the desired state about (default: the role itself)
    <role>_shares:    the variable in which a host finds what the role's program shares on the others (default: none)
    <role>_shares_where: the variable that says whether a host takes part in that: by being set, and not empty

A role whose program asks something of the controller has an ``answer.py`` (`ringfence.answering`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ringfence.answering import answered
from ringfence.argument_specs import ArgumentError, validate
from ringfence.render import render

Variables = dict[str, Any]

# The same in C, where PyYAML has it: every run reads some twenty files.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        path: where the program stands on the host.
        source: its text, so that it can be asked before it is installed.
        desired: what the program reads on standard input; may hold secrets, is never logged.
        guarded: whether applying can cut off the controller, so that it needs the role ``guard``'s window.
        answers: what answers the program's question here on the controller; None where the role has no ``answer.py``.
            It knows the role's variables, of which the host is sent no more than the desired state holds.
    """

    path: str
    source: str
    desired: Mapping[str, Any]
    guarded: bool = False
    answers: Callable[[Any], Variables] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Wanted:
    """Everything that a role wants on a host."""

    program: Program
    packages: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


class Role:
    """The folder of a role: ``defaults/``, ``vars/``, ``meta/``, ``templates/`` and ``files/`` beside ``deploy.py``."""

    def __init__(self, deploy_file: str) -> None:
        self.deploy_file = Path(deploy_file).resolve()
        self.directory = self.deploy_file.parent
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

    def _read(self, path: str) -> dict[str, Any]:
        text = (self.directory / path).read_text(encoding="utf-8")
        return dict(yaml.load(text, Loader=_Loader) or {})  # noqa: S506 - the safe loader

    @cached_property
    def defaults(self) -> Variables:
        """The role's variables with their defaults."""
        return self._read("defaults/main.yml")

    @cached_property
    def constants(self) -> Variables:
        """What both engines bring to a host: ``vars/main.yml``."""
        return self._read("vars/main.yml")

    @property
    def shares(self) -> str:
        """The variable in which a host finds what this role's program shares on the others; "" for none."""
        return str(self.constants.get(f"{self.name}_shares") or "")

    def shares_on(self, data: Any) -> bool:
        """Return whether a host with these variables (anything with a ``get``) takes part in what the role shares."""
        return bool(self.shares and data.get(self.constants[f"{self.name}_shares_where"]))

    @cached_property
    def _options(self) -> dict[str, Any]:
        return dict(self._read("meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {})

    def misspelt(self, given: Iterable[str]) -> str:
        """Return what is wrong where a variable is almost one of the role's, whose default would hold in its place.

        Args:
            given: names of all variables of a host.

        Returns:
            The variable and the fix; "" if there is none.
        """
        names = [*self.defaults, *self.constants]
        for name in given:
            prefix = name.partition("_")[0]
            if prefix != self.name and difflib.SequenceMatcher(None, prefix, self.name).ratio() < 0.8:
                continue
            if name not in names and (near := difflib.get_close_matches(name, names, n=1, cutoff=0.85)):
                return f"'{name}' is no variable of it (did you mean '{near[0]}'? one of your own needs another name)"
        return ""

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

    def wanted(self, variables: Mapping[str, Any]) -> Wanted:
        """Return what the role wants on a host: pure, so that it can be tested, and compared for many roles at once.

        Args:
            variables: all of the role's variables, as `variables` returns them.

        Raises:
            RoleError: the desired state does not render to JSON, or the role's program is not there.
            RenderError: a template cannot be rendered.
        """
        return Wanted(
            packages=list(variables.get(f"{self.name}_packages") or []),
            files=[self._file(entry, variables) for entry in self.constants[f"{self.name}_files"]],
            program=self._program(variables),
        )

    def _file(self, entry: Mapping[str, str], variables: Mapping[str, Any]) -> File:
        content = self.render(entry["template"], variables) if "template" in entry else self.file(entry["src"])
        return File(
            entry["dest"], content, entry["mode"], user=entry.get("owner", "root"), group=entry.get("group", "root")
        )

    def _program(self, variables: Mapping[str, Any]) -> Program:
        desired = self.render_json("desired.json.j2", variables)
        owner = self._beside(str(self.constants.get(f"{self.name}_program", self.name)))
        name = f"ringfence-{owner.name}"
        for entry in owner.constants[f"{owner.name}_files"]:
            if entry.get("src") == name:
                guarded = bool(self.constants.get(f"{self.name}_guarded"))
                return Program(
                    entry["dest"], owner.file(name), desired, guarded=guarded, answers=self._answers(variables)
                )
        raise RoleError(f"role {owner.name}: its program {name} is not in {owner.name}_files of its vars/main.yml")

    def _answers(self, variables: Mapping[str, Any]) -> Callable[[Any], Variables] | None:
        path = self.directory / "answer.py"
        if not path.is_file():
            return None

        def answers(asked: Any) -> Variables:
            return answered(path, asked, variables)

        return answers

    def _beside(self, name: str) -> Role:
        found = Role(str(self.directory.parent / name / "deploy.py"))
        if not (found.directory / "vars" / "main.yml").is_file():
            raise RoleError(f"role {self.name}: it needs the role {name} beside it (copy that one too)")
        return found

    def leaving(self) -> Variables:
        """Return what a host has to be sent so that the role can be taken off it; none of its variables matters.

        Of the role's files those go that bear ringfence's name; what belongs to the distribution stays.
        """
        entries = self.constants[f"{self.name}_files"]
        name = f"ringfence-{self.name}"
        return {
            "role": self.name,
            "program": self.file(name) if any(entry.get("src") == name for entry in entries) else "",
            "guarded": bool(self.constants.get(f"{self.name}_guarded")),
            "files": [entry["dest"] for entry in entries if "ringfence" in entry["dest"]],
        }

    def converge(self) -> None:
        """Add the operations that bring about what the role wants on pyinfra's current host."""
        # Not at the top: templates, the compiler and the tests use roles without pyinfra's runtime.
        from ringfence.operations.converge import converge

        converge(self)

    def is_run_alone(self) -> bool:
        """Whether pyinfra's command line runs this role's ``deploy.py`` itself, on a host that roles are for.

        Raises:
            DeployError: the inventory has no group ``docker_hosts``.
        """
        from ringfence.operations.converge import is_run_alone

        return is_run_alone(self)
