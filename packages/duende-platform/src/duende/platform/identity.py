"""Who a process is. A pid alone does not say it: the kernel hands it out again.

On Linux three things together do: the boot, the pid, and the start time in clock
ticks since boot (field 22 of /proc/PID/stat). From Linux 6.9 on the inode of a pidfd
is a fourth, unique for the life of the boot, also for two processes that got one pid
within one tick. Elsewhere it is the pid and the start time, which psutil reads.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
from typing import final

from duende.platform.errors import PlatformInfoError, ProcessGone

__all__ = (
    "ProcessIdentity",
    "boot_id",
    "parse_start_time",
    "process_start_time",
)

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str | None:
    """This is the UUID of this boot (random(4)); None where the system has none.

    Raises:
        PlatformInfoError: It is Linux, and the file can't be read.
    """
    if sys.platform != "linux":
        return None
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        raise PlatformInfoError(
            error.errno,
            f"can't read which boot this is: {error.strerror}; is /proc mounted?",
            BOOT_ID,
        ) from error


def parse_start_time(stat: bytes) -> int:
    """This reads field 22 of a /proc/PID/stat (proc(5)): clock ticks since boot.

    The second field is the program's name in parentheses and may hold anything,
    spaces, newlines and `)` too, so counting begins after the last `)`.

    Raises:
        ValueError: The text is no /proc/PID/stat.
    """
    _, closing, rest = stat.rpartition(b")")
    fields = rest.split()
    if not closing or len(fields) < 20 or not fields[19].isdigit():
        raise ValueError(f"not a /proc/PID/stat: {stat[:80]!r}")
    return int(fields[19])


def process_start_time(pid: int) -> int:
    """This says when a process began, as a number to compare and nothing else.

    Linux: clock ticks since boot. Elsewhere: microseconds since the epoch. Two
    different processes that had the same pid have different ones.

    Raises:
        ProcessGone: There is no such process.
        PlatformInfoError: It can't be read.
    """
    if pid <= 0:
        raise ProcessGone(errno.ESRCH, f"{pid} is no pid of a process")
    return _start_time_linux(pid) if sys.platform == "linux" else _start_time(pid)


def _start_time_linux(pid: int) -> int:
    path = f"/proc/{pid}/stat"
    try:
        with open(path, "rb") as file:
            return parse_start_time(file.read())
    # ESRCH: it ended between open and read. ENOENT: also without /proc, which
    # boot_id tells apart.
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(errno.ESRCH, f"no process has the pid {pid}") from error
    except OSError as error:
        raise PlatformInfoError(
            error.errno, f"can't read when {pid} began: {error.strerror}", path
        ) from error


def _start_time(pid: int) -> int:
    import psutil

    try:
        seconds: float = psutil.Process(pid).create_time()
        return round(seconds * 1_000_000)
    except psutil.NoSuchProcess as error:
        raise ProcessGone(errno.ESRCH, f"no process has the pid {pid}") from error
    except psutil.AccessDenied as error:
        raise PlatformInfoError(
            errno.EACCES, f"may not ask when {pid} began; ask as its user or as root"
        ) from error


def _pidfd_inode(pidfd: int) -> int | None:
    """This is the inode of a pidfd where it means one process; else None.

    Before Linux 6.9 all pidfds share one inode with every other anonymous fd; from
    then on they have a file system of their own (pidfs). The link in /proc/self/fd
    reads the same for both.
    """
    if sys.platform != "linux":
        return None
    found = os.fstat(pidfd)
    anonymous = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        is_own = found.st_dev != os.fstat(anonymous).st_dev
    finally:
        os.close(anonymous)
    return found.st_ino if is_own else None


@final
@dataclasses.dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """This is who a process is, and stays true when its pid is given to another.

    Two identities are the same process when all that both know is equal; `==` also
    asks that both know the same things. It can be kept in a file: after a reboot
    nothing matches it any more.
    """

    pid: int
    start: int
    """Its `process_start_time`."""
    boot: str | None = None
    """The `boot_id` it lives in; None off Linux."""
    inode: int | None = None
    """The inode of its pidfd; None before Linux 6.9 and off Linux."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """This identifies the process that has the pid now.

        Raises:
            ProcessGone: There is none.
            PlatformInfoError: It can't be read.
        """
        start = process_start_time(pid)
        inode = None
        if sys.platform == "linux":
            pidfd = _open_pidfd(pid)
            try:
                inode = _pidfd_inode(pidfd)
                # The start time again, now that the pidfd holds one process fast:
                # equal before and after, so the pidfd is of that very process.
                if process_start_time(pid) != start:
                    raise ProcessGone(errno.ESRCH, f"{pid} ended while it was asked")
            finally:
                os.close(pidfd)
        return cls(pid=pid, start=start, boot=boot_id(), inode=inode)

    def is_same(self, other: ProcessIdentity) -> bool:
        """This says whether both are one process, by all that both of them know."""
        return (
            (self.pid, self.start) == (other.pid, other.start)
            and _agree(self.boot, other.boot)
            and _agree(self.inode, other.inode)
        )

    def exists(self) -> bool:
        """This says whether the process is still there, as a zombie or alive.

        Raises:
            PlatformInfoError: It can't be read.
        """
        try:
            return self.is_same(ProcessIdentity.of(self.pid))
        except ProcessGone:
            return False

    def open_pidfd(self) -> int:
        """This opens a pidfd of this very process; the caller closes it.

        Raises:
            ProcessGone: It has ended, or its pid is another's now.
            PlatformInfoError: There are no pidfds here (Linux 5.3 has them).
        """
        if sys.platform != "linux":
            raise PlatformInfoError(
                errno.ENOTSUP, f"there are no pidfds on {sys.platform}, only on Linux"
            )
        pidfd = _open_pidfd(self.pid)
        try:
            found = ProcessIdentity(
                pid=self.pid,
                start=process_start_time(self.pid),
                boot=boot_id(),
                inode=_pidfd_inode(pidfd),
            )
            if not self.is_same(found):
                raise ProcessGone(
                    errno.ESRCH, f"the pid {self.pid} belongs to another process now"
                )
        except BaseException:
            os.close(pidfd)
            raise
        return pidfd

    def send_signal(self, number: int) -> None:
        """This sends a signal to this very process, never to a later one of its pid.

        Raises:
            ProcessGone: It has ended, or its pid is another's now.
            PlatformInfoError: It may not be signalled, or there are no pidfds here.
        """
        pidfd = self.open_pidfd()
        try:
            if sys.platform == "linux":
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError as error:
            raise ProcessGone(errno.ESRCH, f"the process {self.pid} ended") from error
        except OSError as error:
            raise PlatformInfoError(
                error.errno,
                f"can't send signal {number} to process {self.pid}: {error.strerror}",
            ) from error
        finally:
            os.close(pidfd)


def _agree(one: object | None, other: object | None) -> bool:
    return one is None or other is None or one == other


def _open_pidfd(pid: int) -> int:
    if sys.platform != "linux":
        raise AssertionError("callers ask on Linux only: nothing else has pidfds")
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise ProcessGone(errno.ESRCH, f"no process has the pid {pid}") from error
    except OSError as error:
        raise PlatformInfoError(
            error.errno,
            f"can't open a pidfd of process {pid}: {error.strerror}; "
            "Linux 5.3 or later is needed",
        ) from error
