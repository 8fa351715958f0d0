"""Answers without an end: events and logs as JSON lines, at the reader's pace.

A slow reader holds up nobody: log lines wait in their files, events in a bounded
buffer; who lags further behind than that is told so and cut off.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

import anyio
import anyio.to_thread

from duende.core.config.units import parse_duration
from duende.core.control.api import SupervisorApi
from duende.core.control.eventlog import last_seq, read_events
from duende.core.control.http import HttpConnection, HttpError, Limits, Request
from duende.core.control.log_files import LogFiles
from duende.core.control.logs import (
    LogLine,
    LogTail,
    line_to_json,
    log_sources,
    read_logs,
    rfc3339,
)

__all__ = ("Streams",)

_BATCH = 64 * 1024


class Streams:
    """This answers `/v1/events`, `/v1/logs` and `/v1/logs/growth`.

    Args:
        api: The supervisor.
        state: The state folder, with the write indexes and the record of events.
        limits: How far a reader may lag.
    """

    def __init__(self, api: SupervisorApi, state: str, limits: Limits) -> None:
        self._api = api
        self._state = state
        self._limits = limits
        # Reading old logs is work for a thread, but never for many at once.
        self._readers = anyio.CapacityLimiter(4)

    async def events(self, request: Request, connection: HttpConnection) -> None:
        """This sends events: recorded ones, then, with `follow`, what happens."""
        after, since = _since(request)
        follow = _flag(request, "follow")
        path = os.path.join(self._state, "events.jsonl")
        if not follow:
            recorded = read_events(path, after, since)
            await connection.start_lines()
            await self._send_all(connection, _rendered(recorded))
            await connection.end_lines()
            return
        if since is not None:
            after = await anyio.to_thread.run_sync(
                _last_before, path, since, limiter=self._readers
            )
        async with self._api.subscribe_events(after) as live:
            await connection.start_lines()
            await self._follow_events(connection, live)

    async def _follow_events(
        self, connection: HttpConnection, live: AsyncIterator[Any]
    ) -> None:
        buffer: deque[bytes] = deque()
        size = 0
        waiting = anyio.Event()
        ended: str | None = None

        async def pump() -> None:
            nonlocal size, ended
            async for event in live:
                line = _render(event.to_json())
                if size + len(line) > self._limits.stream_buffer:
                    break
                buffer.append(line)
                size += len(line)
                waiting.set()
            ended = "this reader is too slow, events are missing from here on"
            waiting.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump)
            while True:
                if not buffer and ended is None:
                    waiting = anyio.Event()
                    await waiting.wait()
                lines = b"".join(buffer)
                buffer.clear()
                size = 0
                if lines:
                    await connection.send_lines(lines)
                elif ended is not None:
                    break
            await connection.send_lines(_render({"error": ended, "hint": "reconnect"}))
            await connection.end_lines()

    async def logs(self, request: Request, connection: HttpConnection) -> None:
        """This sends captured lines, then, with `follow`, what is added to them."""
        patterns = _texts(request, "name")
        names = self._api.resolve(patterns, all=not patterns)
        lines = _count(request, "lines")
        since = _log_since(request)
        if not _flag(request, "follow"):
            with anyio.move_on_after(self._limits.quick):
                await self._api.flush_logs(names)
            sources = self._sources(names)
            await connection.start_lines()
            stream = read_logs(sources.values(), lines, since)
            await self._send_all(connection, _rendered_lines(stream))
            await connection.end_lines()
            return
        async with self._api.follow_logs(names) as grown:
            sources = self._sources(names)
            ends = {
                name: source.end(whole_lines=True) for name, source in sources.items()
            }
            await connection.start_lines()
            stream = read_logs(sources.values(), lines, since, ends)
            await self._send_all(connection, _rendered_lines(stream))
            tails = {
                name: LogTail(source, ends[name]) for name, source in sources.items()
            }
            await self._follow_logs(connection, grown, tails)

    async def _follow_logs(
        self,
        connection: HttpConnection,
        grown: AsyncIterator[str],
        tails: Mapping[str, LogTail],
    ) -> None:
        async def send(names: list[str]) -> None:
            for name in names:
                tail = tails.get(name)
                if tail is None:
                    continue
                found = await anyio.to_thread.run_sync(tail.read, limiter=self._readers)
                await self._send_all(connection, _rendered_lines(iter(found)))

        # What was written between the snapshot and now may have been told already.
        await send(list(tails))
        await _each_growth(grown, send)
        await connection.end_lines()

    async def growth(self, request: Request, connection: HttpConnection) -> None:
        """This sends a line whenever logs have grown: a reader of the files follows."""
        patterns = _texts(request, "name")
        names = self._api.resolve(patterns, all=not patterns)
        async with self._api.follow_logs(names) as grown:
            await connection.start_lines()

            async def tell(changed: list[str]) -> None:
                await connection.send_lines(_render({"grown": changed}))

            # The first line says that from now on nothing is missed.
            await tell([])
            await _each_growth(grown, tell)
            await connection.end_lines()

    def _sources(self, names: Sequence[str]) -> dict[str, LogFiles]:
        paths = self._api.log_paths()
        chosen = {name: paths[name] for name in names if name in paths}
        return log_sources(chosen, self._state)

    async def _send_all(
        self, connection: HttpConnection, lines: Iterator[bytes]
    ) -> None:
        while True:
            batch = await anyio.to_thread.run_sync(_take, lines, limiter=self._readers)
            if not batch:
                return
            await connection.send_lines(batch)


async def _each_growth(
    grown: AsyncIterator[str], tell: Callable[[list[str]], Awaitable[None]]
) -> None:
    """This tells the names that came since the last time, each once."""
    pending: dict[str, None] = {}
    arrived = anyio.Event()
    over = False

    async def pump() -> None:
        nonlocal over
        async for name in grown:
            pending[name] = None
            arrived.set()
        over = True
        arrived.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump)
        while pending or not over:
            if pending:
                names = list(pending)
                pending.clear()
                await tell(names)
            else:
                arrived = anyio.Event()
                await arrived.wait()


def _last_before(path: str, since: str) -> int:
    """This is the number of the last recorded event before a time."""
    first = next(read_events(path, since=since), None)
    if first is None:
        return last_seq(path)
    number = first["seq"]
    return number - 1 if isinstance(number, int) else 0


def _take(lines: Iterator[bytes]) -> bytes:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= _BATCH:
            break
    return b"".join(batch)


def _rendered(objects: Iterator[dict[str, object]]) -> Iterator[bytes]:
    return map(_render, objects)


def _rendered_lines(lines: Iterator[LogLine]) -> Iterator[bytes]:
    return (_render(line_to_json(line)) for line in lines)


def _render(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode() + b"\n"


def _texts(request: Request, key: str) -> list[str]:
    return [part for part in request.query.get(key, []) if part]


def _flag(request: Request, key: str) -> bool:
    values = request.query.get(key, ["0"])
    return values[-1].lower() not in ("0", "false", "no")


def _count(request: Request, key: str) -> int | None:
    found = _texts(request, key)
    if not found:
        return None
    if not found[-1].isdigit():
        raise HttpError(400, f"{key}: {found[-1]!r} is no count")
    return int(found[-1])


def _since(request: Request) -> tuple[int | None, str | None]:
    """This reads `since`: a number is an event's, `10m` and `1s` are durations ago."""
    found = _texts(request, "since")
    if not found:
        return (None, None) if _flag(request, "follow") else (0, None)
    if found[-1].isdigit():
        return int(found[-1]), None
    return None, rfc3339(_ago(found[-1]))


def _log_since(request: Request) -> int | None:
    found = _texts(request, "since")
    return _ago(found[-1]) if found else None


def _ago(text: str) -> int:
    try:
        return time.time_ns() - round(parse_duration(text) * 1_000_000_000)
    except ValueError as err:
        raise HttpError(400, f"since: {err}") from err
