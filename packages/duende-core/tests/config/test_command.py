"""Commands written as one text."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.command import split_command


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("uvicorn app:app", ("uvicorn", "app:app")),
        ("a 'b c' \"d e\" f\\ g", ("a", "b c", "d e", "f g")),
        (
            "sh -c 'echo $HOME | cat > x && y'",
            ("sh", "-c", "echo $HOME | cat > x && y"),
        ),
        ('bash -ec "echo $HOME"', ("bash", "-ec", "echo $HOME")),
        ("echo '$5' \\$5 \"\\$5\"", ("echo", "$5", "$5", "$5")),
        ("a '|' \"&&\" \\>", ("a", "|", "&&", ">")),
        ('a "b\\c" d\\\ne', ("a", "b\\c", "de")),
        ("a ''", ("a", "")),
        ("python -c 'print(1)'", ("python", "-c", "print(1)")),
        ("a # b", ("a", "#", "b")),
        ("a --x=1", ("a", "--x=1")),
    ],
)
def test_split_like_a_shell(text: str, arguments: tuple[str, ...]) -> None:
    """Quotes and backslashes mean what they mean in a shell."""
    assert split_command(text) == arguments


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("a | b", "| (pipe)"),
        ("a|b", "| (pipe)"),
        ("a || b", "|| ("),
        ("a && b", "&& ("),
        ("a &", "& ("),
        ("a; b", "; ("),
        ("a > b", "> (redirection)"),
        ("a 2>&1", "> (redirection)"),
        ("a < b", "< (redirection)"),
        ("echo $HOME", "$ (variable)"),
        ('echo "$HOME"', "$ (variable)"),
        ("echo `date`", "` (command"),
        ("sh -c 'x' | cat", "| (pipe)"),
    ],
)
def test_what_only_a_shell_can_do(text: str, operator: str) -> None:
    """An operator of the shell is refused by name, never passed on."""
    with pytest.raises(ValueError, match="there is no shell") as caught:
        split_command(text)
    assert operator in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 'b", "the quote ' is not closed"),
        ('a "b', 'the quote " is not closed'),
        ("a \\", "ends in a backslash"),
        ("", "is empty"),
        ("   ", "is empty"),
        ("''", "is empty"),
        ("PORT=1 app", "write env = { PORT"),
    ],
)
def test_what_is_no_command(text: str, message: str) -> None:
    """Broken quoting, nothing, and an assignment in front are refused."""
    with pytest.raises(ValueError, match=message):
        split_command(text)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    """What shlex.join quotes is split into the same arguments."""
    if not arguments[0]:
        return
    assert split_command(shlex.join(arguments)) == tuple(arguments)


@given(st.text(alphabet="ab '\"\\$|\n", max_size=12))
def test_any_text_is_split_or_refused(text: str) -> None:
    """No text fails in any other way than by being refused with a reason."""
    try:
        assert split_command(text)[0]
    except ValueError as err:
        assert str(err)
