"""Reading a configuration file, and finding the line that a key is on.

tomllib gives no line numbers for values, so a scanner of its own goes over the
text, but only once there is a problem to report. It relies on tomllib having
accepted the text, and is right but for keys written with escapes.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, final

import attrs

from duende.core.errors import ConfigError

__all__ = ("KeyPath", "Source", "key_lines", "read_source", "render_path")

KeyPath = tuple[str | int, ...]
"""The way to a value: keys of tables, and indices of arrays."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_POSITION: Final = re.compile(
    r" \(at (?:line (\d+), column (\d+)|end of document)\)$", re.ASCII
)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_INLINE_BLANK: Final = re.compile(r"[ \t]*")
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_STRINGS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # Up to two quotes may stand right before the closing three.
        r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}',
        r"'''(?:[^']|'{1,2}(?!'))*'{3,5}",
        r'"(?:[^"\\\n]|\\.)*"',
        r"'[^'\n]*'",
    )
)


@final
@attrs.frozen
class Source:
    """This is the text that a configuration came from.

    `prefix` is where in the document the configuration is: empty for duende.toml,
    `("tool", "duende")` for pyproject.toml.
    """

    file: Path
    text: str = attrs.field(repr=False)
    prefix: tuple[str, ...] = ()

    def line(self, path: KeyPath) -> int | None:
        """This finds the line of a key, or of the nearest table around it."""
        lines = key_lines(self.text)
        full = (*self.prefix, *path)
        for length in range(len(full), len(self.prefix), -1):
            if full[:length] in lines:
                return lines[full[:length]]
        return None

    def has(self, path: KeyPath) -> bool:
        """This says whether a key was written down."""
        return (*self.prefix, *path) in key_lines(self.text)

    def problem(self, path: KeyPath, text: str) -> str:
        """This renders a problem: `FILE:LINE: key.path: text`."""
        line = self.line(path)
        place = str(self.file) if line is None else f"{self.file}:{line}"
        shown = render_path((*self.prefix, *path))
        return f"{place}: {shown}: {text}" if shown else f"{place}: {text}"


def render_path(path: Iterable[str | int]) -> str:
    """This writes a path as TOML would: `daemon.web.env_file[0]`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            plain = _BARE_KEY.fullmatch(part) is not None
            shown += ("." if shown else "") + (part if plain else repr(part))
    return shown


def read_source(file: Path) -> tuple[Source, dict[str, Any]]:
    """This reads a file, and gives its text and the table that is ours in it.

    Raises:
        ConfigError: It can't be read, is no UTF-8 or no TOML, or has no
            `[tool.duende]`, where it is a pyproject.toml.
    """
    text = _read_text(file)
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise _one_problem(*_decode_problem(file, text, str(err))) from err
    except RecursionError:
        raise _one_problem(str(file), "is nested too deeply to be read") from None
    except ValueError as err:
        # tomllib lets a few through, such as an integer of more than 4300 digits.
        raise _one_problem(str(file), f"is no TOML: {err}") from err
    if file.name != "pyproject.toml":
        return Source(file, text), document
    tool = document.get("tool")
    ours = tool.get("duende") if isinstance(tool, dict) else None
    if not isinstance(ours, dict):
        raise _one_problem(
            str(file), "has no [tool.duende]; add one, or write a duende.toml"
        )
    return Source(file, text, ("tool", "duende")), ours


def _one_problem(place: str, text: str) -> ConfigError:
    problem = f"{place}: {text}"
    return ConfigError(problem, problems=(problem,))


def _read_text(file: Path) -> str:
    try:
        # Not blocking, so that a FIFO in the file's place holds nobody up.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError
            if not stat.S_ISREG(mode):
                raise _one_problem(str(file), "is no regular file")
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read()
        finally:
            os.close(descriptor)
    except FileNotFoundError as err:
        raise _one_problem(
            str(file), "there is no such file; `duende init` writes one"
        ) from err
    except IsADirectoryError as err:
        raise _one_problem(
            str(file), "is a directory; name the file in it, such as duende.toml"
        ) from err
    except OSError as err:
        raise _one_problem(str(file), f"can't be read: {err.strerror}") from err
    except ValueError as err:
        raise _one_problem(repr(str(file)), f"is no path: {err}") from err
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise _one_problem(
            f"{file}:{line}",
            f"is not UTF-8: byte 0x{data[err.start]:02x} at offset {err.start}; "
            "save the file as UTF-8",
        ) from err


def _decode_problem(file: Path, text: str, message: str) -> tuple[str, str]:
    match = _POSITION.search(message)
    reason = _POSITION.sub("", message)
    if match is None or match[1] is None:
        last = text.rstrip().count("\n") + 1
        return f"{file}:{last}", f"is no TOML: {reason} (at the end)"
    return f"{file}:{match[1]}", f"is no TOML: {reason} (column {match[2]})"


@functools.lru_cache(maxsize=4)
def key_lines(text: str) -> dict[KeyPath, int]:
    """This maps the path of each key and array element of a TOML text to its line."""
    scanner = _Scanner(text)
    try:
        scanner.scan()
    except RecursionError:
        # tomllib went a little deeper; what was found so far still helps.
        pass
    return scanner.lines


class _Scanner:
    """This walks over a TOML text that tomllib has accepted."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._position = 0
        self._line = 1
        self._counted = 0
        self._arrays: dict[KeyPath, int] = {}

    def scan(self) -> None:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._position] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._position)
        self._position += 2 if is_array else 1
        keys = self._keys()
        self._position += 2 if is_array else 1
        path: KeyPath = ()
        for index, key in enumerate(keys):
            path = (*path, key)
            if is_array and index == len(keys) - 1:
                self._mark(path)
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
            self._mark(path)
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key in self._keys():
            path = (*path, key)
            self._mark(path)
        self._position += 1
        self._skip(_INLINE_BLANK)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_INLINE_BLANK)
            match = _BARE_KEY.match(self._text, self._position)
            if match is not None:
                keys.append(match[0])
            else:
                match = self._string()
                assert match is not None, "tomllib has found a key here"
                keys.append(match[0][1:-1])
            self._position = match.end()
            self._skip(_INLINE_BLANK)
            if not self._text.startswith(".", self._position):
                return keys
            self._position += 1

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._position]
        if opening == "[":
            self._position += 1
            index = 0
            while self._text[self._skip(_BLANK)] != "]":
                self._mark((*path, index))
                self._value((*path, index))
                index += 1
                self._skip_comma()
            self._position += 1
        elif opening == "{":
            self._position += 1
            while self._text[self._skip(_BLANK)] != "}":
                self._pair(path)
                self._skip_comma()
            self._position += 1
        else:
            match = self._string() or _SCALAR.match(self._text, self._position)
            assert match is not None, "a scalar may be empty"
            self._position = match.end()

    def _skip_comma(self) -> None:
        if self._text[self._skip(_BLANK)] == ",":
            self._position += 1

    def _string(self) -> re.Match[str] | None:
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._position)
            if match is not None:
                return match
        return None

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._position)
        assert match is not None, "blanks may be empty"
        self._position = match.end()
        return self._position

    def _mark(self, path: KeyPath) -> None:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        self.lines.setdefault(path, self._line)
