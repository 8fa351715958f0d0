"""What this process may lock: RLIMIT_MEMLOCK and CAP_IPC_LOCK."""

from __future__ import annotations

import sys

__all__ = ("has_ipc_lock", "memlock_limit", "parse_capability", "raise_soft_limit")

CAP_IPC_LOCK = 14
"""linux/capability.h; who has it locks memory whatever the limit says."""

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def parse_capability(status: str, kind: str = "CapEff") -> bool:
    """This says whether a /proc/PID/status has CAP_IPC_LOCK in one of its sets.

    Raises:
        ValueError: There is no such line, or it is no hexadecimal number.
    """
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == kind:
            return bool(int(value, 16) >> CAP_IPC_LOCK & 1)
    raise ValueError(f"there is no {kind} line")


def has_ipc_lock() -> bool:
    """This says whether CAP_IPC_LOCK is in force in this process.

    False where that can't be known: off Linux, or without /proc.
    """
    if sys.platform != "linux":
        return False
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            return parse_capability(file.read())
    except (OSError, ValueError):
        return False


def memlock_limit() -> tuple[int | None, int | None]:
    """This is RLIMIT_MEMLOCK, soft and hard, in bytes (getrlimit(2)).

    None is "no limit"; on platforms without the limit both are None.
    """
    if sys.platform == "win32":
        return None, None
    import resource

    if not hasattr(resource, "RLIMIT_MEMLOCK"):
        return None, None
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    infinity = resource.RLIM_INFINITY
    return (
        None if soft == infinity else soft,
        None if hard == infinity else hard,
    )


def raise_soft_limit() -> None:
    """This raises the soft RLIMIT_MEMLOCK to the hard one, which anybody may."""
    soft, hard = memlock_limit()
    if sys.platform == "win32" or soft == hard:
        return
    import resource

    number = resource.RLIMIT_MEMLOCK
    resource.setrlimit(number, (resource.getrlimit(number)[1],) * 2)
