"""The one way by which tests load a host-side program."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROLES = Path(__file__).resolve().parents[1] / "roles"


def path_of(role: str) -> Path:
    """Return where a role's program stands."""
    return ROLES / role / "files" / f"ringfence-{role}"


def load(role: str) -> ModuleType:
    """Load the program of a role as a fresh module."""
    name = f"ringfence_{role}_program"
    loader = importlib.machinery.SourceFileLoader(name, str(path_of(role)))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    loader.exec_module(module)
    return module
