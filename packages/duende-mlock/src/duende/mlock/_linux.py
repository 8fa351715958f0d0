"""Memory locking on Linux: mlock(2), whatever the C library."""

from __future__ import annotations

import errno
import os

from duende.mlock import _libc

__all__ = ("flags_of", "lock_all", "lock_range", "unlock_all", "unlock_range")

MLOCK_ONFAULT = 1
"""linux/mman.h, the same on every architecture."""

_HIGH = ("alpha", "ppc", "powerpc", "sparc")
"""Architectures whose asm/mman.h begins the MCL_* flags at 0x2000."""


def flags_of(machine: str) -> dict[str, int]:
    """This gives the MCL_* values of an architecture, as `uname -m` names it."""
    if machine.startswith(_HIGH):
        return {"current": 0x2000, "future": 0x4000, "onfault": 0x8000}
    return {"current": 1, "future": 2, "onfault": 4}


def lock_all(flags: tuple[str, ...]) -> int:
    """This calls mlockall(2), and gives 0 or the errno."""
    values = flags_of(os.uname().machine)
    return _libc.call("mlockall", sum(values[name] for name in flags))


def unlock_all() -> int:
    """This calls munlockall(2), and gives 0 or the errno."""
    return _libc.call("munlockall")


def lock_range(address: int, length: int, onfault: bool) -> int:
    """This calls mlock(2), or mlock2(2) for ONFAULT, and gives 0 or the errno."""
    if not onfault:
        return _libc.call("mlock", address, length)
    if not _libc.has("mlock2"):
        return errno.ENOSYS
    return _libc.call("mlock2", address, length, MLOCK_ONFAULT)


def unlock_range(address: int, length: int) -> int:
    """This calls munlock(2), and gives 0 or the errno."""
    return _libc.call("munlock", address, length)
