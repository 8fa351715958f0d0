"""A command written as one text: split like a shell does, without a shell.

What only a shell could do is refused with a message that says so, rather than
handed to the program as if it were plain text. Pure.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

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
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def split_command(text: str) -> tuple[str, ...]:
    """This splits a command's text into its arguments.

    `$` and a backquote inside double quotes are refused too, since a shell would
    replace them; they are let through when the program is a shell with `-c`, which
    gets to see them itself.

    Raises:
        ValueError: The quoting is broken, nothing is there, or it needs a shell.
    """
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as err:
        problem = str(err)
        found = problem[:1].lower() + problem[1:]
        raise ValueError(f"the command can't be split: {found} in {text!r}") from err
    if not arguments or not arguments[0]:
        raise ValueError("the command is empty; name a program to run")
    program = arguments[0].rpartition("/")[2]
    for_a_shell = program in _SHELLS and any(map(_TEXT_OPTION.fullmatch, arguments))
    operator = _shell_operator(text, quoted_too=not for_a_shell)
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


def _shell_operator(text: str, *, quoted_too: bool) -> str | None:
    """This finds the first character that only a shell could make sense of."""
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and quote != "'":
            position += 2
            continue
        if quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in "`$" and quoted_too:
                return character
        elif character in "'\"":
            quote = character
        elif character in _OPERATORS:
            pair = text[position : position + 2]
            return pair if pair in _WHAT else character
        position += 1
    return None
