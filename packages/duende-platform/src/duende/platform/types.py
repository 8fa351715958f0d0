"""What the detection answers with."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal, final

__all__ = ("Capability", "Evidence", "Platform", "PlatformReport")


@final
class Platform(enum.Enum):
    """This is the kind of place that a program runs in."""

    LINUX = "linux"
    """A Linux of its own: a machine or a virtual machine."""
    MACOS = "macos"
    CONTAINER = "container"
    """A Linux container, whichever engine made it."""
    PEPITA = "pepita"
    """A pepita microVM."""
    WOS = "wos"
    """WebAssembly: WASI or Emscripten."""
    NATIVE = "native"
    """Any other system: Windows, a BSD."""


@final
@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Evidence:
    """This is one thing that was found, and what it speaks for."""

    question: Literal["container", "machine", "pod", "chroot", "platform"]
    answer: str
    """What it speaks for: "docker", "kvm", "none" …"""
    weight: float
    """From 0 to 1: how much this would convince by itself."""
    source: str
    """The file, variable or call."""
    found: str
    """What it said."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlatformReport:
    """This is where a program runs, how sure that is, and by what."""

    platform: Platform
    confidence: float
    """From 0 to 1, of `platform`."""
    container: str | None = None
    """Its kind: docker, podman, lxc, systemd-nspawn, kubernetes, gvisor, wsl … or
    "unknown"; None outside of containers."""
    virtual_machine: str | None = None
    """Its kind: kvm, qemu, vmware, microsoft, xen, uml, wsl, firecracker …; None where
    nothing speaks for one."""
    pod: bool = False
    """Whether it is in a Kubernetes pod."""
    chroot: bool | None = None
    """Whether its root isn't process 1's; None where that can't be seen."""
    user_namespace: bool | None = None
    """Whether user ids are mapped; None where that can't be seen."""
    pid_namespace: bool | None = None
    """Whether it sees only a part of the processes; None where that can't be seen."""
    cgroup_version: int | None = None
    """1, 2 or None without control groups; 1 where both are mounted."""
    evidence: tuple[Evidence, ...] = ()
    contradictions: tuple[str, ...] = ()
    """What was found and not believed, and why."""
    overridden_by: str | None = None
    """What set the platform instead of the evidence: "DUENDE_PLATFORM"."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """This is something that can start, limit or watch daemons, and whether it works."""

    name: str
    state: Literal["usable", "unusable", "absent"]
    """"unusable" is there and doesn't work for this process; "absent" isn't there."""
    reason: str
    """What was tried, and what came of it."""
    mend: str = ""
    """What to do to have it; nothing where it is usable or can't be had."""
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Versions, paths, controllers."""

    @property
    def usable(self) -> bool:
        """Whether it works here, for this process."""
        return self.state == "usable"
