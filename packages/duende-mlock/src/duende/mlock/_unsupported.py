"""Memory locking where this library knows no way to it: Windows and all others."""

from __future__ import annotations

import errno

__all__ = ("lock_all", "lock_range", "unlock_all", "unlock_range")


def lock_all(flags: tuple[str, ...]) -> int:
    """This is ENOSYS."""
    return errno.ENOSYS


def unlock_all() -> int:
    """This is ENOSYS."""
    return errno.ENOSYS


def lock_range(address: int, length: int, onfault: bool) -> int:
    """This is ENOSYS."""
    return errno.ENOSYS


def unlock_range(address: int, length: int) -> int:
    """This is ENOSYS."""
    return errno.ENOSYS
