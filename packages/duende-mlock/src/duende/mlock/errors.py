"""What can go wrong when memory is locked, a class a cause."""

from __future__ import annotations

import errno
from typing import final

__all__ = (
    "MlockError",
    "MlockInvalidError",
    "MlockLimitError",
    "MlockMemoryError",
    "MlockPermissionError",
    "MlockUnsupportedError",
    "MlockWouldBlockError",
)


class MlockError(OSError):
    """This says what about locked memory could not be done, why, and what to do.

    It is an OSError: `errno` is the kernel's, or ENOTSUP where the platform has no
    answer at all. Each cause has a class of its own below this one.
    """


@final
class MlockPermissionError(MlockError, PermissionError):
    """This process may not lock anything: no CAP_IPC_LOCK, and a limit of 0 (EPERM)."""


@final
class MlockLimitError(MlockError):
    """More than RLIMIT_MEMLOCK allows would have been locked (ENOMEM)."""


@final
class MlockMemoryError(MlockError):
    """There is no memory for it, or a part of the range is not mapped (ENOMEM)."""


@final
class MlockWouldBlockError(MlockError, BlockingIOError):
    """Some pages could not be locked just now (EAGAIN); it can be tried again."""


@final
class MlockInvalidError(MlockError):
    """What was asked for has no meaning: no flag, or ONFAULT alone (EINVAL)."""


@final
class MlockUnsupportedError(MlockError):
    """This platform or kernel can't do it (ENOSYS, ENOTSUP)."""


CLASSES: dict[int, type[MlockError]] = {
    errno.EPERM: MlockPermissionError,
    errno.EACCES: MlockPermissionError,
    errno.ENOMEM: MlockMemoryError,
    errno.EAGAIN: MlockWouldBlockError,
    errno.EINVAL: MlockInvalidError,
    errno.ENOSYS: MlockUnsupportedError,
    errno.ENOTSUP: MlockUnsupportedError,
}
"""Which class an errno of mlock(2) stands for; ENOMEM can also be the limit."""
