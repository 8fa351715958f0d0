"""Memory locking on macOS: ranges can be locked, the whole process can't."""

from __future__ import annotations

import errno

from duende.mlock import _libc

__all__ = ("lock_all", "lock_range", "unlock_all", "unlock_range")


def lock_all(flags: tuple[str, ...]) -> int:
    """This is ENOSYS: the function is there, and the kernel has nothing behind it."""
    return errno.ENOSYS


def unlock_all() -> int:
    """This is ENOSYS, as `lock_all` is."""
    return errno.ENOSYS


def lock_range(address: int, length: int, onfault: bool) -> int:
    """This calls mlock(2), and gives 0 or the errno; there is no ONFAULT."""
    return errno.ENOSYS if onfault else _libc.call("mlock", address, length)


def unlock_range(address: int, length: int) -> int:
    """This calls munlock(2), and gives 0 or the errno."""
    return _libc.call("munlock", address, length)
