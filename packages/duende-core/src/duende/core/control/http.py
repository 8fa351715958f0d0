"""HTTP/1.1 on one accepted unix socket: h11 does the talking, anyio the waiting.

Bounds live here: of a request's head, of its body, and of the time that either
side may take. What a request means is `control.handlers`.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterable, Mapping
from typing import Any, final
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import attrs
import h11

__all__ = ("HttpConnection", "HttpError", "Limits", "Request", "error_body")


@final
@attrs.frozen(kw_only=True)
class Limits:
    """This bounds what one client may take of the server. Sizes bytes, times seconds.

    `stall` is how long a peer may leave our answer unread; `idle` how long a
    connection may wait for its next request; `longest_wait` how long a command
    that names no timeout of its own may be waited for.
    """

    head: int = 16 * 1024
    body: int = 256 * 1024
    request: float = 10.0
    idle: float = 30.0
    stall: float = 10.0
    quick: float = 10.0
    longest_wait: float = 3600.0
    connections: int = 1024
    streams: int = 256
    stream_buffer: int = 1024 * 1024


@final
@attrs.frozen(kw_only=True)
class Request:
    """This is a request that was read to its end."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes

    def json(self) -> dict[str, Any]:
        """This is the body as a JSON object; an empty body is an empty object.

        Raises:
            HttpError: It is no JSON object.
        """
        if not self.body:
            return {}
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError) as err:
            raise HttpError(400, f"the body is no JSON: {err}") from err
        if not isinstance(parsed, dict):
            raise HttpError(400, "the body must be a JSON object")
        return parsed


class HttpError(Exception):
    """A request that gets an error as its answer."""

    def __init__(
        self,
        status: int,
        error: str,
        hint: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(status, error, hint, headers)
        self.status = status
        self.error = error
        self.hint = hint
        self.headers = headers


def error_body(error: str, hint: str = "") -> dict[str, object]:
    """This is the JSON of every error."""
    return {"error": error, "hint": hint}


class HttpConnection:
    """This reads requests from a non-blocking socket and writes answers to it."""

    def __init__(self, stream: socket.socket, limits: Limits) -> None:
        self._socket = stream
        self._limits = limits
        self._half_closed = False
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)

    async def read_request(self) -> Request | None:
        """This is the next request, or None when there is none any more.

        Raises:
            HttpError: What came is no request, is too large, or took too long.
        """
        head: h11.Request | None = None
        body = bytearray()
        scope = anyio.CancelScope()
        scope.deadline = anyio.current_time() + self._limits.idle
        began = False
        with scope:
            while True:
                event = self._next_event()
                if event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        await self._send(
                            h11.InformationalResponse(status_code=100, headers=[])
                        )
                    received = await self._receive()
                    if received and not began:
                        began = True
                        scope.deadline = anyio.current_time() + self._limits.request
                    self._h11.receive_data(received)
                elif isinstance(event, h11.Request):
                    head = event
                    self._refuse_large(head)
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > self._limits.body:
                        raise self._too_large()
                elif isinstance(event, h11.EndOfMessage):
                    assert head is not None  # h11: a message begins with its head
                    return _parse(head, bytes(body))
                else:
                    return None
        if head is None and not began and not self._h11.trailing_data[0]:
            return None
        raise HttpError(
            408, f"the request did not arrive within {self._limits.request:g} s"
        )

    def _next_event(self) -> Any:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as err:
            status = err.error_status_hint or 400
            raise HttpError(status, f"this is no HTTP/1.1 request: {err}") from err

    def _refuse_large(self, head: h11.Request) -> None:
        for name, value in head.headers:
            if name == b"content-length" and int(value) > self._limits.body:
                raise self._too_large()

    def _too_large(self) -> HttpError:
        return HttpError(
            413, f"the body is larger than {self._limits.body} bytes", "send less"
        )

    async def send_json(
        self,
        status: int,
        body: object,
        headers: Iterable[tuple[str, str]] = (),
        *,
        head_only: bool = False,
    ) -> None:
        """This answers with a JSON value."""
        content = json.dumps(body, separators=(",", ":"), default=str).encode() + b"\n"
        await self._send(
            h11.Response(
                status_code=status,
                headers=[
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(content))),
                    *headers,
                ],
            ),
            *(() if head_only else (h11.Data(data=content),)),
            h11.EndOfMessage(),
        )

    async def start_lines(self) -> None:
        """This begins an answer of JSON lines."""
        await self._send(
            h11.Response(
                status_code=200,
                headers=[("Content-Type", "application/x-ndjson")],
            )
        )

    async def send_lines(self, lines: bytes) -> None:
        """This sends a part of an answer of JSON lines."""
        await self._send(h11.Data(data=lines))

    async def end_lines(self) -> None:
        """This ends an answer of JSON lines."""
        await self._send(h11.EndOfMessage())

    def end_lines_at_once(self) -> None:
        """This ends an answer of JSON lines that was begun, without waiting."""
        if self._h11.our_state is not h11.SEND_BODY:
            return
        try:
            content = self._h11.send(h11.EndOfMessage())
            if content:
                self._socket.send(content)
        except (OSError, h11.LocalProtocolError):
            pass  # in the middle of a line, or gone: the close says the same

    @property
    def can_answer_error(self) -> bool:
        """Whether no answer to the current request has been begun."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def next_cycle(self) -> bool:
        """This prepares for the next request; False when the connection is done."""
        if self._half_closed:
            return False
        if (self._h11.our_state, self._h11.their_state) != (h11.DONE, h11.DONE):
            return False
        self._h11.start_next_cycle()
        return True

    async def wait_closed(self) -> None:
        """This returns when the client has gone away; half-closed isn't gone."""
        while True:
            await anyio.wait_readable(self._socket)
            try:
                if self._socket.recv(1, socket.MSG_PEEK):
                    break  # it sends its next request early: it is there
            except BlockingIOError:
                continue
            except OSError:
                return
            poll = select.poll()
            poll.register(self._socket, 0)
            if any(
                mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0)
            ):
                return
            self._half_closed = True
            break
        # From here on readable says nothing new; a write will tell.
        await anyio.sleep_forever()

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(65536)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except ConnectionResetError:
                return b""

    async def _send(self, *events: Any) -> None:
        """This writes whole events; ConnectionError when the peer doesn't take them."""
        content = memoryview(b"".join(self._h11.send(event) or b"" for event in events))
        # An answer that fits into the socket's buffer leaves without a checkpoint, so
        # that of a shutdown is not lost when the server is cancelled right after.
        with anyio.CancelScope() as scope:
            scope.deadline = anyio.current_time() + self._limits.stall
            while content:
                try:
                    content = content[self._socket.send(content) :]
                    scope.deadline = anyio.current_time() + self._limits.stall
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
        if content:
            raise ConnectionAbortedError("the client does not read its answer")


def _parse(head: h11.Request, body: bytes) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
        query = parse_qs(target.query, keep_blank_values=True, max_num_fields=10_000)
        path = unquote(target.path, errors="strict")
    except ValueError as err:
        raise HttpError(400, f"the request target can't be read: {err}") from err
    return Request(
        method=head.method.decode("ascii"), path=path, query=query, body=body
    )
