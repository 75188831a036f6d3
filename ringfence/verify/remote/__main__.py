"""The program's verbs, each with a JSON object on stdin and one JSON object on stdout:

prepare  looks at the host (clock, addresses, listening sockets, containers) and starts a listener in the background
probe    opens the given cells, each from its source's own network namespace or from a given address
ask      asks for names from containers, and sees which of the questions leave the host
visit    sends requests to sites from given addresses, without logging in, and prints how each was answered
collect  stops the listener and prints which datagrams arrived, and where

Nothing on the host is changed, but for a private routing table that lives as long as `probe` does, on hosts that are
places to probe from.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from ringfence.verify.remote.commands import Json, ProbeFailedError
from ringfence.verify.remote.spaces import open_all_files

# Each verb in a module that is read when it is asked for: one takes asyncio, another one TLS.
VERBS = {"prepare": "preparing", "probe": "probing", "ask": "names", "visit": "visiting", "collect": "listening"}


def main(argv: list[str], wanted: Json | None = None) -> int:
    """Run a verb with what is wanted, or with what standard input says; returns the exit code."""
    if len(argv) != 1 or argv[0] not in VERBS:
        print(f"usage: python3 -m ringfence.verify.remote {'|'.join(VERBS)} < request.json", file=sys.stderr)
        return 2
    open_all_files()
    try:
        module = import_module(f"ringfence.verify.remote.{VERBS[argv[0]]}")
        answer = getattr(module, argv[0])(json.load(sys.stdin) if wanted is None else wanted)
    except ProbeFailedError as failure:
        print(f"the probe failed: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
