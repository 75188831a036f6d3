"""One text of a package's modules, which runs where the package is not installed."""

from __future__ import annotations

from importlib.resources import files

# Runs what `request` sends with it: the package's `__main__.main`, which takes its arguments and what is wanted.
_START = """
import importlib.abc
import importlib.util
import sys


class Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in TEXTS:
            return importlib.util.spec_from_loader(name, self, is_package=name in PACKAGES)

    def exec_module(self, module):
        exec(compile(TEXTS[module.__name__], module.__name__, "exec"), module.__dict__)


sys.meta_path.insert(0, Sent())
main = importlib.import_module(f"{NAME}.__main__").main
sys.exit(main(REQUEST["arguments"], REQUEST["desired"]))
"""


def bundle(package: str) -> str:
    """Return one text that runs `main` of a package's `__main__`.

    The package's modules may import each other, and nothing else but Python's own.

    Args:
        package: its full name, such as ``ringfence.verify.remote``.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    parts = package.split(".")
    packages = [".".join(parts[: n + 1]) for n in range(len(parts))]
    texts = dict.fromkeys(packages, "")
    for entry in files(package).iterdir():
        name = entry.name.removesuffix(".py")
        if name != entry.name:
            text = entry.read_text(encoding="utf-8")
            texts[package if name == "__init__" else f"{package}.{name}"] = text
    return f"TEXTS = {texts!r}\nPACKAGES = {packages!r}\nNAME = {package!r}\n{_START}"
