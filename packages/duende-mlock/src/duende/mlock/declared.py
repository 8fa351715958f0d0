"""Locking as a daemon's configuration declares it."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from duende.mlock.config import MlockConfig
from duende.mlock.limits import has_ipc_lock, memlock_limit, raise_soft_limit
from duende.mlock.locking import DIAGNOSE, lock_with_config
from duende.mlock.settings import LockMode, resolve_mode
from duende.mlock.status import MlockStatus
from duende.mlock.threads import limit_thread_memory

__all__ = ("lock_as_declared",)

THREAD_STACK = 1024 * 1024
"""Bytes of stack for the threads of a process whose memory is locked."""


def lock_as_declared(
    declared: str | bool | LockMode | None, environ: Mapping[str, str] | None = None
) -> MlockStatus | None:
    """This locks all memory, now and later, if that is declared or DUENDE_MLOCK says.

    The soft limit RLIMIT_MEMLOCK is raised as far as it goes. New threads get stacks
    of 1 MiB and share one malloc arena: every byte that a thread reserves is held in
    memory, and the defaults reserve 72 MiB each.

    Under a finite limit every later allocation beyond it fails, and a stack that must
    grow beyond it ends the process. So "true" locks only without a limit, and
    "required" locks within one, which the status's `hint` then says.

    Args:
        declared: False, True (lock where it is safe) or "required".
        environ: Where DUENDE_MLOCK is looked for; by default this process's.

    Returns:
        None if memory is not to be locked; else what became of it. With "true" a
        failure is only told.

    Raises:
        ValueError: `declared` or DUENDE_MLOCK is none of its values.
        MlockError: It is required and can't be had; the class says why.
    """
    mode = resolve_mode(declared, environ)
    if mode is LockMode.OFF:
        return None
    raise_soft_limit()
    limit = None if has_ipc_lock() else memlock_limit()[0]
    if limit is not None and mode is LockMode.TRY:
        return MlockStatus(
            state="failed",
            failure_errno=errno.ENOMEM,
            reason=(
                f"the limit RLIMIT_MEMLOCK is {limit} bytes, and later allocations "
                "would fail at it"
            ),
            hint=f'{DIAGNOSE}; "required" locks all the same',
        )
    limit_thread_memory(stack_size=THREAD_STACK, arenas=1)
    status = lock_with_config(MlockConfig(required=mode is LockMode.REQUIRED))
    if limit is None or not status.is_locked():
        return status
    return MlockStatus(
        state=status.state,
        bytes_locked=status.bytes_locked,
        flags=status.flags,
        hint=(
            f"the limit RLIMIT_MEMLOCK is {limit} bytes: allocations beyond it will "
            "fail"
        ),
    )
