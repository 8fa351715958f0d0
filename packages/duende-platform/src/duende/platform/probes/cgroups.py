"""Control groups: which version, which controllers, and whether they are delegated."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Iterator

from duende.mlock.cgroups import Cgroup, own_cgroups
from duende.platform.probes.answers import absent, unusable, usable
from duende.platform.types import Capability
from duende.platform.world import World

__all__ = ("probe_cgroup_v1", "probe_cgroup_v2", "probe_freeze", "probe_kill")

NEEDED = ("memory", "cpu", "pids")
"""What a daemon's limits take, at least."""

DELEGATE = (
    "under systemd: Delegate=yes in the unit, or systemd-run --user --scope "
    "--property=Delegate=yes; in a container: --cgroupns=private and a writable cgroup "
    "mount"
)
UNIFY = "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all"


def probe_cgroup_v2(world: World) -> Capability:
    """This makes a group below the own one, and looks what it could limit."""
    name = "cgroup-v2"
    own = _own(world)
    if own is None:
        return absent(name, "no cgroup2 file system is mounted here", UNIFY)
    there = (world.read(f"{own.path}/cgroup.controllers") or "").split()
    details = {"path": own.path, "controllers": " ".join(there)}
    missing = [each for each in NEEDED if each not in there]
    if missing:
        used = any(_in_version_1(world, each) for each in missing)
        why = "version 1 has them" if used else "they are not handed down"
        mend = UNIFY if used else DELEGATE
        lacking = " ".join(missing)
        return unusable(name, f"without {lacking}: {why}", mend, **details)
    if not _is_delegated(world, own.path):
        why = f"{own.path} is systemd's own, and not handed on to this process"
        return unusable(name, why, DELEGATE, **details)
    try:
        with _child(own):
            pass
    except OSError as error:
        why = f"no group can be made below {own.path}: {error.strerror}"
        return unusable(name, why, DELEGATE, **details)
    return usable(name, f"a group could be made below {own.path}", **details)


def probe_cgroup_v1(world: World) -> Capability:
    """This looks for the old hierarchies, which duende sets no limits by."""
    name = "cgroup-v1"
    wanted = (*NEEDED, "freezer", "cpuacct", "devices")
    found = [controller for controller in wanted if _in_version_1(world, controller)]
    if not found:
        return absent(name, "no version 1 hierarchy is mounted, as it should be")
    return unusable(
        name,
        "limits are read from it, and none are set by it; version 2 is",
        UNIFY,
        controllers=" ".join(found),
    )


def probe_kill(world: World) -> Capability:
    """This kills an empty group (cgroup.kill, Linux 5.14)."""
    return _try_control(world, "cgroup-kill", "cgroup.kill", "Linux 5.14")


def probe_freeze(world: World) -> Capability:
    """This freezes an empty group (cgroup.freeze, Linux 5.2)."""
    return _try_control(world, "cgroup-freeze", "cgroup.freeze", "Linux 5.2")


def _try_control(world: World, name: str, file: str, since: str) -> Capability:
    own = _own(world)
    if own is None:
        return absent(name, "no cgroup2 file system is mounted here", UNIFY)
    try:
        with _child(own) as folder:
            control = posixpath.join(folder, file)
            if not os.path.exists(control):
                return absent(name, f"a group has no {file}", f"it takes {since}")
            with open(control, "w", encoding="ascii") as opened:
                opened.write("1")
    except OSError as error:
        why = f"{file} can't be tried below {own.path}: {error.strerror}"
        return unusable(name, why, DELEGATE)
    return usable(name, f"writing 1 to {file} of a new group works")


def _in_version_1(world: World, controller: str) -> bool:
    return any(each.version == 1 for each in own_cgroups(controller, world.root))


def _own(world: World) -> Cgroup | None:
    groups = own_cgroups("", world.root)  # version 2 only: it has no controllers' names
    return groups[0] if groups else None


def _is_delegated(world: World, path: str) -> bool:
    """This says whether systemd leaves a group to who is in it (CGROUP_DELEGATION.md).

    It marks such a unit's group by an attribute. Where no unit is seen on the way to
    the top, no systemd looks after the group.
    """
    while path not in ("", "/"):
        if path.endswith((".service", ".scope", ".slice")):
            return any(
                world.attribute(path, name) == b"1"
                for name in ("user.delegate", "trusted.delegate")
            )
        path = posixpath.dirname(path)
    return True


@contextlib.contextmanager
def _child(own: Cgroup) -> Iterator[str]:
    """This is a new group below, which is gone after."""
    folder = tempfile.mkdtemp(prefix="duende-probe-", dir=own.path)
    try:
        yield folder
    finally:
        os.rmdir(folder)
