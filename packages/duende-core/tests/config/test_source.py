"""Reading files, and the line numbers of keys."""

from __future__ import annotations

import errno
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.source import KeyPath, Source, key_lines, read_source
from duende.core.errors import ConfigError

TRICKY = '''
title = "a = 1 # no comment"  # [not.a.header]
[daemon.web]
command = ["a", # first
  "b]",
  'c"',
]
env = { A = 1, "B C" = "}", D.E = [1, {F = 2}] }
text = """
[daemon.fake]
x = 1 \\"""
"""
raw = \'\'\'
[daemon.fake]
\'\'\'\'
stop.timeout = "1s"
"quoted key".'and that' = 1979-05-27 07:32:00
[ daemon . "api" . restart ]
policy = "always"
[[daemon.api.list]]
a = 1
[[daemon.api.list]]
a = 2
[daemon.api.list.sub]
b = 3
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("daemon", "web"), 3),
        (("daemon", "web", "command"), 4),
        (("daemon", "web", "command", 0), 4),
        (("daemon", "web", "command", 2), 6),
        (("daemon", "web", "env", "B C"), 8),
        (("daemon", "web", "env", "D", "E", 1, "F"), 8),
        (("daemon", "web", "text"), 9),
        (("daemon", "web", "raw"), 13),
        (("daemon", "web", "stop", "timeout"), 16),
        (("daemon", "web", "quoted key", "and that"), 17),
        (("daemon", "api", "restart", "policy"), 19),
        (("daemon", "api", "list", 0, "a"), 21),
        (("daemon", "api", "list", 1, "a"), 23),
        (("daemon", "api", "list", 1, "sub", "b"), 25),
    ],
    ids=str,
)
def test_lines(path: KeyPath, line: int) -> None:
    """The scanner finds keys in dotted, inline, quoted and array form."""
    assert key_lines(TRICKY)[path] == line


def test_strings_are_no_tables() -> None:
    """What only looks like TOML inside a string is not counted."""
    assert ("daemon", "fake") not in key_lines(TRICKY)


def _paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= _paths(inner, (*path, index))
    return found


def test_all_paths_are_found() -> None:
    """The scanner and tomllib agree on what keys there are."""
    assert set(key_lines(TRICKY)) == _paths(tomllib.loads(TRICKY))


_SCALARS = st.sampled_from(["1", '"x"', "'y#'", "true", "1.5", '"""a\nb"""', "[1,2]"])
_TABLES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), _SCALARS), max_size=8
)


@given(_TABLES)
def test_lines_of_generated_files(entries: list[tuple[str, str, str]]) -> None:
    """Each key of a file that was put together line by line is found on its line."""
    text, line = "", 1
    expected: dict[KeyPath, int] = {}
    for index, (table, key, value) in enumerate(entries):
        text += f"[{table}{index}] # c\n{key} = {value}\n"
        expected[(f"{table}{index}",)] = line
        expected[(f"{table}{index}", key)] = line + 1
        line = 1 + text.count("\n")
    found = key_lines(text)
    assert {path: found[path] for path in expected} == expected


def test_a_missing_key_has_the_line_of_its_table() -> None:
    """The nearest table around a key that isn't there says where to look."""
    source = Source(Path("f.toml"), TRICKY)
    assert source.line(("daemon", "api", "restart", "nothing")) == 18
    assert source.line(("nothing",)) is None
    assert source.problem(("nothing",), "is missing") == "f.toml: nothing: is missing"
    assert source.problem((), "x") == "f.toml: x"
    assert (
        source.problem(("daemon", "web", "command", 2), "x")
        == "f.toml:6: daemon.web.command[2]: x"
    )


def test_pyproject_paths_have_their_prefix(tmp_path: Path) -> None:
    """In a pyproject.toml, the table and the paths are those of [tool.duende]."""
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname='x'\n[tool.duende.daemon.a]\ncommand='b'\n")
    source, document = read_source(file)
    assert document == {"daemon": {"a": {"command": "b"}}}
    assert source.problem(("daemon", "a", "command"), "x") == (
        f"{file}:4: tool.duende.daemon.a.command: x"
    )


def _refusal(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_source(file)
    [problem] = caught.value.problems
    assert str(caught.value) == problem
    return problem


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that isn't there, or is none, is refused by name in one line."""
    missing = tmp_path / "missing.toml"
    assert _refusal(missing) == (
        f"{missing}: there is no such file; `duende init` writes one"
    )
    assert "is a directory" in _refusal(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "is no regular file" in _refusal(fifo)
    assert "is no path" in _refusal(Path("a\0b"))


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is refused with the system's reason."""

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("duende.core.config.source.os.open", refuse)
    file = tmp_path / "duende.toml"
    assert _refusal(file) == f"{file}: can't be read: Permission denied"


def test_a_symlink_loop(tmp_path: Path) -> None:
    """A loop of links ends at once, with ELOOP."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="symbolic links") as caught:
        read_source(tmp_path / "a")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ELOOP


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """A path beyond the limit is refused with ENAMETOOLONG."""
    with pytest.raises(ConfigError, match="too long") as caught:
        read_source(tmp_path / ("x/" * 3000))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    ("data", "place", "text"),
    [
        (b"a = 1\nb = \xff\n", ":2", "byte 0xff at offset 10"),
        (b"a = 1\nb =\n", ":2", "Invalid value"),
        (b"a = 1\na = 2\n", ":2", "Cannot overwrite a value"),
        (b"a = [1,\n\n", ":1", "(at the end)"),
        (b"a = " + b"[" * 50_000, "", "nested too deeply"),
        (b"a = " + b"9" * 5000, "", "is no TOML"),
    ],
    ids=["utf-8", "value", "twice", "end", "deep", "digits"],
)
def test_broken_texts(tmp_path: Path, data: bytes, place: str, text: str) -> None:
    """A text that is no UTF-8 or no TOML is refused with its line."""
    file = tmp_path / "duende.toml"
    file.write_bytes(data)
    problem = _refusal(file)
    assert problem.startswith(f"{file}{place}: ")
    assert text in problem


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """What an editor on Windows puts in front doesn't matter, nor does CRLF."""
    file = tmp_path / "duende.toml"
    file.write_bytes(b"\xef\xbb\xbf[a]\r\nb = 1\r\n")
    source, document = read_source(file)
    assert document == {"a": {"b": 1}}
    assert source.line(("a", "b")) == 2


def test_a_pyproject_without_our_table(tmp_path: Path) -> None:
    """A pyproject.toml that says nothing of duende is refused."""
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname='x'\n")
    assert "has no [tool.duende]" in _refusal(file)
