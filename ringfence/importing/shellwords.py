"""A command line in words, as compose splits it: with the library go-shellwords, which is no shell and no `shlex`."""

from __future__ import annotations

from ringfence.importing.problems import ComposeError

_ENDS = ";&|<>"  # outside of quotes the command ends here, and compose says nothing of it
# What opens and closes, and in what it does not count: these are not nested, but stand beside each other.
_QUOTES = {"'": '")', '"': "')", "`": "'\")", ")": "'\"`"}


def split(text: str) -> list[str]:
    """Return the words of a command line.

    Raises:
        ComposeError: compose refuses it: a quote is not closed, or a parenthesis stands outside of quotes.
    """
    found: list[str] = []
    word, begun, escaped = "", False, False
    within: set[str] = set()  # of _QUOTES; ")" is $(…)
    for sign in text:
        if escaped:
            word, begun, escaped = word + sign, True, False
        elif sign == "\\" and "'" not in within:
            escaped = True
        elif sign in " \t\r\n" and not within:
            found += [word] * begun
            word, begun = "", False
        elif sign in _ENDS and not within:
            begun = begun and not (sign == ">" and word[:1].isdecimal())  # of 2>file the number is no word
            break
        else:
            if sign == "(" and not within & set(_QUOTES[")"]):
                if ")" in within or not word.endswith("$"):
                    raise ComposeError("the command has a parenthesis outside of quotes, which compose refuses")
                within ^= {")"}
            elif sign in _QUOTES and not within & set(_QUOTES[sign]):
                within ^= {sign}
                begun = True
                if sign in "'\"":
                    continue
            word, begun = word + sign, begun or sign not in " \t\r\n"
    found += [word] * begun
    if escaped or within:
        raise ComposeError("a quote of the command is not closed")
    return found
