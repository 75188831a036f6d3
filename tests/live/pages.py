"""What the README and the docs show: examples, and what is to be typed."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import yaml

from tests.live.labs import ROOT


def _blocks(page: str, kind: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(found[2]) for found in re.finditer(rf"^( *)```{kind}\n(.*?)^ *```$", text, re.M | re.S)]


def typed(page: str) -> list[str]:
    """What a page has one type, block by block."""
    return _blocks(page, "sh")


def example(page: str, number: int = 0) -> dict[str, Any]:
    """One of a page's examples, as it is printed."""
    return dict(yaml.safe_load(_blocks(page, "yaml")[number]))
