"""What locking would cost, before it is done."""

from __future__ import annotations

import dataclasses
import errno
import sys
import threading
from typing import final

from duende.mlock.cgroups import memory_limit
from duende.mlock.config import MlockConfig
from duende.mlock.errors import MlockUnsupportedError
from duende.mlock.limits import has_ipc_lock, memlock_limit
from duende.mlock.threads import arena_limit

__all__ = ("Forecast", "forecast", "parse_maps")

MIB = 1024 * 1024
DEFAULT_STACK = 8 * MIB
"""RLIMIT_STACK nearly everywhere, and glibc's stack of a thread where it is unlimited."""
ARENA = 64 * MIB
"""HEAP_MAX_SIZE of glibc on 64 bits: what it reserves for a thread's first malloc."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """This is what locking would take, in bytes, and whether there is so much.

    *Locked* is what counts against the limit: all that is mapped, also what is only
    reserved. *Resident* is what it takes of the machine's memory.
    """

    locked_now: int
    locked_per_thread: int
    resident_now: int
    resident_per_thread: int
    threads: int
    """How many further threads were asked about."""
    limit: int | None
    """RLIMIT_MEMLOCK; None where there is none or CAP_IPC_LOCK makes it void."""
    has_capability: bool
    memory_limit: int | None
    """What the control groups leave; None when that is the machine's own memory."""
    threads_that_fit: int | None
    """How many further threads the limits leave room for; None is no limit."""
    reasons: tuple[str, ...]
    """Why it does not fit."""

    @property
    def fits(self) -> bool:
        """Whether now and with the threads asked about it stays within the limits."""
        return not self.reasons


def parse_maps(text: str) -> tuple[int, int]:
    """This adds up a /proc/PID/maps (proc(5)): bytes mapped, and bytes of them that
    can be accessed at all; what is only reserved can't."""
    mapped = accessible = 0
    for line in text.splitlines():
        place, _, rest = line.partition(" ")
        first, dash, last = place.partition("-")
        if not dash or "[vsyscall]" in rest or "[vvar" in rest:
            continue
        size = int(last, 16) - int(first, 16)
        mapped += size
        if not rest.startswith("---"):
            accessible += size
    return mapped, accessible


def forecast(config: MlockConfig | None = None, *, threads: int = 0) -> Forecast:
    """This says what locking this process would cost now, and with further threads.

    It is an estimate from above: what the process maps meanwhile comes on top, and
    threads share arenas once there are eight a core.

    Args:
        config: How it would be locked; by default everything, at once.
        threads: How many further threads to reckon with.

    Raises:
        MlockUnsupportedError: It is not Linux, or /proc can't be read.
    """
    chosen = MlockConfig() if config is None else config
    if sys.platform != "linux":
        raise MlockUnsupportedError(
            errno.ENOTSUP,
            f"{sys.platform} doesn't tell what a process has mapped; "
            "forecasts are for Linux",
        )
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            mapped, accessible = parse_maps(file.read())
        resident = _resident()
    except (OSError, ValueError) as error:
        raise MlockUnsupportedError(
            errno.ENOTSUP, f"can't read what is mapped: {error}; is /proc mounted?"
        ) from error
    stack = _stack_of_a_thread()
    arena = ARENA if arena_limit() is None and sys.maxsize > 2**32 else 0
    eager = not chosen.onfault
    capable = has_ipc_lock()
    limit = None if capable else memlock_limit()[0]
    return judge(
        locked_now=mapped if chosen.current else 0,
        locked_per_thread=stack + arena if chosen.future else 0,
        resident_now=max(accessible, resident)
        if eager and chosen.current
        else resident,
        resident_per_thread=stack if eager and chosen.future else 0,
        threads=threads,
        limit=limit,
        has_capability=capable,
        memory=memory_limit(),
    )


def judge(
    *,
    locked_now: int,
    locked_per_thread: int,
    resident_now: int,
    resident_per_thread: int,
    threads: int,
    limit: int | None,
    has_capability: bool,
    memory: int | None,
) -> Forecast:
    """This compares what it takes with what there is."""
    reasons = []
    room: int | None = None
    for now, each, most, name in (
        (locked_now, locked_per_thread, limit, "RLIMIT_MEMLOCK"),
        (resident_now, resident_per_thread, memory, "the control group's memory limit"),
    ):
        if most is None:
            continue
        needed = now + threads * each
        if needed > most:
            reasons.append(f"{needed} bytes are needed, and {name} is {most} bytes")
        if each:
            here = max(0, (most - now) // each)
            room = here if room is None else min(room, here)
        elif now > most:
            room = 0
    return Forecast(
        locked_now=locked_now,
        locked_per_thread=locked_per_thread,
        resident_now=resident_now,
        resident_per_thread=resident_per_thread,
        threads=threads,
        limit=limit,
        has_capability=has_capability,
        memory_limit=memory,
        threads_that_fit=room,
        reasons=tuple(reasons),
    )


def _stack_of_a_thread() -> int:
    if chosen := threading.stack_size():
        threading.stack_size(chosen)  # asking resets it
        return chosen
    if sys.platform == "win32":
        return DEFAULT_STACK
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return DEFAULT_STACK if soft == resource.RLIM_INFINITY else soft


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        import mmap

        return int(file.read().split()[1]) * mmap.PAGESIZE
