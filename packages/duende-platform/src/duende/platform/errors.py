"""What can go wrong when the machine is asked about itself."""

from __future__ import annotations

from typing import final

__all__ = ("PlatformInfoError", "ProcessGone")


class PlatformInfoError(OSError):
    """This says what the machine would not tell, why, and what to do about it.

    `errno` is the kernel's, or ENOTSUP where the platform has no answer at all.
    """


@final
class ProcessGone(PlatformInfoError, ProcessLookupError):
    """This says that there is no such process, or that the pid is another's now."""
