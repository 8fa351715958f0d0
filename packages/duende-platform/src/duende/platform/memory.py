"""How much memory there is for this process, in a container too.

Of a container's memory the machine's figures tell nothing: what binds are the control
groups on the way from the process to the top (cgroups(7)).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from duende.mlock import LockMode, MlockStatus, lock_as_declared
from duende.mlock import cgroups as _cgroups
from duende.platform.errors import PlatformInfoError
from duende.platform.world import World

__all__ = (
    "LocksMemory",
    "apply_memory_config",
    "memory_available",
    "memory_limit",
    "page_size",
)

MEMINFO = "/proc/meminfo"


class LocksMemory(Protocol):
    """This is what `apply_memory_config` reads of a daemon's resources."""

    @property
    def lock_memory(self) -> object:
        """False, True or "required", or an enum member with such a value."""


def page_size() -> int:
    """This is the size of a page of memory, in bytes."""
    if sys.platform == "win32":
        import mmap

        return mmap.PAGESIZE
    return os.sysconf("SC_PAGESIZE")


def memory_limit(world: World | None = None) -> int | None:
    """This is the limit that really binds this process's memory, in bytes.

    The smallest of the control groups from its own to the top, of version 1 or 2.

    Returns:
        None when only the machine's own memory limits it.
    """
    return _cgroups.memory_limit("/" if world is None else world.root)


def memory_available(world: World | None = None) -> int:
    """This is how much memory can still be had without swapping, in bytes.

    The machine's available memory, or what a control group on the way to the top still
    leaves, whichever is less. Cached files that nothing uses count as available there,
    as the kernel takes them back first.

    Raises:
        PlatformInfoError: /proc/meminfo can't be read (Linux).
    """
    here = World() if world is None else world
    if here.is_here and sys.platform != "linux":
        import psutil

        return int(psutil.virtual_memory().available)
    left = [_machine_available(here)]
    for group in _cgroups.own_cgroups("memory", here.root):
        two = group.version == 2
        limit = here.number(
            f"{group.path}/{'memory.max' if two else 'memory.limit_in_bytes'}"
        )
        used = here.number(
            f"{group.path}/{'memory.current' if two else 'memory.usage_in_bytes'}"
        )
        if limit is None or used is None:
            continue
        idle = _field(
            here.read(f"{group.path}/memory.stat") or "",
            "inactive_file" if two else "total_inactive_file",
        )
        left.append(max(limit - max(used - idle, 0), 0))
    return min(left)


def apply_memory_config(
    resources: LocksMemory | LockMode | str | bool | None,
    environ: Mapping[str, str] | None = None,
) -> MlockStatus | None:
    """This does to this process's memory what a daemon's resources say: it locks it.

    DUENDE_MLOCK overrides what they say. See `duende.mlock.lock_as_declared`, which
    does the work.

    Args:
        resources: An object with `lock_memory`, or that value itself.
        environ: Where DUENDE_MLOCK is looked for; by default this process's.

    Returns:
        None if memory is not to be locked, else what became of it.

    Raises:
        ValueError: The value is not false, true or "required".
        MlockError: It is required and can't be had.
    """
    declared: Any = getattr(resources, "lock_memory", resources)
    if not isinstance(declared, LockMode):
        declared = getattr(declared, "value", declared)
    return lock_as_declared(declared, environ)


def _machine_available(world: World) -> int:
    for line in (world.read(MEMINFO) or "").split("\n"):
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemAvailable" and words and words[0].isdecimal():
            return int(words[0]) * 1024
    raise PlatformInfoError(
        errno.ENOENT, "can't read what memory is available; is /proc mounted?", MEMINFO
    )


def _field(text: str, name: str) -> int:
    for line in text.split("\n"):
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return 0
