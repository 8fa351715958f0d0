"""The one error of memory locking."""

from __future__ import annotations

from typing import final

__all__ = ("MlockError",)


@final
class MlockError(OSError):
    """This says what about locked memory could not be done, why, and what to do.

    It is an OSError: `errno` is the kernel's, or ENOTSUP where the platform has no
    answer at all.
    """
