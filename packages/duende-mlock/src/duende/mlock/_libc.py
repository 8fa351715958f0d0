"""The C library, as far as memory locking needs it: the only ctypes of the package."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

__all__ = ("address_of", "call", "has", "set_allocator")

M_ARENA_MAX = -8
"""malloc.h of glibc: how many arenas threads share."""


@functools.cache
def _library() -> ctypes.CDLL:
    # The program itself: whichever C library it was linked with, glibc, musl, macOS's.
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _function(name: str, kinds: tuple[Any, ...]) -> Callable[..., int] | None:
    try:
        found = getattr(_library(), name)
    except (AttributeError, OSError):
        return None
    found.argtypes = kinds
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


_KINDS: dict[str, tuple[Any, ...]] = {
    "mlockall": (ctypes.c_int,),
    "munlockall": (),
    "mlock": (ctypes.c_void_p, ctypes.c_size_t),
    "mlock2": (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint),
    "munlock": (ctypes.c_void_p, ctypes.c_size_t),
}


def has(name: str) -> bool:
    """This says whether the C library has a function."""
    return _function(name, _KINDS[name]) is not None


def call(name: str, *arguments: int) -> int:
    """This calls a function, and gives 0 or the errno.

    Raises:
        LookupError: The C library has no such function.
    """
    function = _function(name, _KINDS[name])
    if function is None:
        raise LookupError(f"the C library has no {name}")
    ctypes.set_errno(0)
    return 0 if function(*arguments) == 0 else ctypes.get_errno()


def address_of(buffer: memoryview) -> int:
    """This is where the bytes of a writable buffer are."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def set_allocator(option: int, value: int) -> bool:
    """This is mallopt(3); false where the C library (musl, macOS) has none."""
    function = _function("mallopt", (ctypes.c_int, ctypes.c_int))
    return function is not None and function(option, value) == 1
