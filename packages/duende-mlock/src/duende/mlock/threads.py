"""What threads cost a process whose memory is locked, and how to make it less.

With MCL_FUTURE everything that is mapped is held in RAM, also what is only reserved: by
default 8 MiB of stack a thread, and on 64-bit glibc 64 MiB for its malloc arena.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
import threading
from typing import final

from duende.mlock import _libc
from duende.mlock.errors import MlockInvalidError, MlockUnsupportedError

__all__ = ("ThreadLimits", "limit_thread_memory", "prefault_stack")

KIB = 1024

_arenas: int | None = None
"""How many arenas were asked for; None is the C library's own choice."""


def arena_limit() -> int | None:
    """This is what `limit_thread_memory` set for the malloc arenas; None is nothing."""
    return _arenas


@final
@dataclasses.dataclass(frozen=True, slots=True)
class ThreadLimits:
    """This is what `limit_thread_memory` could set."""

    stack_size: int
    """Bytes of stack of each thread that is started from now on."""
    arenas: int | None
    """How many malloc arenas threads share; None where the C library has no say."""


def limit_thread_memory(
    *, stack_size: int = 256 * KIB, arenas: int = 1
) -> ThreadLimits:
    """This makes threads that start from now on cheap to lock; call it before locking.

    Args:
        stack_size: Bytes of stack of a thread. Deep recursion in C (regular
            expressions, JSON, XML) needs more than the 256 KiB of the default.
        arenas: How many malloc arenas all threads share (M_ARENA_MAX of mallopt(3)).
            One is the least memory, and the most waiting where threads allocate a lot.

    Raises:
        MlockInvalidError: A size that the platform refuses, or fewer than one arena.
    """
    if arenas < 1:
        raise MlockInvalidError(errno.EINVAL, f"{arenas} arenas; at least 1 is needed")
    try:
        threading.stack_size(stack_size)
    except (ValueError, RuntimeError) as error:
        raise MlockInvalidError(
            errno.EINVAL,
            f"threads can't have {stack_size} bytes of stack: {error}; use at least "
            "32768 and a multiple of 4096",
        ) from error
    global _arenas
    known = sys.platform == "linux" and _libc.set_allocator(_libc.M_ARENA_MAX, arenas)
    _arenas = arenas if known else None
    return ThreadLimits(stack_size, _arenas)


def prefault_stack(size: int = 1024 * KIB) -> int:
    """This makes the main thread's stack so large now that it need not grow later.

    A locked stack that must grow beyond RLIMIT_MEMLOCK ends the process with SIGSEGV.
    Call it before locking, in the main thread; stacks of other threads don't grow.

    Args:
        size: Bytes.

    Returns:
        Bytes of stack that there are now (VmStk of proc(5)); fewer than `size` where
        Python's recursion limit came first.

    Raises:
        MlockInvalidError: It is not the main thread, or the stack may not get so large.
        MlockUnsupportedError: It is not Linux.
    """
    if sys.platform != "linux":
        raise MlockUnsupportedError(
            errno.ENOTSUP, f"{sys.platform} doesn't tell how large the stack is"
        )
    import resource

    if threading.current_thread() is not threading.main_thread():
        raise MlockInvalidError(
            errno.EINVAL, "only the main thread's stack grows; call it from there"
        )
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if limit != resource.RLIM_INFINITY and size > limit // 2:
        raise MlockInvalidError(
            errno.EINVAL,
            f"{size} bytes of stack are more than half of RLIMIT_STACK ({limit}); "
            "ask for less, or raise that limit",
        )
    levels = 16
    while _stack_bytes() < size:
        try:
            _descend(levels)
        except RecursionError:
            break
        levels *= 2
    return _stack_bytes()


def _descend(levels: int) -> int:
    # Through sorted, since calls from Python to Python use no C stack.
    if levels == 0:
        return 0
    sorted((levels,), key=lambda _: _descend(levels - 1))
    return 0


def _stack_bytes() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmStk:"):
                return int(line.split()[1]) * KIB
    return 0
