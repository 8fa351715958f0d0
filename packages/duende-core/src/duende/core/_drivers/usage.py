"""How much CPU and memory a process uses, read straight from /proc.

One open, read and close a process: `duende ps` of a thousand daemons is one pass.
Where there is no /proc, psutil answers.
"""

from __future__ import annotations

import os
import time
from typing import final

import attrs

__all__ = ("Usage", "UsageReader")


@final
@attrs.frozen
class Usage:
    """`cpu_percent` is per cent of one core since the last look, `rss_bytes` bytes."""

    cpu_percent: float | None
    rss_bytes: int | None


class UsageReader:
    """This remembers the last look at each process, to tell its present CPU use."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, float, float]] = {}
        self._tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

    def read(self, pid: int) -> Usage:
        """This looks at a process; what can't be read is None."""
        try:
            descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        except OSError:
            return self._ask_psutil(pid)
        try:
            text = os.read(descriptor, 4096)
        except OSError:
            return Usage(None, None)
        finally:
            os.close(descriptor)
        # Fields from the third on, after the last ")": see proc_pid_stat(5).
        fields = text.rpartition(b")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / self._tick
        started = int(fields[19])
        now = time.monotonic()
        last = self._last.get(pid)
        if last is not None and last[0] == started:
            since, before = last[1], last[2]
        else:
            since, before = started / self._tick - _boot_offset(), 0.0
        if now - since >= 0.5 or last is None:
            self._last[pid] = (started, now, used)
        elapsed = now - since
        percent = round(100 * (used - before) / elapsed, 1) if elapsed > 0 else 0.0
        return Usage(max(0.0, percent), int(fields[21]) * self._page)

    def forget(self, alive: set[int]) -> None:
        """This drops what is remembered of processes that are gone."""
        for pid in self._last.keys() - alive:
            del self._last[pid]

    def _ask_psutil(self, pid: int) -> Usage:
        if os.path.exists("/proc/self/stat"):
            return Usage(None, None)
        import psutil

        try:
            process = psutil.Process(pid)
            return Usage(process.cpu_percent(), process.memory_info().rss)
        except psutil.Error:
            return Usage(None, None)


def _boot_offset() -> float:
    """Seconds by which CLOCK_BOOTTIME, the clock of start times, leads monotonic."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
