"""Which of the three ways to lock memory this platform has."""

from __future__ import annotations

import sys

__all__ = ("lock_all", "lock_range", "unlock_all", "unlock_range")

if sys.platform == "linux":
    from duende.mlock._linux import lock_all, lock_range, unlock_all, unlock_range
elif sys.platform == "darwin":
    from duende.mlock._darwin import lock_all, lock_range, unlock_all, unlock_range
else:
    from duende.mlock._unsupported import (
        lock_all,
        lock_range,
        unlock_all,
        unlock_range,
    )
