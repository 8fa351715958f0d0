"""A wait without a limit is ended by a signal, also by one that came just before."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from duende.core.control.interrupts import Interrupts

Pair = tuple[socket.socket, socket.socket]


class Alarm(Exception):
    """What the handler raises, as Ctrl-C does."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(autouse=True)
def handled() -> Iterator[list[int]]:
    """SIGUSR1 has a handler that takes note and goes on."""
    seen: list[int] = []
    former = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGUSR1, former)


class LatePoll:
    """A poll that a signal comes just before: its handler has run, and poll begins."""

    def __init__(self) -> None:
        self._poll = REAL_POLL()
        self.register = self._poll.register

    def poll(self) -> list[tuple[int, int]]:
        signal.raise_signal(signal.SIGUSR1)
        return self._poll.poll(30_000)


REAL_POLL = select.poll


def test_a_signal_that_came_just_before(
    pair: Pair, handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait returns at once, though nothing can be read."""
    monkeypatch.setattr(select, "poll", LatePoll)
    interrupts = Interrupts(pair[0])
    began = time.monotonic()
    assert not interrupts.wait()
    assert time.monotonic() - began < 20
    assert handled == [signal.SIGUSR1]
    pair[1].send(b"x")
    assert interrupts.wait()
    interrupts.close()


def test_a_handler_that_raises_during_the_wait(pair: Pair) -> None:
    """Its exception ends the wait, as KeyboardInterrupt does."""

    def ring(number: int, frame: object) -> None:
        raise Alarm

    former = signal.signal(signal.SIGALRM, ring)
    interrupts = Interrupts(pair[0])
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Alarm):
            while True:
                interrupts.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        interrupts.close()


def test_what_was_there_before_comes_back(pair: Pair) -> None:
    """An event loop that looks after signals has them again; nothing stays open."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = len(os.listdir("/proc/self/fd"))
    former = signal.set_wakeup_fd(write)
    pair[1].send(b"x")
    interrupts = Interrupts(pair[0])
    assert interrupts.wait()
    interrupts.close()
    assert signal.set_wakeup_fd(former) == write
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)


def test_in_another_thread(pair: Pair) -> None:
    """There it waits for the socket alone."""
    found: list[bool] = []

    def look() -> None:
        interrupts = Interrupts(pair[0])
        found.append(interrupts.wait())
        interrupts.close()

    thread = threading.Thread(target=look)
    thread.start()
    pair[1].send(b"x")
    thread.join(30)
    assert found == [True]
