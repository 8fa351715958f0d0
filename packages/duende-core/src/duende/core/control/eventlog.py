"""The record of what happened: STATE/events.jsonl, numbered and bounded.

The supervisor appends; anybody may read. When the file is full it becomes
events.jsonl.1 and a new one begins, so that at most twice the bound is kept. A last
line that was cut off by a crash or a full disk is skipped by readers and closed by
the next writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duende.core.types import Event

__all__ = ("EventLog", "read_events")

_MOST_BYTES = 4 * 1024 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class EventLog:
    """This appends events to a file and knows the number of the last one.

    A failed write (a full disk) loses lines, is counted in `lost`, and raises
    nothing: a supervisor does not end because its diary is full.
    """

    def __init__(self, path: str, most_bytes: int = _MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self.last_seq = last_seq(path)
        self.lost = 0
        self._file: int | None = None
        self._size = 0

    def append(self, *events: Event) -> None:
        """This writes events whose numbers go on from `last_seq`."""
        if not events:
            return
        self.last_seq = max(self.last_seq, events[-1].seq)
        content = b"".join(
            _encode(event.to_json()).encode() + b"\n" for event in events
        )
        try:
            self._write(content)
        except OSError:
            self.lost += len(events)
            self.close()

    def _write(self, content: bytes) -> None:
        if self._file is None:
            self._file = os.open(
                self._path,
                os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
                0o600,
            )
            self._size = os.fstat(self._file).st_size
            if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
                content = b"\n" + content
        elif self._size > self._most_bytes:
            os.replace(self._path, self._path + ".1")
            self.close()
            self._write(content)
            return
        while content:
            written = os.write(self._file, content)
            self._size += written
            content = content[written:]

    def close(self) -> None:
        """This lets go of the file; the next `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def last_seq(path: str) -> int:
    """This is the number of the last recorded event, 0 where there is none."""
    for candidate in (path, path + ".1"):
        try:
            with open(candidate, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                # A tail that holds many events; the whole file if it does not.
                for tail in (1 << 16, size):
                    file.seek(max(0, size - tail))
                    lines = file.read().split(b"\n")
                    for line in reversed(lines):
                        event = _parse(line)
                        if event is not None:
                            return _number(event)
        except OSError:
            continue
    return 0


def read_events(
    path: str, after: int | None = None, since: str | None = None
) -> Iterator[dict[str, object]]:
    """This yields the JSON objects of recorded events, oldest first.

    Args:
        path: STATE/events.jsonl.
        after: Only those with a greater number.
        since: Only those at or after this RFC 3339 time in UTC.
    """
    for candidate in (path + ".1", path):
        try:
            with open(candidate, "rb") as file:
                yield from _select(file, after, since)
        except FileNotFoundError:
            continue


def _select(
    lines: Iterable[bytes], after: int | None, since: str | None
) -> Iterator[dict[str, object]]:
    for line in lines:
        event = _parse(line)
        if event is None:
            continue
        if after is not None and _number(event) <= after:
            continue
        if since is not None and _seconds(str(event.get("at", ""))) < _seconds(since):
            continue
        yield event


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "seq" in event else None


def _number(event: dict[str, object]) -> int:
    number = event["seq"]
    return number if isinstance(number, int) else 0


def _seconds(moment: str) -> float:
    """This reads an RFC 3339 time; what is none counts as the beginning of time."""
    from datetime import UTC, datetime

    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
