"""Locking single buffers: a key, a password, a ring buffer (mlock(2), mlock2(2)).

The kernel locks whole pages, and keeps no count: two secrets may share a page, and
unlocking the one would unlock the other. So this library counts, and unlocks a page
when the last of its buffers is unlocked.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Self, final

from duende.mlock import _libc, _system
from duende.mlock.errors import MlockInvalidError
from duende.mlock.locking import failure

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from 3.12 on

__all__ = ("LockedRange", "lock_range", "unlock_range")

_guard = threading.Lock()
_pages: Counter[int] = Counter()
_ranges: dict[tuple[int, int], list[LockedRange]] = {}


def _forget() -> None:
    global _guard
    _guard = threading.Lock()
    _pages.clear()
    _ranges.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@final
class LockedRange:
    """This is a buffer that is held in RAM until `unlock`, or the end of a `with`.

    As long as it is locked the buffer can't be resized: it would move to other pages.
    """

    def __init__(self, view: memoryview, address: int) -> None:
        self._view: memoryview | None = view
        self._key = (address, view.nbytes)

    @property
    def is_locked(self) -> bool:
        """Whether it has not been unlocked yet."""
        return self._view is not None

    @property
    def pages(self) -> range:
        """The addresses of the pages that hold the buffer."""
        address, length = self._key
        start = address - address % mmap.PAGESIZE
        return range(start, address + length, mmap.PAGESIZE)

    def unlock(self) -> None:
        """This lets the buffer be swapped again; a second time does nothing.

        Raises:
            MlockError: The kernel refused.
        """
        with _guard:
            if self._view is None:
                return
            self._view.release()
            self._view = None
            same = _ranges.get(self._key, [])
            if self in same:
                same.remove(self)
            if not same:
                _ranges.pop(self._key, None)
            _pages.subtract(self.pages)
            for page in self.pages:
                if _pages[page] > 0:
                    continue
                del _pages[page]
                if number := _system.unlock_range(page, mmap.PAGESIZE):
                    raise failure(number, "the buffer can't be unlocked")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()


def lock_range(buffer: Buffer, *, onfault: bool = False) -> LockedRange:
    """This holds a buffer's pages in RAM: they are never written to swap.

    Copies of it are not locked: fill the buffer in place (`recv_into`, `readinto`).

    Args:
        buffer: Something writable and contiguous: bytearray, mmap, array, memoryview.
        onfault: Lock pages when they are first touched, instead of reading all in.

    Raises:
        MlockInvalidError: The buffer is read-only, empty or not contiguous.
        MlockError: It can't be locked; the class says why.
    """
    view = _view_of(buffer)
    address = _libc.address_of(view)
    locked = LockedRange(view, address)
    pages = locked.pages
    with _guard:
        number = _system.lock_range(pages[0], len(pages) * mmap.PAGESIZE, onfault)
        if number:
            view.release()
            raise failure(number, f"{locked._key[1]} bytes can't be locked")
        _pages.update(pages)
        _ranges.setdefault(locked._key, []).append(locked)
    return locked


def unlock_range(buffer: Buffer) -> None:
    """This unlocks what `lock_range` locked for the same buffer.

    Raises:
        MlockInvalidError: It isn't locked.
        MlockError: The kernel refused.
    """
    with _view_of(buffer) as view:
        found = _ranges.get((_libc.address_of(view), view.nbytes))
    if not found:
        raise MlockInvalidError(
            errno.EINVAL, "the buffer isn't locked; lock_range does that"
        )
    found[-1].unlock()


def _view_of(buffer: Buffer) -> memoryview:
    with memoryview(buffer) as given:
        if given.readonly:
            raise MlockInvalidError(
                errno.EINVAL,
                f"{type(buffer).__name__} is read-only; use a bytearray or an mmap",
            )
        if not given.contiguous or given.nbytes == 0:
            raise MlockInvalidError(
                errno.EINVAL, "the buffer is empty or not contiguous"
            )
        return given.cast("B")
