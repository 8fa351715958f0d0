"""The control server: who may connect, how many, and how long anything may take.

One task a connection; nothing of it can hold up the supervisor: a request has
deadlines, an answer that nobody reads is cut off, and when descriptors run out the
ones at the door wait. What requests mean is in `routes`, `handlers` and `streams`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from duende.core.control.api import SupervisorApi
from duende.core.control.handlers import answer_now, answer_waiting, http_error
from duende.core.control.http import (
    HttpConnection,
    HttpError,
    Limits,
    Request,
    error_body,
)
from duende.core.control.routes import Route, find_route
from duende.core.control.streams import Streams
from duende.core.control.unix_socket import bind_private
from duende.core.errors import DaemonError

__all__ = ("is_allowed", "serve_control")

_logger = logging.getLogger("duende.control")

_STREAMS: dict[str, Callable[[Streams, Request, HttpConnection], Any]] = {
    "events": Streams.events,
    "logs": Streams.logs,
    "growth": Streams.growth,
}
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def serve_control(
    api: SupervisorApi,
    socket_path: str,
    *,
    state: str,
    limits: Limits | None = None,
    owner: int | None = None,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """This serves the control API until it is cancelled, then removes its socket.

    Args:
        api: The supervisor.
        socket_path: Where to listen; the folder exists.
        state: The state folder.
        limits: What one client may take.
        owner: The uid that is let in beside root; the process's own.
        task_status: Told the path when connections are taken.

    Raises:
        AlreadyRunning: A living process listens there.
        PlatformError: The path is unusable.
        PermissionDenied: The folder may not be written.
    """
    listener = await anyio.to_thread.run_sync(bind_private, socket_path)
    server = _Server(api, state, limits or Limits(), owner)
    identity = _identity(socket_path)
    try:
        task_status.started(socket_path)
        await server.accept_all(listener)
    finally:
        listener.close()
        server.close()
        # A successor may have put its own socket there.
        if identity is not None and _identity(socket_path) == identity:
            os.unlink(socket_path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_allowed(uid: int, owner: int) -> bool:
    """This says whether a peer may use the socket: its owner and root alone."""
    return uid in (owner, 0)


def peer_uid(stream: socket.socket) -> int:
    """This is the uid of the process that connected (SO_PEERCRED, unix(7))."""
    credentials = stream.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


class _Server:
    def __init__(
        self, api: SupervisorApi, state: str, limits: Limits, owner: int | None
    ) -> None:
        self._api = api
        self._state = state
        self._limits = limits
        self._owner = os.geteuid() if owner is None else owner
        self._streams = Streams(api, state, limits)
        self._open_streams = 0
        self._slots = anyio.Semaphore(limits.connections)
        # Given up when descriptors run out, so that somebody can be let in and out.
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    async def accept_all(self, listener: socket.socket) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                await self._slots.acquire()
                try:
                    stream = await self._accept(listener)
                except BaseException:
                    self._slots.release()
                    raise
                tasks.start_soon(self._serve, stream)

    async def _accept(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                stream, _ = listener.accept()
            except BlockingIOError:
                await anyio.wait_readable(listener)
            except OSError as err:
                if err.errno not in _OUT_OF_DESCRIPTORS:
                    # accept(2): an error of that one connection, already gone.
                    await anyio.sleep(0)
                    continue
                self._turn_one_away(listener)
                await anyio.sleep(0.05)  # until something else is closed
            else:
                stream.setblocking(False)
                return stream

    def _turn_one_away(self, listener: socket.socket) -> None:
        if self._reserve is None:
            return
        os.close(self._reserve)
        self._reserve = None
        try:
            stream, _ = listener.accept()
            stream.close()
        except OSError:
            pass  # somebody else took the descriptor; the next round tries again
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass

    async def _serve(self, stream: socket.socket) -> None:
        connection = HttpConnection(stream, self._limits)
        try:
            if not is_allowed(peer_uid(stream), self._owner):
                await _refuse(
                    connection,
                    HttpError(
                        403,
                        "this socket is for its owner and root alone",
                        "run the command as the user who started the supervisor",
                    ),
                )
                return
            while await self._serve_one(connection):
                pass
        except (OSError, anyio.BrokenResourceError):
            pass  # the client has gone, or does not read: nobody is left to tell
        except Exception:
            # A fault in one request is not allowed to end the supervisor.
            _logger.exception("the control server failed in one connection")
        finally:
            stream.close()
            self._slots.release()

    async def _serve_one(self, connection: HttpConnection) -> bool:
        try:
            request = await connection.read_request()
            if request is None:
                return False
            await self._answer(request, connection)
        except HttpError as err:
            if not connection.can_answer_error:
                return False
            await _refuse(connection, err)
        return connection.next_cycle()

    async def _answer(self, request: Request, connection: HttpConnection) -> None:
        try:
            route = find_route(request.method, request.path)
            if route.action in _STREAMS:
                await self._stream(route, request, connection)
                return
            answer = answer_now(self._api, route, request)
            if answer is None:
                async with anyio.create_task_group() as tasks:
                    # Waiting for a client that has gone would hold its slot.
                    tasks.start_soon(
                        _cancel_when_closed, connection, tasks.cancel_scope
                    )
                    answer = await answer_waiting(
                        self._api, route, request, self._limits, self._state
                    )
                    tasks.cancel_scope.cancel()
        except Exception as err:
            raise _answerable(_first(err)) from err
        if answer is None:
            raise ConnectionAbortedError("the client has gone")
        await connection.send_json(
            answer.status, answer.body, head_only=request.method == "HEAD"
        )

    async def _stream(
        self, route: Route, request: Request, connection: HttpConnection
    ) -> None:
        if self._open_streams >= self._limits.streams:
            raise HttpError(
                503,
                f"{self._limits.streams} readers follow already",
                "end some of them",
            )
        self._open_streams += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_closed, connection, tasks.cancel_scope)
                await _STREAMS[route.action](self._streams, request, connection)
                tasks.cancel_scope.cancel()
        finally:
            self._open_streams -= 1
            connection.end_lines_at_once()


async def _cancel_when_closed(
    connection: HttpConnection, scope: anyio.CancelScope
) -> None:
    await connection.wait_closed()
    scope.cancel()


def _first(err: BaseException) -> BaseException:
    """This is the error inside the groups that task groups put around it."""
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    return err


def _answerable(err: BaseException) -> Exception:
    """This is the error that a failed request is answered with, or ends with."""
    match err:
        case HttpError():
            return HttpError(err.status, err.error, err.hint, err.headers)
        case DaemonError():
            return http_error(err)
        case TimeoutError():
            return HttpError(
                504, "it was not done in time", "see what it waits for: duende ps"
            )
        case OSError():
            return ConnectionAbortedError(str(err))
        case _:
            _logger.error("a request failed", exc_info=err)
            return HttpError(
                500, f"{type(err).__name__}: {err}", "this is a fault in duende"
            )


async def _refuse(connection: HttpConnection, err: HttpError) -> None:
    await connection.send_json(
        err.status,
        error_body(err.error, err.hint),
        (*err.headers, ("Connection", "close")),
    )
