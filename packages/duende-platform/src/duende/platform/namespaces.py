"""Which namespaces a process is in: the kernel's first ones have fixed numbers.

The numbers are in include/linux/proc_ns.h since Linux 3.8; mount namespaces have
none, and of network namespaces the first one's is not fixed.
"""

from __future__ import annotations

from duende.platform.world import World

__all__ = ("FIRST", "is_first", "maps_users")

FIRST = {
    "ipc": 0xEFFFFFFF,
    "uts": 0xEFFFFFFE,
    "user": 0xEFFFFFFD,
    "pid": 0xEFFFFFFC,
    "cgroup": 0xEFFFFFFB,
    "time": 0xEFFFFFFA,
}


def is_first(world: World, kind: str) -> bool | None:
    """This says whether a namespace is the kernel's first; None if it can't be seen."""
    number = world.namespace(kind)
    return None if number is None else number == FIRST[kind]


def maps_users(world: World) -> bool | None:
    """This says whether user ids are mapped (user_namespaces(7))."""
    first = is_first(world, "user")
    if first is not None:
        return not first
    text = world.read("/proc/self/uid_map")
    return None if text is None else text.split() != ["0", "0", "4294967295"]
