"""What the command prints: data to stdout, all else to stderr, safe on a terminal.

Text that a daemon or a file has chosen (status, log lines, argv) may hold escape
sequences and direction marks. On a terminal they are shown, never obeyed. Imports
nothing but the standard library, and little of it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = (
    "LINE_COLORS",
    "Printer",
    "duration_text",
    "escaped",
    "render_table",
    "size_text",
)

LINE_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red")
"""The colours of daemons' names before their output, in turns."""

# Bidirectional controls (UAX #9) and the two line separators of Unicode.
_DANGEROUS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
)
_COLORS = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}
_STATE_COLORS = {
    "running": "green",
    "failed": "red",
    "backoff": "red",
    "starting": "yellow",
    "waiting": "yellow",
    "stopping": "yellow",
    "paused": "cyan",
    "stopped": "dim",
    "created": "dim",
}


def escaped(text: str, *, keep_tabs: bool = False) -> str:
    r"""This shows what a terminal would obey: ESC becomes \x1b, a newline \n."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if _is_harmless(character) or (keep_tabs and character == "\t")
        else _spelled(character)
        for character in text
    )


def _is_harmless(character: str) -> bool:
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
        return False
    return character not in _DANGEROUS


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def colored(text: str, color: str) -> str:
    """This puts a text between the sequences that set and reset a colour."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


class Printer:
    """This writes to stdout and stderr as the common flags say.

    Args:
        quiet: Nothing but errors goes to stderr.
        no_color: Never colours; NO_COLOR says the same.
        environ: The environment.
    """

    def __init__(
        self, *, quiet: bool, no_color: bool, environ: Mapping[str, str]
    ) -> None:
        self.quiet = quiet
        plain = no_color or bool(environ.get("NO_COLOR"))
        plain = plain or environ.get("TERM") == "dumb"
        self.is_terminal = _is_terminal(sys.stdout)
        self.colors = self.is_terminal and not plain
        self.progress_is_shown = _is_terminal(sys.stderr) and not quiet
        self._progress_length = 0

    def data(self, text: str) -> None:
        """This prints what was asked for."""
        _write(sys.stdout, text + "\n")

    def note(self, text: str) -> None:
        """This tells something beside the data; `-q` leaves it out."""
        if not self.quiet:
            self.clear_progress()
            _write(sys.stderr, escaped_lines(text) + "\n")

    def error(self, text: str) -> None:
        """This tells what went wrong."""
        self.clear_progress()
        _write(sys.stderr, f"duende: {escaped_lines(text)}\n")

    def refusal(self, err: Exception) -> None:
        """This tells why nothing was done; problems of a file begin with its name."""
        if getattr(err, "problems", ()):
            self.clear_progress()
            _write(sys.stderr, f"{escaped_lines(str(err))}\n")
        else:
            self.error(str(err))

    def progress(self, text: str) -> None:
        """This shows what is waited for, on a terminal only, in one changing line."""
        if not self.progress_is_shown:
            return
        shown = escaped(text)[: _width(2) - 1]
        _write(sys.stderr, "\r" + shown.ljust(self._progress_length))
        self._progress_length = len(shown)
        sys.stderr.flush()

    def clear_progress(self) -> None:
        """This removes the changing line."""
        if self._progress_length:
            _write(sys.stderr, "\r" + " " * self._progress_length + "\r")
            self._progress_length = 0

    def state(self, state: str, width: int = 0) -> str:
        """This is a state's name, padded, coloured where colours are wanted."""
        padded = state.ljust(width)
        color = _STATE_COLORS.get(state)
        return colored(padded, color) if self.colors and color else padded


def _write(stream: object, text: str) -> None:
    try:
        stream.write(text)  # type: ignore[attr-defined]  # a text stream
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        stream.write(safe)  # type: ignore[attr-defined]  # a text stream


def escaped_lines(text: str) -> str:
    """This escapes a message of several lines, line by line."""
    return "\n".join(escaped(line, keep_tabs=True) for line in text.split("\n"))


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # a text stream, or None
    except (AttributeError, ValueError):
        return False


def _width(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80


def render_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], printer: Printer
) -> str:
    """This lays out a table; a column headed STATE is coloured, the last not padded."""
    widths = [
        max(len(heading), *(len(row[column]) for row in rows)) if rows else len(heading)
        for column, heading in enumerate(headings)
    ]
    state_column = headings.index("STATE") if "STATE" in headings else -1
    lines = ["  ".join(map(str.ljust, headings, widths)).rstrip()]
    left = _width(1) - sum(widths[:-1]) - 2 * len(widths[:-1])
    for row in rows:
        cells = list(map(str.ljust, row, widths))
        if printer.is_terminal and len(row[-1]) > left > 10:
            # What does not fit would wrap and tear the table: `status` has it all.
            cells[-1] = row[-1][: left - 1] + "…"
        if state_column >= 0 and printer.colors:
            cells[state_column] = printer.state(row[state_column], widths[state_column])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def duration_text(seconds: float | None) -> str:
    """This renders seconds shortly: 3.2s, 4m05s, 7h12m, 3d04h."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, small, size in (("m", "s", 60), ("h", "m", 3600), ("d", "h", 86400)):
        parts = {"m": 60, "h": 24, "d": 1 << 62}[unit]
        if whole // size < parts:
            rest = whole % size // {60: 1, 3600: 60, 86400: 3600}[size]
            return f"{whole // size}{unit}{rest:02d}{small}"
    raise AssertionError("a day's unit has no upper bound")


def size_text(size: int | None) -> str:
    """This renders bytes shortly, in powers of 1024: 512B, 3.4M, 1.2G."""
    if size is None:
        return "-"
    if size < 1024:
        return f"{size}B"
    power = min((size.bit_length() - 1) // 10, 4)
    amount = size / 1024**power
    unit = "BKMGT"[power]
    return f"{amount:.1f}{unit}" if amount < 10 else f"{amount:.0f}{unit}"
