"""The keeper's protocol for an event loop: batches of events, routed replies.

This is `AsyncKeeper` of `keeper_client`, kept apart because it needs anyio.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, final

import anyio
import anyio.abc

from duende.core.keeper_client import (
    KeeperConnection,
    KeeperLost,
    check_reply,
    split_lines,
)

__all__ = ("AsyncKeeper",)

_READ_SIZE = 256 * 1024
_SEND_AT = 64 * 1024
"""So much is sent at once, in the middle of a long step: children start earlier."""

_BACKLOG_MAX = 50_000
"""So many events may wait for the supervisor before the socket is left alone."""


_BURST_SPAN = 20_000_000
_BURST_LINES = 64
_BURST_PAUSE = 0.001
"""More lines than that in so many nanoseconds are read in batches, with a pause in
between: a thousand starts are told one by one, and each wake-up costs what reading
twenty lines does. What happens to a few daemons is still read at once."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class _Reply:
    __slots__ = ("event", "value")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.value: dict[str, Any] | None = None


class _Batches:
    def __init__(
        self, following: Callable[[], Awaitable[list[dict[str, Any]]]]
    ) -> None:
        self._following = following

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> list[dict[str, Any]]:
        return await self._following()


@final
class AsyncKeeper:
    """This is the connection of a control plane, for an event loop.

    It takes over a `KeeperConnection` (attached or not). `serve` moves the bytes,
    so that `send_nowait` never waits and replies arrive whoever reads the events.
    """

    def __init__(self, connection: KeeperConnection) -> None:
        self._sock: socket.socket
        self._sock, self._partial, self._events = connection.detach()
        self._sock.setblocking(False)
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._replies: dict[int, _Reply] = {}
        # Ids of the blocking side are small; these never meet them.
        self._last_id = 1 << 32
        self._lost: KeeperLost | None = None
        self._wanted = anyio.Event()
        self._arrived = anyio.Event()
        self._taken = anyio.Event()

    async def serve(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """This moves the bytes until the connection is lost or it is cancelled.

        Start it once, with `await task_group.start(keeper.serve)`. It closes the
        socket when it ends; what was queued is sent first, as far as can be
        without waiting.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                task_status.started()
                await self._read()
                tasks.cancel_scope.cancel()
        finally:
            if self._lost is None:
                self._flush()
                self._lose("the connection to the keeper was closed")
            self._sock.close()

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost is not None

    def send_nowait(self, request: Mapping[str, object]) -> None:
        """This queues a request, in order, and returns at once.

        When the connection is lost it does nothing: the loss is told by `batches`
        and by every `request`.
        """
        if self._lost is not None:
            return
        line = _encode(request).encode("ascii") + b"\n"
        self._outgoing.append(line)
        self._outgoing_size += len(line)
        if self._outgoing_size >= _SEND_AT:
            self._flush()
        if self._outgoing:
            self._wanted.set()

    async def request(
        self, op: str, *, deadline: float = 30.0, **fields: object
    ) -> dict[str, Any]:
        """This sends a request and waits for its reply.

        Args:
            op: The operation.
            deadline: Seconds to wait at most.
            **fields: The rest of the request.

        Raises:
            KeeperLost: The connection has ended, or the time was up.
            KeeperRefused: The keeper said no.
        """
        if self._lost is not None:
            raise KeeperLost(*self._lost.args)
        self._last_id += 1
        identifier = self._last_id
        reply = self._replies[identifier] = _Reply()
        try:
            self.send_nowait({"id": identifier, "op": op, **fields})
            with anyio.move_on_after(deadline):
                await reply.event.wait()
        finally:
            del self._replies[identifier]
        if reply.value is None:
            if self._lost is not None:
                raise KeeperLost(*self._lost.args)
            raise KeeperLost(f"the keeper did not answer {op!r} in {deadline:g} s")
        check_reply(op, reply.value)
        return reply.value

    def batches(self) -> AsyncIterator[list[dict[str, Any]]]:
        """This yields all events that have come, as one list a time.

        It is no generator: there is nothing to close when a loop over it is left.

        Raises:
            KeeperLost: The connection has ended; what came before was yielded.
        """
        return _Batches(self._next_batch)

    async def _next_batch(self) -> list[dict[str, Any]]:
        while not self._events:
            if self._lost is not None:
                raise KeeperLost(*self._lost.args)
            self._arrived = anyio.Event()
            # No deadline: a keeper with nothing to say is a healthy one.
            await self._arrived.wait()
        batch, self._events = self._events, []
        self._taken.set()
        return batch

    def _flush(self) -> None:
        """This sends what the socket takes without waiting."""
        if not self._outgoing:
            return
        data = b"".join(self._outgoing)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as err:
            self._lose(f"the keeper can't be written to: {err}")
            return
        rest = data[sent:]
        self._outgoing = [rest] if rest else []
        # A full socket: wait for it, instead of trying at each send.
        self._outgoing_size = 0 if not rest else -math.inf  # type: ignore[assignment]

    async def _write(self) -> None:
        while self._lost is None:
            self._wanted = anyio.Event()
            if not self._outgoing:
                await self._wanted.wait()
            self._flush()
            if self._outgoing and self._lost is None:
                await anyio.wait_writable(self._sock)
                self._outgoing_size = 0

    async def _read(self) -> None:
        span_began = lines_in_span = 0
        while self._lost is None:
            await anyio.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as err:
                self._lose(f"the keeper can't be read from: {err}")
                return
            if not data:
                self._lose("the keeper closed the connection")
                return
            try:
                lines, self._partial = split_lines(self._partial + data)
            except KeeperLost as err:
                self._lose(err.what)
                return
            for line in lines:
                identifier = line.get("re")
                if identifier is None:
                    self._events.append(line)
                elif (reply := self._replies.get(identifier)) is not None:
                    reply.value = line
                    reply.event.set()
            if self._events:
                self._arrived.set()
            now = time.monotonic_ns()
            if now - span_began > _BURST_SPAN:
                span_began, lines_in_span = now, 0
            lines_in_span += len(lines)
            if lines_in_span > _BURST_LINES:
                await anyio.sleep(_BURST_PAUSE)
            while len(self._events) > _BACKLOG_MAX:
                self._taken = anyio.Event()
                await self._taken.wait()

    def _lose(self, what: str) -> None:
        self._lost = KeeperLost(what, "it died, or another control plane has attached")
        self._outgoing.clear()
        self._arrived.set()
        self._wanted.set()
        for reply in self._replies.values():
            reply.event.set()
