"""The way into a program and out of it: verbs, standard input, exit codes, one handler of every error."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ringfence.host.advice import with_advice
from ringfence.host.files import make_directory, read, replace_file
from ringfence.host.lock import lock
from ringfence.host.running import Fault, say

Desired = dict[str, Any]
KEPT = Path("/etc/ringfence")  # <role>/desired.json: the last applied desired state, which the role watch compares with
FAILED, USAGE, BROKEN = 1, 2, 70  # exit codes: told in a message; wrong verb; an error of the program itself


def read_desired() -> Desired:
    """Read the desired state from standard input.

    Raises:
        Fault: it is not a JSON object.
    """
    try:
        desired = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    except ValueError as error:
        raise Fault(f"the desired state on standard input is not JSON: {error}") from None
    if not isinstance(desired, dict):
        raise Fault("the desired state on standard input is not a JSON object")
    return desired


def keeping(role: str, verb: str, do: Callable[[Desired], Any], desired: Desired) -> Any:
    """Run a verb of a role whose last applied desired state is kept on the host.

    One change at a time; `apply` keeps the state when it has succeeded, `check` says when that is pending, and `mend`
    puts back nothing but what is kept.
    """
    path, text = KEPT / role / "desired.json", json.dumps(desired, indent=1, sort_keys=True) + "\n"
    line = f"~ {path}: not what is declared" if path.exists() else f"+ {path}"
    pending = [line] if read(path) != text else []
    if verb in ("check", "drift"):
        report = do(desired)
        return {**report, "changes": report["changes"] + pending * (verb == "check")}
    with lock(Path(f"/run/ringfence/{role}.lock")):
        if verb == "mend" and read(path) != text:
            return {"changes": []}  # a run has brought about something else meanwhile: that is not to be undone
        done = do(desired)
        if verb != "apply" or not pending:
            return done
        make_directory(KEPT)
        make_directory(path.parent, 0o700)
        replace_file(path, text, 0o600)
        return {**done, "changes": done["changes"] + pending}


def serve(
    usage: str,
    with_desired: Mapping[str, Callable[[Desired], Any]],
    alone: Mapping[str, Callable[[list[str]], Any]] | None = None,
    report: Callable[[str], None] = say,
    needs: Collection[str] = (),
    keeps: str = "",
) -> NoReturn:
    """Run the verb that was asked for and end the program.

    What a verb returns goes to standard output: a string as it is, nothing for None, anything else as JSON.

    Args:
        usage: printed where the verb is wrong.
        with_desired: verbs that take the desired state and no further words.
        alone: verbs that take the words behind them.
        report: how a message is shown; replaced where secrets have to be kept out.
        needs: what the desired state must hold.
        keeps: the role whose desired state is kept (`keeping`); "" for a program that keeps none, or does so itself.

    Raises:
        SystemExit: always. 0; `FAILED` after a message; `USAGE`; `BROKEN` with a traceback on standard error.
    """
    # Sent by an engine before the program is installed: then nothing is on standard input.
    request = globals().get("REQUEST")
    words = list(request["arguments"] if request else sys.argv[1:])
    if sys.argv[:1] in (["-c"], [""]) and request:
        sys.argv[0] = request.get("name", "ringfence")
    verb = words[0] if words else ""
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # the locale may be C
    try:
        if verb in with_desired and len(words) == 1:
            desired = request["desired"] if request else read_desired()
            lacking = sorted(set(needs) - set(desired))
            if lacking:
                raise Fault(f"the desired state lacks {', '.join(lacking)}: it is not what this release takes")
            do = with_desired[verb]
            answer = keeping(keeps, verb, do, desired) if keeps else do(desired)
        elif verb in (alone or {}):
            answer = (alone or {})[verb](words[1:])
        else:
            print(usage.strip(), file=sys.stderr)
            sys.exit(USAGE)
    except Fault as fault:
        report(with_advice(str(fault)))
        sys.exit(FAILED)
    except OSError as error:
        report(with_advice(f"{type(error).__name__}: {error}"))
        sys.exit(FAILED)
    except Exception:
        report(f"an error of this program, please report it:\n{traceback.format_exc()}")
        sys.exit(BROKEN)
    if answer is not None:
        print(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False))
    sys.exit(0)
