"""Whether memory can be locked here, why not, and the line that mends it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import final

from duende.mlock.errors import MlockError
from duende.mlock.forecast import forecast
from duende.mlock.limits import SETS, memlock_limit, parse_capability
from duende.mlock.remedies import Remedy, remedies_for

__all__ = ("Diagnosis", "Facts", "diagnose", "gather", "judge")

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode number, the same on every Linux."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """This is what was found on the machine. Nothing in it is judged yet."""

    platform: str
    """As sys.platform has it."""
    kernel: str = ""
    uid: int | None = None
    soft: int | None = None
    hard: int | None = None
    """RLIMIT_MEMLOCK in bytes; None is no limit."""
    capability_sets: tuple[str, ...] = ()
    """In which sets of proc(5) CAP_IPC_LOCK is: CapEff, CapPrm, CapBnd …"""
    place: str = "limits.conf"
    """Which remedy belongs here, as far as it can be seen."""
    container: str | None = None
    """The container's kind, a hint: duende.platform looks closer."""
    unit: str | None = None
    """The systemd unit that this runs in."""
    needed: int | None = None
    """What locking everything now would take, in bytes."""
    memory_limit: int | None = None
    swap_total: int | None = None
    program: str = "python3"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """This is whether memory can be locked here, and what was found on the way."""

    can_lock: bool
    verdict: str
    """One sentence."""
    findings: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    """What mends it, the likeliest first; empty where nothing has to be mended."""
    facts: Facts


def diagnose() -> Diagnosis:
    """This looks at limit, capability, container and kernel, and changes nothing."""
    return judge(gather(os.environ))


def judge(facts: Facts) -> Diagnosis:
    """This draws the conclusion from what was found."""
    if facts.platform != "linux":
        return Diagnosis(
            can_lock=False,
            verdict=f"{facts.platform} can't lock a whole process; Linux can",
            findings=(),
            remedies=(),
            facts=facts,
        )
    findings = []
    capable = "CapEff" in facts.capability_sets
    if capable:
        findings.append("CAP_IPC_LOCK is there: the limit does not count")
    elif "CapPrm" in facts.capability_sets:
        findings.append("CAP_IPC_LOCK is permitted, but not in force")
    elif "CapBnd" in facts.capability_sets:
        findings.append("CAP_IPC_LOCK is not there, but could be given")
    else:
        findings.append(
            "CAP_IPC_LOCK is not there, nor can a program gain it (bounding set)"
        )
    findings.append(
        f"RLIMIT_MEMLOCK: {_bytes(facts.soft)}, at most {_bytes(facts.hard)}"
    )
    if facts.needed is not None:
        findings.append(f"to lock now: {_bytes(facts.needed)}")
    if facts.container:
        findings.append(f"in a container: {facts.container}")
    if facts.unit:
        findings.append(f"in the systemd unit {facts.unit}")
    if facts.memory_limit is not None:
        findings.append(
            f"the control group allows {_bytes(facts.memory_limit)} of memory"
        )
    if facts.swap_total == 0:
        findings.append("no swap: anonymous memory stays anyway, code can be dropped")
    if facts.kernel and _version(facts.kernel) < (4, 4):
        findings.append("this kernel has no ONFAULT (4.4 has)")
    can_lock, verdict = _verdict(facts, capable)
    return Diagnosis(
        can_lock=can_lock,
        verdict=verdict,
        findings=tuple(findings),
        remedies=()
        if can_lock and (capable or facts.hard is None)
        else remedies_for(facts.place, facts.program),
        facts=facts,
    )


def _verdict(facts: Facts, capable: bool) -> tuple[bool, str]:
    if capable or facts.soft is None:
        return True, "memory can be locked, without limit"
    if facts.hard is None:
        return True, (
            "memory can be locked once the soft limit is raised "
            "(duende.mlock.raise_soft_limit)"
        )
    if facts.hard == 0:
        return False, "memory can't be locked: the limit is 0 (EPERM)"
    if facts.needed is not None and facts.needed > facts.hard:
        return False, (
            f"memory can't be locked: {_bytes(facts.needed)} are needed, the limit is "
            f"{_bytes(facts.hard)} (ENOMEM)"
        )
    return True, (
        f"memory can be locked, up to the limit of {_bytes(facts.hard)}; later "
        "allocations fail at it"
    )


def gather(environ: Mapping[str, str], root: str = "/") -> Facts:
    """This finds out the facts about this process.

    Args:
        environ: The environment, for marks of containers.
        root: Where the machine's files are.
    """
    if sys.platform != "linux":
        return Facts(platform=sys.platform)
    soft, hard = memlock_limit()
    status = _read(root, "proc/self/status")
    needed = memory = None
    try:
        cost = forecast()
        needed, memory = cost.locked_now, cost.memory_limit
    except MlockError:
        pass
    container = _container(environ, root)
    unit = _unit(_read(root, "proc/self/cgroup"))
    return Facts(
        platform=sys.platform,
        kernel=os.uname().release,
        uid=os.geteuid(),
        soft=soft,
        hard=hard,
        capability_sets=tuple(kind for kind in SETS if _has(status, kind)),
        place=_place(container, unit),
        container=container,
        unit=unit,
        needed=needed,
        memory_limit=memory,
        swap_total=_swap(_read(root, "proc/meminfo")),
        program=os.path.realpath(sys.executable),
    )


def _place(container: str | None, unit: str | None) -> str:
    if container in ("docker", "podman", "kubernetes"):
        return container
    if unit is not None:
        return "systemd"
    return "limits.conf"


def _container(environ: Mapping[str, str], root: str) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if os.path.exists(os.path.join(root, "run/.containerenv")):
        return "podman"
    # Machines made from a container's image keep the file.
    if os.path.exists(os.path.join(root, ".dockerenv")) and not _sees_all_processes():
        return "docker"
    return environ.get("container") or None


def _sees_all_processes() -> bool:
    """This says whether this is the kernel's first pid namespace (proc_ns.h)."""
    try:
        return os.readlink("/proc/self/ns/pid") == f"pid:[{INITIAL_PID_NAMESPACE}]"
    except OSError:
        return False


def _unit(cgroup: str) -> str | None:
    for line in cgroup.splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith(".service") and not part.startswith("user@"):
                return part
    return None


def _swap(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "SwapTotal" and words and words[0].isdecimal():
            return int(words[0]) * 1024
    return None


def _has(status: str, kind: str) -> bool:
    try:
        return parse_capability(status, kind)
    except ValueError:
        return False


def _version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (
        int(major) if major.isdecimal() else 0,
        int(minor) if minor.isdecimal() else 0,
    )


def _bytes(count: int | None) -> str:
    if count is None:
        return "no limit"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count} bytes"


def _read(root: str, path: str) -> str:
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
