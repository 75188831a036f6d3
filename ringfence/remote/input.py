"""What a remote command reads on its standard input, kept out of pyinfra's output."""

from __future__ import annotations

import json
from typing import Any


class RemoteInput(list[str]):
    """A JSON object for a remote command's ``_stdin``, of which nothing but the size is ever shown.

    pyinfra prints the arguments of facts with ``-v``, standard input among them, and secrets travel by it. It takes a
    list of lines (`pyinfra.connectors.util.write_stdin`).
    """

    def __init__(self, content: Any) -> None:
        super().__init__([json.dumps(content) + "\n"])

    def __repr__(self) -> str:
        return f"({sum(map(len, self))} characters, not shown)"
