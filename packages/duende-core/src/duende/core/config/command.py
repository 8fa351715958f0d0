"""A command written as one text: split like a shell does, without a shell.

What only a shell could do is refused with a message that says so, rather than
handed to the program as if it were plain text. Pure.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ("split_command",)

_OPERATORS: Final = "|&;<>`$"
_WHAT: Final = {
    "|": "pipe",
    "||": "'or'",
    "&&": "'and'",
    "&": "background mark",
    ";": "command separator",
    "<": "redirection",
    ">": "redirection",
    "`": "command substitution",
    "$": "variable",
}
_SHELLS: Final = frozenset(
    {"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "busybox", "fish"}
)
_TEXT_OPTION: Final = re.compile(r"-[a-z]*c")
_ESCAPED_IN_QUOTES: Final = '$`"\\\n'
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class _Split(NamedTuple):
    arguments: tuple[str, ...]
    operator: str | None
    """The first thing outside quotes that only a shell could make sense of."""
    quoted_operator: str | None
    """The same inside double quotes, where a shell still replaces variables."""


def split_command(text: str) -> tuple[str, ...]:
    """This splits a command's text into its arguments.

    `$` and a backquote inside double quotes are refused too, since a shell would
    replace them; they are let through when the program is a shell with `-c`, which
    gets to see them itself.

    Raises:
        ValueError: The quoting is broken, nothing is there, or it needs a shell.
    """
    split = _split(text)
    arguments = split.arguments
    if not arguments or not arguments[0]:
        raise ValueError("the command is empty; name a program to run")
    program = arguments[0].rpartition("/")[2]
    for_a_shell = program in _SHELLS and any(map(_TEXT_OPTION.fullmatch, arguments))
    operator = split.operator or (None if for_a_shell else split.quoted_operator)
    if operator is not None:
        raise ValueError(
            f"there is no shell, so {operator} ({_WHAT[operator]}) means nothing in "
            f"{text!r}; write a list of arguments, or sh -c '…'"
        )
    if _ASSIGNMENT.match(text.lstrip()):
        variable = text.lstrip().partition("=")[0]
        raise ValueError(
            f"there is no shell, so {variable}=… before the program means nothing; "
            f"write env = {{ {variable} = … }}"
        )
    return arguments


def _split(text: str) -> _Split:
    """This splits by the rules of POSIX, XCU 2.2 (quoting), and nothing beyond.

    The standard library's shlex keeps the backslash of `"\\$"`, which a shell drops.
    """
    arguments: list[str] = []
    current: list[str] | None = None
    quote = ""
    operator = quoted_operator = None
    position = 0
    while position < len(text):
        character = text[position]
        following = text[position + 1 : position + 2]
        position += 1
        if quote == "'":
            if character == "'":
                quote = ""
            else:
                current.append(character)  # type: ignore[union-attr]  # a quote began it
            continue
        if not quote and character in " \t\r\n":
            if current is not None:
                arguments.append("".join(current))
            current = None
            continue
        current = [] if current is None else current
        if character == "\\":
            if not following:
                raise ValueError(f"{text!r} ends in a backslash with nothing after it")
            if quote and following not in _ESCAPED_IN_QUOTES:
                current.append("\\")
            # A backslash before the end of a line joins the lines.
            if following != "\n":
                current.append(following)
            position += 1
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            if quote:
                if character in "`$" and quoted_operator is None:
                    quoted_operator = character
            elif character in _OPERATORS and operator is None:
                pair = character + following
                operator = pair if pair in _WHAT else character
            current.append(character)
    if quote:
        raise ValueError(f"the quote {quote} is not closed in {text!r}")
    if current is not None:
        arguments.append("".join(current))
    return _Split(tuple(arguments), operator, quoted_operator)
