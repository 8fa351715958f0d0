"""Where this process is in the tree of control groups, and what memory that leaves it.

Reads /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)), which in a
container name paths that can't be seen from within: then the mount itself is the
process's group, as far as can be seen.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Iterator
from typing import final

__all__ = ("Cgroup", "memory_limit", "own_cgroups", "parse_cgroups", "parse_mounts")


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Cgroup:
    """This is one control group as a folder."""

    path: str
    """The folder, as it is seen from this process."""
    version: int
    """1 or 2: which of the two sets of files it has."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class CgroupMount:
    """This is one mounted hierarchy, or a part of one."""

    root: str
    """The group within the hierarchy that is mounted."""
    point: str
    version: int
    controllers: frozenset[str]
    """Of version 1; in version 2 each group's cgroup.controllers has them."""


def parse_cgroups(text: str) -> dict[str, str]:
    """This reads a /proc/PID/cgroup: which group, by controller; version 2 is ""."""
    found = {}
    for line in text.split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                found[controller] = parts[2]
    return found


def parse_mounts(text: str) -> list[CgroupMount]:
    """This reads the control group mounts of a /proc/PID/mountinfo."""
    found = []
    for line in text.split("\n"):
        first, dash, last = line.partition(" - ")
        place, kind = first.split(" "), last.split(" ")
        if not dash or len(place) < 6 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        found.append(
            CgroupMount(
                root=_unescape(place[3]),
                point=_unescape(place[4]),
                version=2 if kind[0] == "cgroup2" else 1,
                controllers=frozenset(kind[-1].split(",")),
            )
        )
    return found


def own_cgroups(controller: str, root: str = "/") -> tuple[Cgroup, ...]:
    """This lists this process's groups for a controller, its own first, to the top.

    Args:
        controller: "memory", "cpu" and so on.
        root: Where the machine's files are, for a tree that isn't this machine's.

    Returns:
        Nothing where there are no control groups, or they can't be read. A version 1
        hierarchy of the controller goes before version 2, which then hasn't got it.
    """
    groups = parse_cgroups(_read(root, "/proc/self/cgroup"))
    mounts = parse_mounts(_read(root, "/proc/self/mountinfo"))
    for version in (1, 2):
        own = groups.get(controller if version == 1 else "")
        if own is None:
            continue
        fitting = [
            mount
            for mount in mounts
            if mount.version == version
            and (version == 2 or controller in mount.controllers)
        ]
        if fitting:
            # The mount that shows most of the way, if there are several.
            mount = max(fitting, key=lambda each: _depth_of(own, each.root))
            return tuple(Cgroup(path, version) for path in _chain(own, mount, root))
    return ()


def memory_limit(root: str = "/") -> int | None:
    """This is how much memory this process's control groups leave it, in bytes.

    The smallest `memory.max` (version 1: `memory.limit_in_bytes`) from its own group to
    the top. `memory.high` only slows down, and is no limit.

    Returns:
        None when no group limits it to less than the machine's own memory.
    """
    limits = []
    for group in own_cgroups("memory", root):
        name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        text = _read(root, f"{group.path}/{name}").strip()
        if text.isdecimal():
            limits.append(int(text))
    limit = min(limits, default=None)
    total = _total_memory(root)
    return None if limit is None or (total and limit >= total) else limit


def _chain(own: str, mount: CgroupMount, root: str) -> Iterator[str]:
    inside = _inside(own, mount.root)
    if inside is None or not os.path.isdir(_below(root, mount.point + inside)):
        inside = ""
    while inside:
        yield mount.point + inside
        inside = posixpath.dirname(inside).rstrip("/")
    yield mount.point


def _inside(own: str, top: str) -> str | None:
    """This is the rest of a group's path below a mounted group; None if it's not."""
    if "/.." in own or "/.." in top:  # outside of what our cgroup namespace shows
        return None
    if top == "/":
        return own.rstrip("/")
    return own[len(top) :] if own == top or own.startswith(f"{top}/") else None


def _depth_of(own: str, top: str) -> int:
    inside = _inside(own, top)
    return -1 if inside is None else inside.count("/")


def _unescape(text: str) -> str:
    r"""This undoes the octal escapes of mountinfo: \040 is a blank."""
    first, *rest = text.split("\\")
    parts = [first]
    for part in rest:
        digits = part[:3]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits):
            parts.append(chr(int(digits, 8)) + part[3:])
        else:
            parts.append("\\" + part)
    return "".join(parts)


def _total_memory(root: str) -> int:
    for line in _read(root, "/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal" and value.split()[:1] and value.split()[0].isdecimal():
            return int(value.split()[0]) * 1024
    return 0


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _read(root: str, path: str) -> str:
    try:
        with open(_below(root, path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
