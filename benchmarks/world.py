"""What the harness sees of the world, without polling: marks, deaths, CPU, memory.

Children write their times into a file that is shared with them (`Marks`), and wake
the harness once, when the awaited number of events is reached. Their deaths are seen
as the end of a FIFO that each of them holds open (`Alive`).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import select
import signal
import struct
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = (
    "Alive",
    "Marks",
    "TooSlow",
    "await_end",
    "cpu_nanoseconds",
    "descendants",
    "end_process",
    "proportional_size",
    "runs",
)

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine(), 202)
_FUTEX_WAIT = 0
_HEADER = 64
_SLOT = struct.Struct("<QQQQII24x")
_LIBC = ctypes.CDLL(None, use_errno=True)


class TooSlow(Exception):
    """What was waited for did not happen in time."""


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Slot:
    """This is what one child has noted: times in monotonic nanoseconds."""

    __slots__ = ("began", "count", "first_write", "last_write", "pid", "written")

    def __init__(self, packed: tuple[int, ...]) -> None:
        self.began, self.first_write, self.last_write, self.written = packed[:4]
        self.pid, self.count = packed[4:]


class Marks:
    """This is the file in which children note what happens to them.

    Args:
        path: Where it is made.
        count: How many children there may be.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        size = _HEADER + _SLOT.size * count
        with open(path, "w+b") as stream:
            stream.truncate(size)
            self._map = mmap.mmap(stream.fileno(), size)
        self._words = (ctypes.c_uint32 * 3).from_buffer(self._map)

    def close(self) -> None:
        """This lets go of the file."""
        del self._words
        self._map.close()

    @property
    def events(self) -> int:
        """How many events there have been."""
        return int(self._words[0])

    def expect(self, more: int) -> None:
        """This arms the wake-up: say it before what causes the events."""
        self._words[2] = 0
        self._words[1] = self.events + more

    def wait(self, timeout: float) -> None:
        """This sleeps until the expected number of events is there.

        Raises:
            TooSlow: It is not, after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        address = ctypes.addressof(self._words) + 8
        while not self._words[2]:
            left = until - time.monotonic()
            if left <= 0:
                missing = self._words[1] - self.events
                raise TooSlow(f"{missing} events are missing after {timeout:g} s")
            pause = _Time(int(left), int(left % 1 * 1e9))
            result = _LIBC.syscall(
                ctypes.c_long(_FUTEX),
                ctypes.c_void_p(address),
                ctypes.c_int(_FUTEX_WAIT),
                ctypes.c_uint32(0),
                ctypes.byref(pause),
                None,
                ctypes.c_int(0),
            )
            number = ctypes.get_errno()
            if result and number not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                raise OSError(number, os.strerror(number))

    def slot(self, number: int) -> Slot:
        """This reads what one child has noted."""
        return Slot(_SLOT.unpack_from(self._map, _HEADER + number * _SLOT.size))

    def slots(self, count: int) -> list[Slot]:
        """This reads what the first `count` children have noted."""
        return [self.slot(number) for number in range(count)]


class Alive:
    """This sees the moment at which the last child is gone: the end of a FIFO."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, timeout: float) -> int:
        """This sleeps until no child is left, and gives the time in nanoseconds.

        Raises:
            TooSlow: One is left.
        """
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if not poll.poll(timeout * 1000):
            raise TooSlow(f"children are left after {timeout:g} s")
        return time.monotonic_ns()

    def close(self) -> None:
        """This lets go of the FIFO."""
        os.close(self._descriptor)


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return text[text.rindex(")") + 2 :].split()


def descendants(roots: Iterable[int], without: Path | None = None) -> list[int]:
    """This lists living processes below the roots, the roots included.

    `without` leaves out processes that run this program: the children measured.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = _stat(int(entry))
            except (OSError, ValueError):
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found and not (without and runs(pid, without)):
            found.append(pid)
            todo += children.get(pid, ())
    return [pid for pid in found if os.path.exists(f"/proc/{pid}")]


def runs(pid: int, program: Path) -> bool:
    """Whether the process executes this program."""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)
    except OSError:
        return False


def cpu_nanoseconds(pids: Iterable[int]) -> int:
    """This sums the time on a CPU of all threads of the processes."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                total += int(text.split()[0])
        except OSError:
            continue
    return total


def proportional_size(pids: Iterable[int]) -> float:
    """This sums the proportional set size of the processes, in MB (10**6 bytes)."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total / 1e6


def await_end(pid: int, timeout: float) -> bool:
    """This sleeps until a process has ended; False when the time is over first."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(descriptor)


def end_process(pid: int, timeout: float = 5.0) -> None:
    """This ends a process that the harness started: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if await_end(pid, timeout):
            return
