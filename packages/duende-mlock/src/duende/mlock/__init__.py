"""Memory locking: how much of this process is held in RAM.

This release answers that question; locking itself comes with a later one.
"""

from __future__ import annotations

from duende.mlock.errors import MlockError
from duende.mlock.status import is_locked, locked_bytes

__all__ = ("MlockError", "is_locked", "locked_bytes")
