"""The keeper's protocol from the other side: starting one, and talking to it.

This module imports the standard library only, so that verbs which just ask
something start fast. The side for the control plane's event loop, `AsyncKeeper`,
is loaded from `_keeper_async` when it is first asked for.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping

from duende.core.errors import AlreadyRunning, PermissionDenied, PlatformError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duende.core._keeper_async import AsyncKeeper

__all__ = (
    "AsyncKeeper",
    "KeeperConnection",
    "KeeperLost",
    "KeeperRefused",
    "KeeperStart",
    "Snapshot",
    "begin_keeper",
    "keeper_is_alive",
    "start_keeper",
)

PROTOCOL_VERSION = 1
_READ_SIZE = 256 * 1024
_READY_FD = 3
_PYC_HEADER = 16  # PEP 552: magic, flags, mtime, size; four bytes each


class KeeperLost(PlatformError):
    """The connection to the keeper ended, or there is none to connect to."""


class KeeperRefused(PlatformError):
    """The keeper refused a request. `reason` is its word for it (`busy`, `stale`)."""

    def __init__(self, what: str, hint: str = "", reason: str = "") -> None:
        super().__init__(what, hint)
        self.args = (what, hint, reason)
        self.reason = reason


def __getattr__(name: str) -> object:
    if name == "AsyncKeeper":
        from duende.core._keeper_async import AsyncKeeper

        return AsyncKeeper
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def keeper_program() -> str:
    """This finds the keeper's file: its bytecode where that is up to date.

    A script is compiled each time it is run, which would cost the first daemon
    40 ms; bytecode that belongs to exactly this source does not.
    """
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
    cached = os.path.join(
        os.path.dirname(source),
        "__pycache__",
        f"keeper.{sys.implementation.cache_tag}.pyc",
    )
    if sys.implementation.cache_tag is None:
        return source
    if not _is_current(cached, source):
        try:
            import py_compile

            py_compile.compile(source, doraise=True)
        except (OSError, py_compile.PyCompileError):
            return source
    return cached if _is_current(cached, source) else source


def _is_current(cached: str, source: str) -> bool:
    import _imp
    from importlib.util import MAGIC_NUMBER

    try:
        with open(cached, "rb") as file:
            header = file.read(_PYC_HEADER)
        status = os.stat(source)
    except OSError:
        return False
    if len(header) < _PYC_HEADER or header[:4] != MAGIC_NUMBER:
        return False
    flags = int.from_bytes(header[4:8], "little")
    if flags & 1:  # hash-based: a build that fixed the content, checked or not
        with open(source, "rb") as file:
            key = int.from_bytes(MAGIC_NUMBER[:2], "little") | 0x0D0A0000
            return header[8:16] == _imp.source_hash(key, file.read())
    mtime = int(status.st_mtime) & 0xFFFFFFFF
    size = status.st_size & 0xFFFFFFFF
    return header[8:16] == mtime.to_bytes(4, "little") + size.to_bytes(4, "little")


def start_keeper(
    state: str | os.PathLike[str],
    runtime: str | os.PathLike[str],
    *,
    owner: int | None = None,
    environ: Mapping[str, str] | None = None,
    mode: str = "foreground",
    timeout: float = 10.0,
) -> int:
    """This starts a keeper and waits until it listens; it gives its pid.

    The keeper is a child of the caller, in a session of its own.

    Args:
        state: The state folder; made if missing, 0700.
        runtime: The runtime folder; made if missing, 0711.
        owner: A pid. The keeper ends its daemons, and itself, when that dies.
        environ: The keeper's environment; the caller's if None.
        mode: `foreground` or `background`, for people who look at `ps`.
        timeout: Seconds to wait for it to listen.

    Raises:
        AlreadyRunning: Another keeper holds the state folder.
        PermissionDenied: A folder is not ours or can't be made.
        PlatformError: It did not start.
    """
    start = begin_keeper(state, runtime, owner=owner, environ=environ, mode=mode)
    return start.wait(timeout)


def begin_keeper(
    state: str | os.PathLike[str],
    runtime: str | os.PathLike[str],
    *,
    owner: int | None = None,
    environ: Mapping[str, str] | None = None,
    mode: str = "foreground",
) -> KeeperStart:
    """This starts a keeper, as `start_keeper` does, but does not wait for it.

    Raises:
        PlatformError: The program can't be executed.
    """
    state, runtime = os.path.abspath(state), os.path.abspath(runtime)
    arguments = [sys.executable, "-I", "-S", keeper_program()]
    arguments += ["--state", state, "--runtime", runtime, "--mode", mode]
    if owner is not None:
        arguments += ["--owner", str(owner)]
    arguments += ["--ready-fd", str(_READY_FD)]
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # High, as the file action below must not meet its own target.
    high = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(writing)
    try:
        pid = os.posix_spawn(
            sys.executable,
            arguments,
            dict(os.environ if environ is None else environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
                (os.POSIX_SPAWN_DUP2, high, _READY_FD),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    except OSError as err:
        os.close(reading)
        raise PlatformError(
            f"the keeper could not be started with {sys.executable}: {err.strerror}"
        ) from err
    finally:
        os.close(high)
    return KeeperStart(pid, state, reading)


class KeeperStart:
    """This is a keeper on its way: call either `wait` or `abandon`, or both."""

    def __init__(self, pid: int, state: str, reading: int) -> None:
        self.pid = pid
        self._state = state
        self._reading = reading
        self._ended = False

    def wait(self, timeout: float = 10.0) -> int:
        """This waits until it listens; it gives its pid.

        Raises:
            AlreadyRunning: Another keeper holds the state folder.
            PermissionDenied: A folder is not ours or can't be made.
            PlatformError: It did not start within `timeout` seconds.
        """
        try:
            answer = _read_answer(self._reading, time.monotonic() + timeout)
        finally:
            os.close(self._reading)
            self._reading = -1
        if answer is None:
            self.abandon()
            raise PlatformError(
                f"the keeper for {self._state} did not listen within {timeout:g} s",
                f"look into {self._state}/keeper.log",
            )
        if answer.get("ok"):
            return self.pid
        os.waitpid(self.pid, 0)
        self._ended = True
        raise _start_error(self._state, answer)

    def abandon(self) -> None:
        """This kills it; nothing can have been started by it yet."""
        if self._ended:
            return
        self._ended = True
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        if self._reading >= 0:
            os.close(self._reading)


def _read_answer(fd: int, deadline: float) -> dict[str, Any] | None:
    data = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return None
        part = os.read(fd, 4096)
        if not part:
            return {"error": "it ended before it listened"}
        data += part
    answer = json.loads(data)
    return answer if isinstance(answer, dict) else None


def _start_error(state: str, answer: Mapping[str, Any]) -> Exception:
    reason, other, number = answer.get("error"), answer.get("pid"), answer.get("errno")
    if other is not None:
        return AlreadyRunning(
            f"a keeper (pid {other}) holds {state} already",
            "attach to it instead of starting another",
        )
    what = f"the keeper for {state} could not start: {reason}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(what, "use folders that you may write to")
    return PlatformError(what, f"look into {state}/keeper.log")


def keeper_is_alive(state: str | os.PathLike[str]) -> int | None:
    """This gives the pid of the keeper that holds a state folder, or None.

    The lock is asked, not the file: what a dead keeper left behind does not count.
    """
    try:
        fd = os.open(os.path.join(state, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None


class Snapshot:
    """This is what the keeper said at `attach` or `peek`.

    `slots` holds the `slot` lines, `attached` the line that ended them.
    """

    __slots__ = ("attached", "slots")

    def __init__(
        self, slots: tuple[dict[str, Any], ...], attached: dict[str, Any]
    ) -> None:
        self.slots = slots
        self.attached = attached

    @property
    def keeper_pid(self) -> int:
        """The keeper's pid."""
        return int(self.attached["keeper_pid"])

    @property
    def boot_id(self) -> str:
        """The machine's boot id, which says whether old pids mean anything."""
        return str(self.attached["boot_id"])

    @property
    def blob(self) -> Any:
        """What was last `put` for the project."""
        return self.attached["blob"]

    def __repr__(self) -> str:
        return f"Snapshot({len(self.slots)} slots, seq {self.attached.get('seq')})"


def _connect(state: str | os.PathLike[str], timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = -1
    try:
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sock.settimeout(timeout)
        # Through the folder's fd, as the path may be longer than sun_path.
        sock.connect(f"/proc/self/fd/{folder}/keeper.sock")
    except PermissionError as err:
        sock.close()
        raise PermissionDenied(
            f"the keeper of {os.fspath(state)} belongs to another user",
            "run this as the user who started it",
        ) from err
    except OSError as err:
        sock.close()
        raise KeeperLost(
            f"no keeper listens in {os.fspath(state)} ({err.strerror or err})"
        ) from err
    finally:
        if folder >= 0:
            os.close(folder)
    return sock


class KeeperConnection:
    """This is a blocking connection to the keeper of a state folder.

    Use it from one thread.

    Args:
        state: The state folder; its path may be longer than a socket's may.
        timeout: Seconds that any wait may take.

    Raises:
        KeeperLost: No keeper listens there.
        PermissionDenied: It belongs to another user.
    """

    def __init__(self, state: str | os.PathLike[str], timeout: float = 10.0) -> None:
        self._sock = _connect(state, timeout)
        self._partial = b""
        self._lines: list[dict[str, Any]] = []
        self._last_id = 0

    @classmethod
    def connect(
        cls, state: str | os.PathLike[str], timeout: float = 10.0
    ) -> KeeperConnection:
        """This connects to the keeper of a state folder, as the class itself does."""
        return cls(state, timeout)

    def __enter__(self) -> KeeperConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """This ends the connection; the keeper and the daemons go on."""
        self._sock.close()

    def fileno(self) -> int:
        """The socket's fd, to be waited for."""
        return self._sock.fileno()

    def send(self, request: Mapping[str, object]) -> None:
        """This sends a request and does not wait for anything.

        Raises:
            KeeperLost: The connection has ended.
        """
        line = json.dumps(request, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            self._sock.sendall(line)
        except OSError as err:
            raise KeeperLost(f"the keeper can't be written to: {err}") from err

    def request(self, op: str, **fields: object) -> dict[str, Any]:
        """This sends a request and waits for its reply.

        Events that come meanwhile are kept for `receive_lines`.

        Raises:
            KeeperLost: The connection has ended, or the time was up.
            KeeperRefused: The keeper said no.
        """
        reply, others = self._exchange(op, fields)
        self._lines += others
        return reply

    def _exchange(
        self, op: str, fields: Mapping[str, object]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        self._last_id += 1
        self.send({"id": self._last_id, "op": op, **fields})
        others: list[dict[str, Any]] = []
        while True:
            reply: dict[str, Any] | None = None
            for line in self._receive():
                if line.get("re") == self._last_id:
                    reply = line
                else:
                    others.append(line)
            if reply is not None:
                check_reply(op, reply)
                return reply, others

    def attach(self) -> Snapshot:
        """This becomes the control plane of the keeper; an older one is cut off."""
        return self._snapshot("attach", version=PROTOCOL_VERSION, pid=os.getpid())

    def peek(self) -> Snapshot:
        """This asks for the snapshot without becoming the control plane."""
        return self._snapshot("peek")

    def _snapshot(self, op: str, **fields: object) -> Snapshot:
        _, lines = self._exchange(op, fields)
        slots: list[dict[str, Any]] = []
        attached: dict[str, Any] | None = None
        for line in lines:
            kind = line.get("ev")
            if attached is None and kind == "slot":
                slots.append(line)
            elif attached is None and kind == "attached":
                attached = line
            else:
                self._lines.append(line)
        if attached is None:
            raise KeeperLost("the keeper's snapshot has no end")
        return Snapshot(tuple(slots), attached)

    def receive_lines(self) -> list[dict[str, Any]]:
        """This waits for events and returns all that have come.

        Raises:
            KeeperLost: The connection has ended, or the time was up.
        """
        while not self._lines:
            self._lines = self._receive()
        lines, self._lines = self._lines, []
        return lines

    def _receive(self) -> list[dict[str, Any]]:
        try:
            data = self._sock.recv(_READ_SIZE)
        except TimeoutError as err:
            raise KeeperLost("the keeper did not answer in time") from err
        except OSError as err:
            raise KeeperLost(f"the keeper can't be read from: {err}") from err
        if not data:
            raise KeeperLost(
                "the keeper closed the connection",
                "it died, or another control plane has attached",
            )
        lines, self._partial = split_lines(self._partial + data)
        return lines

    def detach(self) -> tuple[socket.socket, bytes, list[dict[str, Any]]]:
        """This gives the socket away, with what was read of it and not handed out."""
        return self._sock, self._partial, self._lines


def split_lines(data: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """This decodes the whole lines of `data`; the second value is the rest.

    Raises:
        KeeperLost: Something that is no line of the protocol.
    """
    *whole, rest = data.split(b"\n")
    try:
        return [json.loads(line) for line in whole if line], rest
    except ValueError as err:
        raise KeeperLost(f"the keeper sent what is no JSON: {err}") from err


def check_reply(op: str, reply: Mapping[str, Any]) -> None:
    """This raises KeeperRefused for a reply that is an error."""
    reason = reply.get("error")
    if reason is not None:
        raise KeeperRefused(f"the keeper refused {op!r}: {reason}", "", str(reason))
