"""How much of this process is locked. Linux alone tells."""

from __future__ import annotations

import dataclasses
import errno
import sys
from typing import Literal, final

from duende.mlock.errors import MlockError, MlockUnsupportedError

__all__ = ("MlockStatus", "is_locked", "locked_bytes", "parse_locked_bytes")

STATUS = "/proc/self/status"


def parse_locked_bytes(status: bytes) -> int:
    """This reads the VmLck line of a /proc/PID/status (proc(5)), in bytes.

    Raises:
        ValueError: There is no such line, or it is not a number of kB. Kernel
            threads have none.
    """
    for line in status.split(b"\n"):
        if line.startswith(b"VmLck:"):
            fields = line.split()
            if len(fields) != 3 or fields[2] != b"kB" or not fields[1].isdigit():
                raise ValueError(f"not a number of kB: {line!r}")
            return int(fields[1]) * 1024
    raise ValueError("there is no VmLck line")


def locked_bytes() -> int:
    """This is how many bytes of this process's address space are locked.

    All threads share one address space, so the answer is the same in each. With
    MCL_FUTURE alone nothing is locked yet, and the answer is 0 until something is
    mapped.

    Raises:
        MlockError: The platform does not tell (ENOTSUP), or /proc is not mounted
            or not readable (the errno of the attempt).
    """
    if sys.platform != "linux":
        raise MlockUnsupportedError(
            errno.ENOTSUP,
            f"{sys.platform} does not tell how much memory a process has locked; "
            "duende.mlock knows on Linux only",
        )
    try:
        with open(STATUS, "rb") as file:
            status = file.read()
    except OSError as error:
        raise MlockError(
            error.errno,
            f"can't read what is locked: {error.strerror}; is /proc mounted?",
            STATUS,
        ) from error
    try:
        return parse_locked_bytes(status)
    except ValueError as error:
        raise MlockUnsupportedError(
            errno.ENOTSUP,
            f"can't read how much memory is locked: {error}; the kernel should have "
            "CONFIG_MMU",
            STATUS,
        ) from error


def is_locked() -> bool:
    """This says whether any memory of this process is locked right now.

    Raises:
        MlockError: As for `locked_bytes`.
    """
    return locked_bytes() > 0


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MlockStatus:
    """This is what became of an attempt to lock the process's memory."""

    state: Literal["locked", "failed", "unsupported"]
    bytes_locked: int = 0
    """What was locked right after, as the kernel counts it (VmLck of proc(5))."""
    flags: tuple[str, ...] = ()
    """What is in force: "current", "future", "onfault"."""
    failure_errno: int | None = None
    """The errno of a failure; None when it is locked."""
    reason: str = ""
    """Why it is not locked."""
    hint: str = ""
    """What to do about that; of a lock, what to know about it."""

    def is_locked(self) -> bool:
        """This says whether what was asked for is in force.

        With "future" alone it is, although `bytes_locked` stays 0 until something is
        mapped.
        """
        return self.state == "locked"
