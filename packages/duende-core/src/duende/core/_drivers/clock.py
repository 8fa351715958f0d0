"""The clock of the drivers: monotonic nanoseconds, and how to wait for one of them.

`time.monotonic_ns` is the same clock in every process of this machine, so that a
deadline written down by one control plane means the same to the next.
"""

from __future__ import annotations

import datetime
import functools
import time
from typing import Protocol

import anyio

__all__ = ("Clock", "LoopClock", "MonotonicClock", "rfc3339")


class Clock(Protocol):
    """This gives the time to a supervisor."""

    def now(self) -> int:
        """The monotonic time in nanoseconds."""
        ...

    def wall(self) -> float:
        """The time of day, in seconds since the epoch; for display alone."""
        ...


class MonotonicClock:
    """This is CLOCK_MONOTONIC (clock_gettime(2)), shared by all processes."""

    def now(self) -> int:
        return time.monotonic_ns()

    def wall(self) -> float:
        return time.time()


class LoopClock:
    """This is the event loop's own clock: what a virtual clock moves, moves this.

    It begins at the machine's monotonic time, so that on an ordinary loop it agrees
    with the times that the keeper gives.
    """

    def __init__(self) -> None:
        self._ahead = time.monotonic_ns() - round(anyio.current_time() * 1e9)
        self._wall = time.time() - time.monotonic()

    def now(self) -> int:
        return round(anyio.current_time() * 1e9) + self._ahead

    def wall(self) -> float:
        return self.now() / 1e9 + self._wall


def rfc3339(seconds: float) -> str:
    """This renders seconds since the epoch as RFC 3339, UTC, in microseconds."""
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_whole_second(whole)}.{microseconds:06d}Z"


@functools.lru_cache(maxsize=4)
def _whole_second(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
