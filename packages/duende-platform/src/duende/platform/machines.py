"""What speaks for a virtual machine, and for which."""

from __future__ import annotations

import re
from collections.abc import Iterator

from duende.platform.types import Evidence
from duende.platform.world import World

__all__ = ("machine_evidence", "pepita_evidence")

_DMI = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "virtualbox"),
    ("VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Microsoft Corporation Virtual Machine", "microsoft"),
    ("Apple Virtualization", "apple"),
    ("Alibaba Cloud ECS", "alibaba"),
)
"""Marks in the firmware's strings, the most telling first."""


def machine_evidence(world: World) -> Iterator[Evidence]:
    """This lists all that speaks for some virtual machine, or for a kind of one."""

    def evidence(kind: str, weight: float, source: str, found: str) -> Evidence:
        return Evidence("machine", kind, weight, source, found[:200])

    release = world.read("/proc/sys/kernel/osrelease") or ""
    if "microsoft" in release.lower():
        two = "WSL2" in release or "microsoft-standard" in release
        # WSL 1 is no machine: Windows answers the system calls itself.
        kind, found = ("wsl", release) if two else ("wsl1", release)
        yield evidence(kind, 0.95, "/proc/sys/kernel/osrelease", found)
    cpu = world.read("/proc/cpuinfo") or ""
    if re.search(r"^vendor_id\s*:\s*User Mode Linux", cpu, re.MULTILINE):
        yield evidence("uml", 0.99, "/proc/cpuinfo", "User Mode Linux")
    elif re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE):
        yield evidence("unknown", 0.8, "/proc/cpuinfo", "flag hypervisor")
    if name := world.read("/sys/hypervisor/type"):
        if _is_xen_dom0(world):
            yield evidence("none", 0.9, "/proc/xen/capabilities", "control_d")
        else:
            yield evidence(name, 0.9, "/sys/hypervisor/type", name)
    vendor = world.read("/sys/class/dmi/id/sys_vendor") or ""
    product = world.read("/sys/class/dmi/id/product_name") or ""
    bios = world.read("/sys/class/dmi/id/bios_vendor") or ""
    text = f"{vendor} {product} {bios}"
    for mark, kind in _DMI:
        if mark in text:
            yield evidence(
                kind, 0.9, "/sys/class/dmi/id", f"{vendor} {product}".strip()
            )
            break
    if "firecracker" in (world.read("/proc/cmdline") or ""):
        yield evidence("firecracker", 0.6, "/proc/cmdline", "firecracker")
    clock = world.read(
        "/sys/devices/system/clocksource/clocksource0/available_clocksource"
    )
    for mark, kind in (("kvm-clock", "kvm"), ("hyperv", "microsoft"), ("xen", "xen")):
        if mark in (clock or ""):
            yield evidence(kind, 0.8, "available_clocksource", mark)
            break


def pepita_evidence(world: World) -> Iterator[Evidence]:
    """This lists what speaks for a pepita microVM.

    A virtio-serial port proves nothing: any QEMU guest may have some. It counts when
    the port carries the name, and convinces only with the kernel's command line.
    """
    for word in (world.read("/proc/cmdline") or "").split():
        if word == "pepita" or word.startswith("pepita."):
            yield Evidence("platform", "pepita", 0.7, "/proc/cmdline", word[:200])
            break
    folder = "/sys/class/virtio-ports"
    for port in world.listdir(folder):
        name = world.read(f"{folder}/{port}/name") or ""
        if name.startswith("org.pepita."):
            yield Evidence(
                "platform", "pepita", 0.5, f"{folder}/{port}/name", name[:200]
            )
            break


def _is_xen_dom0(world: World) -> bool:
    return "control_d" in (world.read("/proc/xen/capabilities") or "")
