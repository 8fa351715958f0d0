"""How many processors this process may use at a time."""

from __future__ import annotations

import os
import sys

from duende.mlock.cgroups import Cgroup, own_cgroups
from duende.platform.world import World

__all__ = ("cpu_limit", "parse_affinity")


def cpu_limit(world: World | None = None) -> float | None:
    """This is how many processors' worth of time this process can have.

    The smallest of the quotas of the control groups from its own to the top, and of the
    number of processors that it may run on (sched_setaffinity(2), cpusets).

    Returns:
        A number like 0.5 or 2; None when neither is less than the whole machine.
    """
    here = World() if world is None else world
    if here.is_here and sys.platform != "linux":
        return None
    limits = [
        quota
        for group in own_cgroups("cpu", here.root)
        if (quota := _quota(here, group)) is not None
    ]
    online = parse_affinity(here.read("/sys/devices/system/cpu/online") or "")
    allowed = _allowed(here)
    if allowed and online and allowed < online:
        limits.append(float(allowed))
    limit = min(limits, default=None)
    return None if limit is None or (online and limit >= online) else limit


def parse_affinity(text: str) -> int:
    """This counts the processors of a list like "0-3,8" (cpuset(7)); 0 if it is none."""
    count = 0
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            return 0
        count += max(int(last) - int(first) + 1, 0) if dash else 1
    return count


def _allowed(world: World) -> int:
    if world.is_here and sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    for line in (world.read("/proc/self/status") or "").split("\n"):
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return parse_affinity(value)
    return 0


def _quota(world: World, group: Cgroup) -> float | None:
    if group.version == 2:
        words = (world.read(f"{group.path}/cpu.max") or "").split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            return None
        return int(words[0]) / int(words[1]) if int(words[1]) else None
    quota = world.number(f"{group.path}/cpu.cfs_quota_us")
    period = world.number(f"{group.path}/cpu.cfs_period_us")
    return quota / period if quota and period else None
