"""``python -m ringfence.password``: the hash of a password, for `lab_people` and `people_users`.

argon2id with the parameters that Authelia itself uses. The password is asked for twice and never an argument, which
everybody on the machine could read.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable

from argon2 import PasswordHasher, Type

# Authelia's own: authentication_backend.file.password in roles/authelia.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4, hash_len=32, salt_len=16, type=Type.ID)


class PasswordError(ValueError):
    """The password cannot be taken; the message says why and never what it was."""


def hashed(password: str) -> str:
    """Return the hash of a password, another one each time.

    Raises:
        PasswordError: it is empty, or more than one line.
    """
    if not password.strip():
        raise PasswordError("the password is empty")
    if "\n" in password or "\r" in password:
        raise PasswordError("the password is more than one line")
    return _HASHER.hash(password)


def asked(ask: Callable[[str], str]) -> str:
    """Ask for a password twice and return it.

    Raises:
        PasswordError: the answers differ.
    """
    password = ask("Password: ")
    if ask("Again: ") != password:
        raise PasswordError("the two passwords differ: try again")
    return password


def main(argv: list[str]) -> int:
    """Print the hash; with ``--stdin`` of the line on standard input. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.password", description="Print the hash of a password.")
    parser.add_argument("--stdin", action="store_true", help="read it from standard input instead of asking for it")
    try:
        given = parser.parse_args(argv)
        print(hashed(sys.stdin.read().removesuffix("\n") if given.stdin else asked(getpass.getpass)))
    except PasswordError as error:
        print(f"ringfence.password: {error}", file=sys.stderr)
        return 1
    except (EOFError, KeyboardInterrupt):
        print("ringfence.password: no password was given", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
