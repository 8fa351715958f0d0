"""Signals for daemons: streams inside a daemon's life, and the process's own.

`SignalStreams` never touches the operating system: a host puts numbers in.
`ProcessSignals` catches the process's signals, for the runner alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, final

import anyio
import anyio.lowlevel

__all__ = ("ProcessSignals", "SignalStream", "SignalStreams", "die_by")

_UNCATCHABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})


@final
class SignalStream:
    """This is an async iterator of the signals that one `with` block listens for.

    A signal that is still waiting to be taken is not put in again, just as the
    kernel does. The stream ends when the daemon is asked to stop.
    """

    def __init__(self, numbers: frozenset[signal.Signals]) -> None:
        self.numbers = numbers
        self._waiting: deque[signal.Signals] = deque()
        self._changed = anyio.Event()
        self._closed = False

    def put(self, number: signal.Signals) -> None:
        """This hands one signal to the reader."""
        if number not in self._waiting:
            self._waiting.append(number)
            self._changed.set()

    def close(self) -> None:
        """This ends the stream after what is waiting in it."""
        self._closed = True
        self._changed.set()

    def __aiter__(self) -> SignalStream:
        return self

    async def __anext__(self) -> signal.Signals:
        await anyio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._waiting.popleft()


@final
class SignalStreams:
    """This is all the open streams of one daemon.

    `prepare` is called with each signal that somebody begins to listen for.
    """

    def __init__(
        self, prepare: Callable[[signal.Signals], None] = lambda number: None
    ) -> None:
        self._prepare = prepare
        self._open: list[SignalStream] = []
        self._closed = False

    @contextlib.contextmanager
    def open(self, *numbers: int) -> Iterator[SignalStream]:
        """This listens for the signals inside a `with` block.

        Raises:
            ValueError: None was named, one does not exist, or can't be caught.
        """
        if not numbers:
            raise ValueError("name at least one signal, for example signal.SIGUSR1")
        wanted = frozenset(signal.Signals(number) for number in numbers)
        if impossible := wanted & _UNCATCHABLE:
            names = ", ".join(sorted(number.name for number in impossible))
            raise ValueError(f"{names} can't be caught (signal(7))")
        for number in wanted:
            self._prepare(number)
        stream = SignalStream(wanted)
        if self._closed:
            stream.close()
        self._open.append(stream)
        try:
            yield stream
        finally:
            self._open.remove(stream)

    def deliver(self, number: int) -> bool:
        """This hands a signal to every stream that listens; False: there is none."""
        taken = False
        for stream in self._open:
            if number in stream.numbers:
                stream.put(signal.Signals(number))
                taken = True
        return taken

    def close(self) -> None:
        """This ends all streams, those that are opened later too."""
        self._closed = True
        for stream in self._open:
            stream.close()


def die_by(number: int) -> NoReturn:
    """This ends the process by the signal's default action, at once."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    # Process 1 of a pid namespace is spared default actions (pid_namespaces(7)).
    os._exit(128 + number)


@final
class ProcessSignals:
    """This catches the process's signals and gives them to the event loop.

    The first SIGTERM or SIGINT is handed on; a second one ends the process there
    and then, even when the loop is blocked. Caught signals stay caught until
    `close`. For the main thread only, because of signal(2) in Python.
    """

    STOPPING = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._caught: deque[int] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous: dict[int, Any] = {}
        self._owns_wakeup = False
        self.stopped_by: int | None = None

    def catch(self, number: int) -> None:
        """This catches one more signal; more than once is harmless."""
        if number not in self._previous:
            self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self.STOPPING:
            if self.stopped_by is not None:
                die_by(number)
            self.stopped_by = number
        self._caught.append(number)
        try:
            self._writer.send(b"\0")
        except OSError:
            pass  # full: then the loop is already bound to wake

    async def listen(self) -> AsyncIterator[int]:
        """This gives each caught signal, in the order they were caught."""
        # A signal that comes between the last bytecode and epoll_wait runs no
        # handler before the loop wakes; asyncio, unlike trio, asks for no wake-up.
        previous = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        self._owns_wakeup = previous == -1
        if previous != -1:
            signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        while True:
            while self._caught:
                yield self._caught.popleft()
            await anyio.wait_readable(self._reader)
            try:
                while self._reader.recv(4096):
                    pass
            except BlockingIOError:
                pass

    def close(self) -> None:
        """This puts everything back as it was."""
        if self._owns_wakeup:
            current = signal.set_wakeup_fd(-1)
            if current not in (-1, self._writer.fileno()):
                signal.set_wakeup_fd(current)
            self._owns_wakeup = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        self._reader.close()
        self._writer.close()
