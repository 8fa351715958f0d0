"""How a foreground `up` looks: progress, merged logs, and what went wrong.

Everything is handed to one thread through a bounded queue: a stopped terminal or a
full pipe blocks that thread alone. What does not fit is dropped, counted and told.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TextIO, final

from duende.core.cli.output import LINE_COLORS, Printer, colored, escaped, escaped_lines
from duende.core.types import Event

__all__ = ("TerminalDisplay",)

_MOST_QUEUED = 4 * 1024 * 1024
_FLUSH_TIME = 1.0
_TOLD_AT_FIRST = frozenset({"running", "backoff", "failed", "paused"})
_TOLD_WHEN_UP = frozenset(
    {"starting", "running", "backoff", "failed", "paused", "stopping", "stopped"}
)


@final
class TerminalDisplay:
    """This shows events on stderr and daemons' output on stdout.

    Args:
        printer: How to print.
        names: The daemons, for the width of their column.
        command: How this project's `duende` is typed, for hints.
    """

    def __init__(
        self, printer: Printer, names: Sequence[str] = (), command: str = "duende"
    ) -> None:
        self._printer = printer
        self._command = command
        self._width = max(map(len, names), default=0)
        self._prefixes: dict[str, bytes] = {}
        self._queue: deque[tuple[bool, bytes]] = deque()
        self._queued = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self._is_up = False
        self._thread = threading.Thread(
            target=self._write_all, name="duende-display", daemon=True
        )
        self._thread.start()

    def event(self, event: Event) -> None:
        """This tells state changes that a person wants to know of."""
        name = event.daemon
        if name is None:
            # One word is a cause that the person gave: a signal, or `down`.
            if event.type == "supervisor" and " " in (event.reason or ""):
                self.note(str(event.reason))
            return
        if event.type == "state" and event.to is not None:
            told = _TOLD_WHEN_UP if self._is_up else _TOLD_AT_FIRST
            if event.to in told:
                reason = f": {event.reason}" if event.reason else ""
                self.note(f"{name} is {event.to}{reason}")
        elif event.type in ("limit", "config", "log_dropped"):
            self.note(f"{name}: {event.type.replace('_', ' ')} {event.reason or ''}")

    def log(self, daemon: str, line: bytes) -> None:
        """This shows one line of a daemon's output, with its name before it."""
        text = line.rstrip(b"\n")
        if self._printer.is_terminal:
            shown = escaped(text.decode("utf-8", "replace"), keep_tabs=True)
            text = shown.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
        self._put(True, self._prefix(daemon) + text + b"\n")

    def ready(self, overview: Mapping[str, object]) -> None:
        """This says that everything that should run is ready."""
        self._is_up = True
        rows = overview.get("daemons")
        running = [
            row
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, dict) and row.get("state") == "running"
        ]
        noun = "daemon is" if len(running) == 1 else "daemons are"
        self.note(f"{len(running)} {noun} ready; Ctrl-C stops in order")

    def failed(self, daemon: str, reason: str, last_lines: Sequence[bytes]) -> None:
        """This names a daemon that failed, why, and what it said last."""
        self._error(failure_text(daemon, reason, last_lines, self._command))

    def note(self, text: str) -> None:
        """This tells one sentence; `-q` leaves it out."""
        if not self._printer.quiet:
            shown = f"duende: {escaped_lines(text)}\n"
            if self._printer.progress_is_shown and self._printer.colors:
                shown = colored(shown.rstrip("\n"), "dim") + "\n"
            self._put(False, shown.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """This writes what is queued, for no longer than a second."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_FLUSH_TIME)

    def _error(self, text: str) -> None:
        shown = f"duende: {escaped_lines(text)}\n"
        self._put(False, shown.encode("utf-8", "backslashreplace"))

    def _prefix(self, daemon: str) -> bytes:
        prefix = self._prefixes.get(daemon)
        if prefix is None:
            text = f"{daemon.ljust(self._width)} | "
            if self._printer.colors:
                color = LINE_COLORS[len(self._prefixes) % len(LINE_COLORS)]
                text = colored(text, color)
            prefix = self._prefixes[daemon] = text.encode()
        return prefix

    def _put(self, is_data: bool, content: bytes) -> None:
        with self._changed:
            if self._queued + len(content) > _MOST_QUEUED or self._broken:
                self._dropped += 1
                return
            self._queue.append((is_data, content))
            self._queued += len(content)
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                batch = list(self._queue)
                self._queue.clear()
                self._queued = 0
                dropped, self._dropped = self._dropped, 0
            try:
                self._write_batch(batch)
                if dropped and not self._broken:
                    text = f"duende: {dropped} lines were not shown: too slow\n"
                    _write_bytes(sys.stderr, text.encode())
            except (OSError, ValueError):
                # The terminal or the reader is gone; daemons go on, unwatched.
                self._broken = True

    def _write_batch(self, batch: Sequence[tuple[bool, bytes]]) -> None:
        # Neighbours for the same stream go out together.
        start = 0
        for end in range(1, len(batch) + 1):
            if end == len(batch) or batch[end][0] != batch[start][0]:
                content = b"".join(part for _, part in batch[start:end])
                stream = sys.stdout if batch[start][0] else sys.stderr
                _write_bytes(stream, content)
                start = end


def _write_bytes(stream: TextIO | None, content: bytes) -> None:
    """This writes past Python's buffer, whose lock a stuck writer would keep at exit."""
    if stream is None:
        return  # Python was started without it
    descriptor = stream.fileno()
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def failure_text(
    daemon: str, reason: str, last_lines: Sequence[bytes], command: str
) -> str:
    """This words a failure: why, the last lines of output, and what to type next."""
    what = "has not started" if reason.startswith("waits for") else "failed"
    lines = [f"{daemon} {what}: {reason or 'for an unknown reason'}"]
    if last_lines:
        lines.append("  its last output:")
        lines += [
            "    " + line.rstrip(b"\n").decode("utf-8", "replace")
            for line in last_lines
        ]
    lines.append(f"  next: {command} logs {daemon}, or {command} status {daemon}")
    return "\n".join(lines)
