"""Whether a value follows from the inventory's files alone.

A lookup, the clock, chance or the controller's files and environment may say something else the next time. What is not
known to be harmless counts as one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Filter, nodes.Test, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Concat,
    nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.If, nodes.For,
)  # fmt: skip
_FILTERS = frozenset(
    {
        "b64decode", "b64encode", "bool", "capitalize", "combine", "count", "d", "default", "dict2items", "difference",
        "dictsort", "first", "flatten", "float", "from_json", "int", "intersect", "items", "items2dict", "join", "last",
        "length", "list", "lower", "max", "min", "quote", "regex_replace", "replace", "sort", "split", "string", "sum",
        "ternary", "to_json", "trim", "union", "unique", "upper",
    }
)  # fmt: skip
_TESTS = frozenset(
    {
        "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "ge", "gt", "in", "integer", "iterable",
        "le", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence", "string", "true",
        "undefined", "upper",
    }
)  # fmt: skip
_MARKS = ("{{", "{%", "{#")


def is_pure(value: Any, volatile: frozenset[str]) -> bool:
    """Whether everything in a value, as it is written in the inventory, follows from the inventory's files.

    Args:
        value: plain data: mappings, lists, text, numbers.
        volatile: names that mean something else in another run.
    """
    if isinstance(value, Mapping):
        return all(is_pure(key, volatile) and is_pure(item, volatile) for key, item in value.items())
    if isinstance(value, list):
        return all(is_pure(item, volatile) for item in value)
    if not isinstance(value, str) or not any(mark in value for mark in _MARKS):
        return True
    try:
        template = Environment().parse(value)  # noqa: S701 - it is only looked at
    except TemplateSyntaxError:
        return False
    return all(_is_pure_node(node, volatile) for node in (template, *template.find_all(nodes.Node)))


def _is_pure_node(node: nodes.Node, volatile: frozenset[str]) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS
    if isinstance(node, nodes.Test):
        return node.name in _TESTS
    if isinstance(node, nodes.Name):
        return node.name not in volatile
    return isinstance(node, _NODES)
