"""Find processes that were left behind, and end them.

While a guard is open, this process is a subreaper (prctl(2), Linux 3.4): whatever its
descendants abandon becomes its child instead of init's, so nothing gets away.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from types import TracebackType
from typing import Self, final

import attrs

from duende.core.errors import NotSupported

__all__ = ("Leftover", "LeftoverGuard", "LeftoversFound")

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PR_GET_CHILD_SUBREAPER = 37


@final
@attrs.frozen(kw_only=True)
class Leftover:
    """This is a process that should not be there: who it is, and what it runs."""

    pid: int
    parent: int
    start: int
    """When it began, in clock ticks since boot: with the pid, who it is."""
    state: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid}, child of {self.parent}: {self.command}"


@final
class LeftoversFound(AssertionError):
    """This is what a test fails with. `leftovers` holds what was found."""

    def __init__(self, leftovers: tuple[Leftover, ...]) -> None:
        super().__init__(leftovers)
        self.leftovers = leftovers

    def __str__(self) -> str:
        lines = "\n  ".join(str(leftover) for leftover in self.leftovers)
        return (
            f"{len(self.leftovers)} processes were left behind (now killed); "
            f"stop them before the test ends:\n  {lines}"
        )


@final
class LeftoverGuard:
    """This is a context manager that raises for processes left behind inside it.

    `grace` is how long, in seconds, what is ending anyway may take to do so.
    """

    def __init__(self, grace: float = 1.0) -> None:
        self._grace = grace
        self._before: frozenset[tuple[int, int]] = frozenset()
        self._was_subreaper = False

    def __enter__(self) -> Self:
        if sys.platform != "linux":
            raise NotSupported(
                "finding processes that were left behind needs /proc and a subreaper, "
                f"which {sys.platform} does not have",
                "run this test on Linux",
            )
        self._was_subreaper = _set_subreaper(True)
        self._before = frozenset((each.pid, each.start) for each in _descendants())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            found = self._wait_until_gone(self._grace)
            if found:
                self._end()
        finally:
            _set_subreaper(self._was_subreaper)
        # A failing test has its own reason; ours would only hide it.
        if found and error is None:
            raise LeftoversFound(found)

    def leftovers(self) -> tuple[Leftover, ...]:
        """This lists what this process's descendants are now and were not before."""
        return tuple(
            each
            for each in _descendants()
            if (each.pid, each.start) not in self._before
        )

    def _wait_until_gone(self, seconds: float) -> tuple[Leftover, ...]:
        deadline = time.monotonic() + seconds
        while True:
            self._reap()
            found = self.leftovers()
            if not found or time.monotonic() >= deadline:
                return found
            # Nothing tells when a descendant that is not a child ends: look again.
            time.sleep(0.01)

    def _end(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = self.leftovers()
            if not found:
                return
            for leftover in found:
                if leftover.state != "Z":
                    _kill(leftover)
            self._reap()
            time.sleep(0.01)

    def _reap(self) -> None:
        """This waits for our children that have ended: they hold nothing any more.

        Most were abandoned by somebody else and would have been init's to reap.
        """
        for each in self.leftovers():
            if each.state == "Z" and each.parent == os.getpid():
                try:
                    os.waitpid(each.pid, 0)
                except ChildProcessError:
                    pass


def _kill(leftover: Leftover) -> None:
    if sys.platform != "linux":
        raise AssertionError("a guard that was entered is on Linux")
    try:
        pidfd = os.pidfd_open(leftover.pid)
    except ProcessLookupError:
        return
    try:
        # Held fast by the pidfd, it is looked at once more: never kill a stranger.
        now = _read(leftover.pid)
        if now is not None and now.start == leftover.start:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _descendants() -> tuple[Leftover, ...]:
    everything = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found = _read(int(entry))
            if found is not None:
                everything[found.pid] = found
    inside = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, each in everything.items() if each.parent in inside}
        grown = not more <= inside
        inside |= more
    return tuple(everything[pid] for pid in sorted(inside - {os.getpid()}))


def _read(pid: int) -> Leftover | None:
    """This reads one process of /proc; None when it has gone meanwhile."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    name = head.partition(b"(")[2]
    command = b" ".join(words) or b"[" + name + b"]"
    return Leftover(
        pid=pid,
        parent=int(fields[1]),
        start=int(fields[19]),
        state=fields[0].decode(),
        command=ascii(command.decode("utf-8", "replace"))[1:-1][:200],
    )


def _set_subreaper(wanted: bool) -> bool:
    """This switches the attribute of this process, and returns what it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    if libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_GET_CHILD_SUBREAPER)")
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    return bool(before.value)
