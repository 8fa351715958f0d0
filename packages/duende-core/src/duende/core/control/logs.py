"""Reading captured output: merged by time, from the end, and as it grows.

Files alone, no supervisor: the same functions serve the control server, a running
`duende logs`, and what is left when nothing runs. Times are wall-clock nanoseconds,
lines bytes without their newline.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from duende.core.control.log_files import LogFiles, Position

__all__ = (
    "LogLine",
    "LogTail",
    "line_to_json",
    "log_sources",
    "read_logs",
    "recorded_sources",
    "rfc3339",
)

LogLine = tuple[int, str, bytes]
"""When (wall-clock ns), which daemon, and the line without its newline."""


def log_sources(paths: Mapping[str, str], state: str) -> dict[str, LogFiles]:
    """This pairs each daemon's current log file with its index in the state folder."""
    return {
        name: LogFiles(name, path, os.path.join(state, "index", name))
        for name, path in paths.items()
    }


def recorded_sources(state: str, logs: str) -> dict[str, LogFiles]:
    """This finds what was captured, when no supervisor can be asked."""
    names = set(_entries(os.path.join(state, "index")))
    names |= {
        entry.removesuffix(".log") for entry in _entries(logs) if entry.endswith(".log")
    }
    paths = {name: os.path.join(logs, name + ".log") for name in sorted(names)}
    found = log_sources(paths, state)
    return {name: source for name, source in found.items() if source.exists()}


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_logs(
    sources: Iterable[LogFiles],
    lines: int | None = None,
    since: int | None = None,
    ends: Mapping[str, Position] | None = None,
) -> Iterator[LogLine]:
    """This yields captured lines, merged by time; those of one daemon in order.

    Args:
        sources: Whose logs.
        lines: Only the last so many of the merged lines.
        since: Only lines written at or after this time (wall-clock ns).
        ends: Where to stop, by name; without it, where each log ends now.
    """
    stops = {
        source.name: (ends or {}).get(source.name) or source.end(whole_lines=False)
        for source in sources
    }
    streams = [_one_log(source, stops[source.name], lines, since) for source in sources]
    merged = heapq.merge(*streams, key=lambda line: line[0])
    return merged if lines is None else iter(deque(merged, maxlen=lines))


def _one_log(
    source: LogFiles, stop: Position, lines: int | None, since: int | None
) -> Iterator[LogLine]:
    if lines is not None:
        found = _last_of_all(source, stop, lines)
        return (
            (at, source.name, line)
            for at, line in found
            if since is None or at >= since
        )
    return _forward_of_all(source, stop, since)


def _last_of_all(
    source: LogFiles, stop: Position, lines: int
) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    oldest = source.oldest()
    for generation in range(stop.generation, oldest - 1, -1):
        if len(found) >= lines:
            break
        end = stop.offset if generation == stop.generation else None
        found = source.last_lines(generation, lines - len(found), end) + found
    return found


def _forward_of_all(
    source: LogFiles, stop: Position, since: int | None
) -> Iterator[LogLine]:
    started = since is None
    for generation in range(source.oldest(), stop.generation + 1):
        start = 0
        if not started:
            assert since is not None
            found = source.start_since(generation, since)
            if found is None:
                continue
            start, started = found, True
        end = stop.offset if generation == stop.generation else None
        for at, line in source.lines(generation, start, end):
            yield at, source.name, line


class LogTail:
    """This reads on in one growing log, across rotations, whole lines at a time."""

    def __init__(self, source: LogFiles, position: Position | None = None) -> None:
        self._source = source
        self._at = position or source.end(whole_lines=True)

    @property
    def position(self) -> Position:
        """Where the next `read` begins."""
        return self._at

    def read(self) -> list[LogLine]:
        """This is what has been completed since the last call."""
        name = self._source.name
        found: list[LogLine] = []
        current = self._source.current()
        if self._at.generation < current:
            oldest = self._source.oldest()
            if self._at.generation < oldest:
                # Rotated away before it was read: go on with what is left.
                self._at = Position(oldest, 0)
        while self._at.generation < current:
            for at, line in self._source.lines(
                self._at.generation, self._at.offset, None
            ):
                found.append((at, name, line))
            self._at = Position(self._at.generation + 1, 0)
        end = self._source.end(whole_lines=True)
        if end.generation == self._at.generation and end.offset > self._at.offset:
            for at, line in self._source.lines(
                end.generation, self._at.offset, end.offset
            ):
                found.append((at, name, line))
            self._at = end
        return found


def rfc3339(wall_ns: int) -> str:
    """This renders a wall-clock time in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ns // 1000 % 1_000_000:06d}Z"


def line_to_json(line: LogLine) -> dict[str, object]:
    """This renders the JSON object of a log line; bytes that are no UTF-8 become U+FFFD."""
    at, daemon, text = line
    return {
        "at": rfc3339(at),
        "daemon": daemon,
        "line": text.decode("utf-8", "replace"),
    }
