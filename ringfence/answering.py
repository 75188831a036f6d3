"""What a role's program asks of the controller, such as a signature, is answered by ``roles/<role>/answer.py``.

The file stands alone, so that the role can be copied. It has ``answer(asked, variables)``: what the host asks, and the
role's variables, those among them that the host must never see; it returns what the host is sent. Its ``AnswerError``
says to the user what is wrong with a variable.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AnswerError(Exception):
    """There is no answer; the message says why, and the fix, and holds no secret."""


def answered(path: Path, asked: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Answer what a host asks. ``ringfence_role`` does the same for Ansible (`ringfence.ansible.action`).

    Args:
        path: the role's ``answer.py``.
        asked: what its program on the host asks; the host may be anybody's.
        variables: the role's.

    Raises:
        AnswerError: it cannot be answered.
    """
    role = path.parent.name
    spec = importlib.util.spec_from_file_location(f"ringfence_answer_{role}", path)
    if spec is None or spec.loader is None:
        raise AnswerError(f"role {role}: {path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return dict(module.answer(asked, variables))
    except ModuleNotFoundError as error:
        raise AnswerError(f"role {role}: {error.name} is missing on this machine (pip install {error.name})") from None
    except Exception as error:
        if type(error).__name__ == "AnswerError":
            raise AnswerError(f"role {role}: {error}") from None
        # Not its words: they may hold what was given.
        raise AnswerError(f"role {role}: an error in {path}, please report it: {type(error).__name__}") from None
