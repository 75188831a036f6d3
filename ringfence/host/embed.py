"""Writes the chassis into the programs, between two markers, and likewise the modules that one of them is made of.

The first marker names the modules that the program wants (or a package, for all of its modules); those that they need
come along, each before its users::

    # >>> ringfence.host: running files
    # <<< ringfence.host
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "ringfence.host"
BLOCK = re.compile(
    r"^# >>> ringfence\.host: (?P<wanted>[a-z. ]+?)(?: \(.*\))?\n(?P<body>.*?)^# <<< ringfence\.host\n",
    re.M | re.S,
)
NOTE = "# Written by `python -m ringfence.host`: change it there."


class EmbedError(Exception):
    """A program's markers are not as they must be; the message names the program and the fix."""


def modules(wanted: Iterable[str]) -> list[str]:
    """Return the wanted modules with those that they need, each before its users.

    Raises:
        EmbedError: there is no such module.
    """
    found: list[str] = []

    def add(name: str) -> None:
        if name in found:
            return
        path = _path(name)
        if path.with_suffix("").is_dir():
            for module in available():
                if module.startswith(f"{name}."):
                    add(module)
            return
        if not path.exists():
            raise EmbedError(f"'{name}' is no module of {PACKAGE}; there are: {', '.join(available())}")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                add(str(node.module).removeprefix(f"{PACKAGE}."))
        found.append(name)

    for name in wanted:
        add(name)
    return found


def available() -> list[str]:
    """Return the names of the modules that can be wanted, such as "running" and "policy.rules"."""
    found = {".".join(path.relative_to(HERE).with_suffix("").parts) for path in HERE.rglob("*.py")}
    return sorted(name for name in found if not name.endswith("__") and name != "embed")


def _path(name: str) -> Path:
    return HERE.joinpath(*name.split(".")).with_suffix(".py")


def block(wanted: Iterable[str], imported: Iterable[str] = ()) -> str:
    """Return the text between the markers.

    Args:
        wanted: names of modules.
        imported: import statements that the program has already.

    Raises:
        EmbedError: there is no such module, or two of them define the same name.
    """
    imports: set[str] = set()
    owners: dict[str, str] = {}
    parts = []
    for name in modules(wanted):
        text = _path(name).read_text(encoding="utf-8")
        tree = ast.parse(text)
        for defined in _names(tree):
            if owners.setdefault(defined, name) != name:
                raise EmbedError(
                    f"{defined}: both {owners[defined]} and {name} define it; in a program one would replace the other"
                )
        lines = text.splitlines()
        start = 0
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                own = isinstance(node, ast.ImportFrom) and (node.module or "").startswith((PACKAGE, "__future__"))
                if not own:
                    imports |= set(_single(node))
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                # What stands above the first statement, comments included, belongs to it.
                start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
                while lines[start - 1].startswith("#"):
                    start -= 1
                break
        summary = (ast.get_docstring(tree) or "").splitlines()[0]
        parts.append(f"# -- {name}: {summary}\n\n\n" + "\n".join(lines[start:]).strip() + "\n")
    head = "\n".join(_together(imports - set(imported)))
    return "\n\n".join(part for part in (head, "\n\n".join(parts)) if part)


def _names(tree: ast.Module) -> Iterable[str]:
    """What a module defines, imports aside."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def _single(node: ast.Import | ast.ImportFrom) -> Iterable[str]:
    for alias in node.names:
        name = alias.name + (f" as {alias.asname}" if alias.asname else "")
        yield f"from {node.module} import {name}" if isinstance(node, ast.ImportFrom) else f"import {name}"


def _together(imports: Iterable[str]) -> list[str]:
    plain = sorted(line for line in imports if line.startswith("import "))
    names: dict[str, list[str]] = {}
    for line in sorted(set(imports) - set(plain)):
        names.setdefault(line.split(" import ")[0], []).append(line.split(" import ")[1])
    return [*plain, *(f"{module} import {', '.join(found)}" for module, found in names.items())]


def embedded(text: str, name: str) -> str:
    """Return a program's text with the chassis of today.

    Raises:
        EmbedError: it has no markers, or wants a module that is not there.
    """
    found = list(BLOCK.finditer(text))
    if len(found) != 1:
        raise EmbedError(f"{name}: needs one pair of markers '# >>> {PACKAGE}: MODULES' and '# <<< {PACKAGE}'")
    match = found[0]
    rest = text[: match.start()] + text[match.end() :]
    imported = [
        single
        for node in ast.parse(rest).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for single in _single(node)
    ]
    wanted = match["wanted"].split()
    new = f"# >>> {PACKAGE}: {' '.join(wanted)}\n{NOTE}\n{block(wanted, imported)}\n\n# <<< {PACKAGE}\n"
    return text[: match.start()] + new + text[match.end() :]


def programs(root: Path) -> list[Path]:
    """Return what is sent to hosts as one text: the programs below the roles, and what compares and places."""
    return [
        root / "ringfence" / "remote" / "role.py",
        *sorted(path for path in root.glob("roles/*/files/ringfence-*") if "." not in path.name),
    ]


def copies(root: Path) -> dict[Path, Path]:
    """Return what stands in every role for Ansible, so that a role can be copied alone: {copy: original}."""
    originals = {
        "library": root / "ringfence" / "remote" / "role.py",
        "action_plugins": root / "ringfence" / "ansible" / "action.py",
    }
    roles = sorted(path.parent for path in root.glob("roles/*/tasks"))
    return {role / kind / "ringfence_role.py": path for role in roles for kind, path in originals.items()}
