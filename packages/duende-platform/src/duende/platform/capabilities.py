"""What can start, limit and watch daemons here: each thing is tried, none is guessed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from duende.platform.types import Capability
from duende.platform.world import World

__all__ = ("NAMES", "capabilities")

NAMES = (
    "systemd-system",
    "systemd-user",
    "launchd",
    "docker",
    "podman",
    "containerd",
    "cgroup-v2",
    "cgroup-v1",
    "cgroup-kill",
    "cgroup-freeze",
    "pidfd",
    "subreaper",
    "landlock",
    "seccomp",
    "user-namespaces",
    "psi",
    "memory-locking",
    "kvm",
    "vsock",
    "wasmtime",
)
"""All that is looked for, in the order of the answer."""

LOCKING = "memory-locking"


def capabilities() -> Mapping[str, Capability]:
    """This finds out what works here, for this process and its user.

    Engines and managers are asked, kernel interfaces called; nothing that was made for
    it stays. It blocks: a tenth of a second as a rule, and 2 s for each engine or
    manager that does not answer, all asked at the same time.

    Returns:
        Each of `NAMES`, usable or with the reason why not and what mends it.
    """
    from concurrent.futures import ThreadPoolExecutor

    probes = _probes()
    world = World()
    # Before there are threads: what they reserve would have to be locked, too.
    locking = _ask(LOCKING, probes.get(LOCKING), world)
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
        asked = {
            name: pool.submit(_ask, name, probes.get(name), world)
            for name in NAMES
            if name != LOCKING
        }
        return {
            name: asked[name].result() if name in asked else locking for name in NAMES
        }


def _ask(
    name: str, probe: Callable[[World], Capability] | None, world: World
) -> Capability:
    if probe is None:
        reason = f"it is not looked for on {sys.platform}"
        return Capability(name=name, state="absent", reason=reason)
    try:
        return probe(world)
    except OSError as error:
        reason = f"asking failed: {error.strerror or error}"
        return Capability(name=name, state="unusable", reason=reason)


def _probes() -> Mapping[str, Callable[[World], Capability]]:
    """This lists what can be asked on this platform."""
    if sys.platform == "win32":
        return {}
    from duende.platform.probes import engines, managers, tools

    found = {
        "systemd-system": managers.probe_systemd_system,
        "systemd-user": managers.probe_systemd_user,
        "launchd": managers.probe_launchd,
        "docker": engines.probe_docker,
        "podman": engines.probe_podman,
        "containerd": engines.probe_containerd,
        "wasmtime": tools.probe_wasmtime,
    }
    if sys.platform != "linux":
        return found
    from duende.platform.probes import cgroups, kernel

    return {
        **found,
        "cgroup-v2": cgroups.probe_cgroup_v2,
        "cgroup-v1": cgroups.probe_cgroup_v1,
        "cgroup-kill": cgroups.probe_kill,
        "cgroup-freeze": cgroups.probe_freeze,
        "pidfd": kernel.probe_pidfd,
        "subreaper": kernel.probe_subreaper,
        "landlock": kernel.probe_landlock,
        "seccomp": kernel.probe_seccomp,
        "user-namespaces": kernel.probe_user_namespaces,
        "psi": kernel.probe_pressure,
        "memory-locking": kernel.probe_memory_locking,
        "kvm": kernel.probe_kvm,
        "vsock": kernel.probe_vsock,
    }
