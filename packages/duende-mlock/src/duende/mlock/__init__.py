"""Memory locking: keep this process in RAM, and know whether it is.

    from duende.mlock import lock_all

    status = lock_all()
    print(status.bytes_locked, "bytes can't be swapped out")

`python -m duende.mlock diagnose` says whether it works here, and what mends it.
"""

from __future__ import annotations

from duende.mlock.config import MlockConfig, MlockConfigBuilder
from duende.mlock.declared import lock_as_declared
from duende.mlock.diagnose import Diagnosis, diagnose
from duende.mlock.errors import (
    MlockError,
    MlockInvalidError,
    MlockLimitError,
    MlockMemoryError,
    MlockPermissionError,
    MlockUnsupportedError,
    MlockWouldBlockError,
)
from duende.mlock.forecast import Forecast, forecast
from duende.mlock.limits import has_ipc_lock, memlock_limit, raise_soft_limit
from duende.mlock.locking import (
    lock_all,
    lock_with_config,
    memory_locked,
    unlock_all,
)
from duende.mlock.ranges import LockedRange, lock_range, unlock_range
from duende.mlock.settings import LockMode, resolve_mode
from duende.mlock.status import MlockStatus, is_locked, locked_bytes
from duende.mlock.threads import ThreadLimits, limit_thread_memory, prefault_stack

__all__ = (
    "Diagnosis",
    "Forecast",
    "LockMode",
    "LockedRange",
    "MlockConfig",
    "MlockConfigBuilder",
    "MlockError",
    "MlockInvalidError",
    "MlockLimitError",
    "MlockMemoryError",
    "MlockPermissionError",
    "MlockStatus",
    "MlockUnsupportedError",
    "MlockWouldBlockError",
    "ThreadLimits",
    "diagnose",
    "forecast",
    "has_ipc_lock",
    "is_locked",
    "limit_thread_memory",
    "lock_all",
    "lock_as_declared",
    "lock_range",
    "lock_with_config",
    "locked_bytes",
    "memlock_limit",
    "memory_locked",
    "prefault_stack",
    "raise_soft_limit",
    "resolve_mode",
    "unlock_all",
    "unlock_range",
)
