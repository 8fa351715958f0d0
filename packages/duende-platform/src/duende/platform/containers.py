"""What speaks for a container, and for which."""

from __future__ import annotations

import re
from collections.abc import Iterator

from duende.platform.namespaces import is_first
from duende.platform.types import Evidence
from duende.platform.world import MOUNTS, World

__all__ = ("container_evidence", "namespace_evidence", "pod_evidence")

_MANAGERS = {
    "docker": "docker",
    "podman": "podman",
    "lxc": "lxc",
    "lxc-libvirt": "lxc",
    "systemd-nspawn": "systemd-nspawn",
    "oci": "unknown",
    "rkt": "unknown",
    "proot": "unknown",
}
"""What `container=` in the environment of process 1 may be (systemd's interface)."""

_NOT_CONTAINERS = ("wsl", "host", "none")
"""What is also written there; WSL is a virtual machine, whatever systemd calls it."""

_PATHS = (
    (re.compile(r"/(docker|docker-ce)[/-][0-9a-f]{12}"), "docker"),
    (re.compile(r"/docker-[0-9a-f]{12,}\.scope"), "docker"),
    (re.compile(r"/libpod-[0-9a-f]{12}"), "podman"),
    (re.compile(r"/kubepods[./-]|/kubepods$"), "kubernetes"),
    (re.compile(r"/cri-containerd-|/crio-[0-9a-f]{12}"), "kubernetes"),
    (re.compile(r"/lxc(\.payload)?[./]"), "lxc"),
    (re.compile(r"/machine\.slice/.*/payload(/|$)"), "systemd-nspawn"),
    (re.compile(r"/(ecs|actions_job|garden)/[0-9a-f-]{12}"), "docker"),
)
"""Parts of a control group's path that engines are known by."""

_UNIT = re.compile(
    r"/system\.slice/(?!docker-|libpod-|cri)[^/\n]+\.service$", re.MULTILINE
)

_OVERLAYS = (
    ("/docker/overlay2/", "docker"),
    ("/docker/rootfs/", "docker"),
    ("/containers/storage/overlay", "podman"),
    ("/io.containerd.snapshotter", "containerd"),
    ("/k3s/agent/containerd", "kubernetes"),
)
"""Where engines keep the layers of a root file system."""


def container_evidence(world: World) -> Iterator[Evidence]:
    """This lists all that speaks for some container, or for a kind of one."""

    def evidence(kind: str, weight: float, source: str, found: str) -> Evidence:
        return Evidence("container", kind, weight, source, found[:200])

    if (text := world.read("/run/.containerenv")) is not None:
        engine = re.search(r'^engine="?([\w.-]+)', text, re.MULTILINE)
        found = engine[0] if engine else "exists"
        yield evidence("podman", 0.9, "/run/.containerenv", found)
    if world.exists("/.dockerenv"):
        # Stays behind in machines that were made from an image.
        yield evidence("docker", 0.6, "/.dockerenv", "exists")
    for source in ("/run/host/container-manager", "/run/systemd/container"):
        if (name := world.read(source)) and name not in _NOT_CONTAINERS:
            yield evidence(_MANAGERS.get(name, "unknown"), 0.95, source, name)
    of_first = _variable(world.read_bytes("/proc/1/environ"), "container")
    of_own = world.environ.get("container")
    for name, weight, source in (
        (of_first, 0.9, "/proc/1/environ"),
        (None if of_first else of_own, 0.5, "environment"),
    ):
        if name and name not in _NOT_CONTAINERS:
            kind = _MANAGERS.get(name, "unknown")
            yield evidence(kind, weight, source, f"container={name}")
    yield from _paths(world)
    yield from _root_mount(world)
    if _is_gvisor(world):
        yield evidence("gvisor", 0.95, "/proc/version", "the kernel gVisor shows")


def namespace_evidence(world: World) -> Iterator[Evidence]:
    """This lists what the namespaces say: those of a container are not the first."""
    if _is_wsl(world) or _is_gvisor(world):
        return  # their namespaces are numbered in their own way
    weights = {"pid": 0.6, "uts": 0.3, "cgroup": 0.3, "ipc": 0.2}
    yield from _unit(world)
    others = [kind for kind in weights if is_first(world, kind) is False]
    if not others:
        if is_first(world, "pid"):
            yield Evidence(
                "container",
                "none",
                0.85,
                "/proc/self/ns",
                "all namespaces are the kernel's first ones",
            )
        return
    if len(others) == 1:
        # One namespace alone is what unshare(1) and sandboxes make.
        yield Evidence("container", "none", 0.5, "/proc/self/ns", f"only {others[0]}")
        return
    weight = 1.0
    for kind in others:
        weight *= 1 - weights[kind]
    yield Evidence(
        "container", "unknown", round(1 - weight, 3), "/proc/self/ns", ", ".join(others)
    )


def pod_evidence(world: World) -> Iterator[Evidence]:
    """This lists what speaks for a Kubernetes pod."""
    if host := world.environ.get("KUBERNETES_SERVICE_HOST"):
        source = "environment"
        yield Evidence(
            "pod", "yes", 0.7, source, f"KUBERNETES_SERVICE_HOST={host}"[:200]
        )
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    if world.exists(f"{folder}/token") or world.exists(f"/run{folder[8:]}/token"):
        yield Evidence("pod", "yes", 0.9, folder, "token")
    for source in ("/proc/1/cgroup", "/proc/self/cgroup"):
        if "kubepods" in (world.read(source) or ""):
            yield Evidence("pod", "yes", 0.9, source, "kubepods")
    for place, point, _ in world.mounts():
        # On a node the folder is where things are mounted, in a pod whence.
        if "/kubelet/pods/" in place and "/kubelet/pods/" not in point:
            yield Evidence("pod", "yes", 0.9, MOUNTS, f"{point} from {place}"[:200])
            break
    hosts = world.read("/etc/hosts") or ""
    if hosts.startswith("# Kubernetes-managed hosts file"):
        yield Evidence("pod", "yes", 0.8, "/etc/hosts", "Kubernetes-managed")


def _paths(world: World) -> Iterator[Evidence]:
    """A whole path that engines give to containers; no process of theirs is in one."""
    for source in ("/proc/self/cgroup", "/proc/1/cgroup"):
        text = world.read(source) or ""
        for pattern, kind in _PATHS:
            if match := pattern.search(text):
                yield Evidence("container", kind, 0.97, source, match[0])
                return


def _unit(world: World) -> Iterator[Evidence]:
    """A whole path that ends in a unit is the machine's own view, no container's.

    Units can have namespaces of their own (systemd.exec(5)) and are no containers.
    """
    source = "/proc/self/cgroup"
    match = _UNIT.search(world.read(source) or "")
    if match and is_first(world, "cgroup"):
        yield Evidence("container", "none", 0.6, source, match[0][:200])


def _root_mount(world: World) -> Iterator[Evidence]:
    """What the root file system is; an engine's layers are only there in a container."""
    for _, point, last in world.mounts():
        if point != "/":
            continue
        kind = last.split(" ", 1)[0]
        for mark, engine in _OVERLAYS:
            if mark in last:
                yield Evidence("container", engine, 0.8, MOUNTS, f"{kind} of {engine}")
                return
        if kind in ("overlay", "fuse.fuse-overlayfs"):
            # Live systems and kiosks have an overlay as root, too.
            yield Evidence("container", "unknown", 0.3, MOUNTS, f"{kind} at /")
        return


def _variable(environ: bytes | None, name: str) -> str | None:
    for part in (environ or b"").split(b"\0"):
        key, equals, value = part.partition(b"=")
        if equals and key == name.encode():
            return value.decode("utf-8", "replace") or None
    return None


def _is_gvisor(world: World) -> bool:
    """gVisor's kernel calls itself 4.4.0 of the year 2016, built by nobody."""
    version = world.read("/proc/version") or ""
    return "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016" in version


def _is_wsl(world: World) -> bool:
    return "microsoft" in (world.read("/proc/sys/kernel/osrelease") or "").lower()
