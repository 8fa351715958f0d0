"""Locking the whole process's memory into RAM (mlockall(2)).

The lock belongs to the process: all threads share it. It survives neither fork nor exec
(a child begins unlocked), so a daemon must lock itself. What is locked is believed
only when the kernel's own count, VmLck in /proc/self/status, says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator

from duende.mlock import _system
from duende.mlock.config import MlockConfig
from duende.mlock.errors import (
    CLASSES,
    MlockError,
    MlockInvalidError,
    MlockLimitError,
    MlockMemoryError,
    MlockPermissionError,
    MlockUnsupportedError,
    MlockWouldBlockError,
)
from duende.mlock.limits import has_ipc_lock, memlock_limit
from duende.mlock.status import MlockStatus, locked_bytes

__all__ = ("lock_all", "lock_with_config", "memory_locked", "unlock_all")

DIAGNOSE = "python -m duende.mlock diagnose prints the line that mends it"

_guard = threading.RLock()
_in_force: tuple[str, ...] = ()
"""The flags of the last lock of this library that holds."""


def _forget() -> None:
    """This is for a forked child: no lock comes with it."""
    global _in_force, _guard
    _in_force = ()
    _guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lock_all() -> MlockStatus:
    """This locks all memory that the process has and will have.

    Raises:
        MlockError: It can't be done; the class says why.
    """
    return lock_with_config(MlockConfig())


def lock_with_config(config: MlockConfig) -> MlockStatus:
    """This locks what a configuration says.

    A lock replaces the one before: `current` without `future` also ends an earlier
    `future`, while what was locked stays so.

    Returns:
        The lock, measured. With `required=False` also a failure and its reason.

    Raises:
        MlockError: It can't be done, and `config.required`. The class says why.
    """
    global _in_force
    flags = tuple(
        name for name in ("current", "future", "onfault") if getattr(config, name)
    )
    with _guard:
        error, count = _attempt(flags)
        if error is None:
            _in_force = flags
            return MlockStatus(state="locked", bytes_locked=count, flags=flags)
    if config.required:
        raise error
    assert error.errno is not None, "every error here is made with one"
    unsupported = isinstance(error, MlockUnsupportedError)
    reason, _, hint = str(error.strerror).partition("; ")
    return MlockStatus(
        state="unsupported" if unsupported else "failed",
        bytes_locked=count,
        failure_errno=error.errno,
        reason=reason,
        hint=hint,
    )


def unlock_all() -> None:
    """This unlocks all memory of the process, ranges too (munlockall(2)).

    Raises:
        MlockUnsupportedError: The platform can't lock, so there is nothing to unlock.
        MlockError: The kernel refused.
    """
    global _in_force
    with _guard:
        number = _system.unlock_all()
        if number:
            raise failure(number, "the process's memory can't be unlocked")
        _in_force = ()


@contextlib.contextmanager
def memory_locked(config: MlockConfig | None = None) -> Iterator[MlockStatus]:
    """This holds memory locked for the time of a `with` block.

    At the end the lock that was in force before is in force again. What somebody else
    had locked (another library, a range) stays locked, and everything with it:
    the kernel keeps no account of who locked what.

    Args:
        config: What to lock; by default everything, and a failure raises.

    Raises:
        MlockError: It can't be done, and it is required.
    """
    with _guard:
        before = _in_force
        foreign = not before and _count() > 0
        status = lock_with_config(MlockConfig() if config is None else config)
    try:
        yield status
    finally:
        if status.is_locked():
            with _guard:
                if before:
                    _attempt_again(before)
                elif foreign:
                    _attempt_again(("current",))
                else:
                    unlock_all()


def _attempt_again(flags: tuple[str, ...]) -> None:
    global _in_force
    if _system.lock_all(flags) == 0:
        _in_force = flags


def _count() -> int:
    try:
        return locked_bytes()
    except MlockError:
        return 0


def _attempt(flags: tuple[str, ...]) -> tuple[MlockError | None, int]:
    """This tries to lock, and gives what went wrong and the bytes locked after it."""
    if not {"current", "future"} & set(flags):
        what = "onfault alone" if flags else "neither current nor future"
        return (
            MlockInvalidError(
                errno.EINVAL,
                f"{what} locks nothing; set current, future or both",
            ),
            _count(),
        )
    number = _system.lock_all(flags)
    if number:
        return failure(number, "the process's memory can't be locked", flags), _count()
    if sys.platform != "linux":
        return None, 0
    try:
        count = locked_bytes()
    except MlockError as error:
        return (
            MlockUnsupportedError(
                errno.ENOTSUP,
                "the kernel took the request, but whether anything is locked can't be "
                f"read: {error.strerror}; mount /proc",
            ),
            0,
        )
    if "current" in flags and count == 0:
        return (
            MlockUnsupportedError(
                errno.ENOTSUP,
                "the kernel took the request and locked nothing (VmLck is 0); this "
                "sandbox only pretends to lock: run on a Linux kernel itself",
            ),
            0,
        )
    return None, count


def failure(number: int, what: str, flags: tuple[str, ...] = ()) -> MlockError:
    """This says what an errno means here: what failed, why, and what to do."""
    kind = CLASSES.get(number, MlockError)
    soft, hard = memlock_limit()
    if number == errno.ENOMEM and not has_ipc_lock() and soft is not None:
        kind = MlockLimitError
    if kind is MlockLimitError:
        beyond = "no limit" if hard is None else f"{hard} bytes"
        why = (
            f"RLIMIT_MEMLOCK allows {soft} bytes ({beyond} at most) and there is no "
            f"CAP_IPC_LOCK; {DIAGNOSE}"
        )
    elif kind is MlockPermissionError:
        why = f"RLIMIT_MEMLOCK is {soft} bytes and there is no CAP_IPC_LOCK; {DIAGNOSE}"
    elif kind is MlockMemoryError:
        why = (
            "there is not enough memory, or a part of the range is not mapped; "
            "lock less, or onfault, or give the machine or its cgroup more memory"
        )
    elif kind is MlockWouldBlockError:
        why = "some pages could not be locked just now; try again"
    elif kind is MlockUnsupportedError:
        why = (
            f"{sys.platform} or its kernel can't do that; memory can be locked on "
            "Linux, ranges of it on macOS too"
        )
    elif number == errno.EINVAL and "onfault" in flags:
        why = "this kernel knows no ONFAULT; Linux 4.4 and later do"
    else:
        why = f"{os.strerror(number)}; {DIAGNOSE}"
    return kind(number, f"{what}: {why}")
