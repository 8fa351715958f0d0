"""Machines in a folder each: what detection reads of them, and what is true there.

Each is written after what such a place shows; those that can be had are also tried for
real (e2e/test_detection.py). The rest is as good as the documentation it is from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from duende.platform import World
from duende.platform.namespaces import FIRST

ID = "3f4c8a2b9d1e" + "0a" * 26
HOSTS = "# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
CPU = "processor\t: 0\nflags\t\t: fpu vme %s\n"
VIRTUAL = {"/proc/cpuinfo": CPU % "hypervisor"}
WSL = {
    **VIRTUAL,
    "/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2",
    "/proc/version": "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@x)",
}


def dmi(vendor: str, product: str = "") -> dict[str, str]:
    """What the firmware of a virtual machine says."""
    return {
        **VIRTUAL,
        "/sys/class/dmi/id/sys_vendor": vendor,
        "/sys/class/dmi/id/product_name": product,
    }


def root(kind: str, source: str = "none", options: str = "rw") -> str:
    """A line of mountinfo: what is mounted at /."""
    return f"1 0 0:1 / / rw,relatime - {kind} {source} {options}\n"


def layers(folder: str) -> str:
    """A root made of an engine's layers."""
    return root("overlay", "overlay", f"rw,lowerdir={folder}/l/AB,upperdir={folder}/cd")


DOCKER_ROOT = layers("/var/lib/docker/overlay2")
PODMAN_ROOT = layers("/var/lib/containers/storage/overlay")
SNAPSHOT = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"
POD_HOSTS = (
    "9 1 8:1 /var/lib/kubelet/pods/1a/etc-hosts /etc/hosts rw - ext4 /dev/sda rw\n"
)
HOST_CGROUP = "0::/user.slice/user-1000.slice/session-1.scope"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """This is a machine, or what one sees of it from a certain place."""

    files: Mapping[str, str]
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)
    own: str = ""
    """Which namespaces are not the kernel's first ones, e.g. "pid uts"."""
    hidden: bool = False
    """Whether the namespaces can't be seen at all."""
    platform: str = "linux"
    container: str | None = None
    machine: str | None = None
    pod: bool = False
    contradicts: str = ""
    """What is named among what was found and not believed."""

    def build(self, folder: Path) -> World:
        """This writes the files."""
        for path, text in self.files.items():
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if not self.hidden:
            spaces = folder / "proc/self/ns"
            spaces.mkdir(parents=True, exist_ok=True)
            for number, (kind, first) in enumerate(FIRST.items()):
                is_own = kind in self.own.split()
                seen = 4026532600 + number if is_own else first
                (spaces / kind).symlink_to(f"{kind}:[{seen}]")
        return World(str(folder), self.environ)


ALL = "pid uts ipc cgroup"

PLACES = {
    "bare metal": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/cpuinfo": CPU % "sse",
            "/proc/self/cgroup": HOST_CGROUP,
        }
    ),
    "virtual machine with /.dockerenv": Place(
        files={
            **dmi("QEMU", "Standard PC (Q35 + ICH9, 2009)"),
            "/.dockerenv": "",
            "/proc/self/mountinfo": root("ext4", "/dev/vda1"),
            "/proc/self/cgroup": HOST_CGROUP,
        },
        machine="qemu",
        contradicts="/.dockerenv",
    ),
    "machine that runs docker": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1")
            + DOCKER_ROOT.replace(" / / ", " / /var/lib/docker/overlay2/ab/merged "),
            "/proc/self/cgroup": "0::/system.slice/docker.service",
        }
    ),
    "docker, control groups 1": Place(
        files={
            "/.dockerenv": "",
            "/proc/self/mountinfo": DOCKER_ROOT,
            "/proc/self/cgroup": f"5:memory:/docker/{ID}\n0::/docker/{ID}",
        },
        own="pid uts ipc",
        platform="container",
        container="docker",
    ),
    "docker, control groups 2": Place(
        files={
            "/.dockerenv": "",
            "/proc/self/mountinfo": DOCKER_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="docker",
    ),
    "docker with the host's pids": Place(
        files={
            "/.dockerenv": "",
            "/proc/self/mountinfo": DOCKER_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own="uts ipc cgroup",
        platform="container",
        container="docker",
    ),
    "docker with all of the host's namespaces": Place(
        files={
            "/.dockerenv": "",
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/self/cgroup": f"0::/system.slice/docker-{ID}.scope",
            "/proc/1/cgroup": "0::/init.scope",
        },
        platform="container",
        container="docker",
    ),
    "podman's monitor on the host": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/self/cgroup": f"0::/machine.slice/libpod-conmon-{ID}.scope",
        },
    ),
    "docker, a user of its own": Place(
        files={
            "/.dockerenv": "",
            "/proc/self/mountinfo": root("fuse.fuse-overlayfs"),
            "/proc/self/cgroup": "0::/",
        },
        own=f"{ALL} user",
        platform="container",
        container="docker",
    ),
    "Docker Desktop": Place(
        files={
            "/.dockerenv": "",
            "/proc/sys/kernel/osrelease": "6.6.12-linuxkit",
            "/proc/self/mountinfo": layers("/var/lib/docker/rootfs/overlayfs"),
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="docker",
    ),
    "podman, control groups 2": Place(
        files={
            "/run/.containerenv": 'engine="podman-4.9.4"\nname="web"\n',
            "/proc/1/environ": "PATH=/bin\0container=podman\0",
            "/proc/self/mountinfo": PODMAN_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="podman",
    ),
    "podman without root": Place(
        files={
            "/run/.containerenv": "",
            "/proc/self/mountinfo": root("fuse.fuse-overlayfs"),
            "/proc/self/cgroup": "0::/",
        },
        environ={"container": "podman"},
        own=f"{ALL} user",
        platform="container",
        container="podman",
    ),
    "podman with a /.dockerenv from its image": Place(
        files={
            "/.dockerenv": "",
            "/run/.containerenv": "",
            "/proc/1/environ": "container=podman\0",
            "/proc/self/mountinfo": PODMAN_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="podman",
    ),
    "Kubernetes, containerd, control groups 2": Place(
        files={
            "/etc/hosts": HOSTS,
            TOKEN: "x",
            "/proc/self/mountinfo": layers(SNAPSHOT) + POD_HOSTS,
            "/proc/self/cgroup": "0::/",
        },
        environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        own=ALL,
        platform="container",
        container="kubernetes",
        pod=True,
    ),
    "Kubernetes, CRI-O, no token, no links": Place(
        files={
            "/etc/hosts": HOSTS,
            "/proc/self/mountinfo": PODMAN_ROOT + POD_HOSTS,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="kubernetes",
        pod=True,
    ),
    "Kubernetes, docker, control groups 1": Place(
        files={
            "/.dockerenv": "",
            "/etc/hosts": HOSTS,
            "/proc/self/mountinfo": DOCKER_ROOT + POD_HOSTS,
            "/proc/self/cgroup": f"5:memory:/kubepods/burstable/pod1a/{ID}",
        },
        own="pid uts ipc",
        platform="container",
        container="kubernetes",
        pod=True,
    ),
    "node of a Kubernetes cluster": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1")
            + "7 1 0:9 / /var/lib/kubelet/pods/1a/volumes/t rw - tmpfs tmpfs rw\n"
            + "8 1 8:1 /var/lib/kubelet/pods/1a/volumes/t/s "
            "/var/lib/kubelet/pods/1a/volume-subpaths/s/0 rw - ext4 /dev/sda1 rw\n",
            "/proc/self/cgroup": "0::/system.slice/kubelet.service",
        }
    ),
    "WSL 2": Place(
        files={
            **WSL,
            "/proc/self/mountinfo": root("ext4", "/dev/sdc"),
            "/proc/self/cgroup": "0::/",
        },
        own="pid uts ipc",
        machine="wsl",
    ),
    "WSL 2 with systemd": Place(
        files={
            **WSL,
            "/run/systemd/container": "wsl",
            "/proc/1/environ": "container=wsl\0",
            "/proc/self/mountinfo": root("ext4", "/dev/sdc"),
            "/proc/self/cgroup": "0::/init.scope",
        },
        own="pid uts ipc",
        machine="wsl",
    ),
    "WSL 1": Place(
        files={
            "/proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft",
            "/proc/self/mountinfo": root("wslfs", "rootfs"),
        }
    ),
    "docker on WSL 2": Place(
        files={
            **WSL,
            "/.dockerenv": "",
            "/proc/self/mountinfo": DOCKER_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="docker",
        machine="wsl",
    ),
    "systemd-nspawn": Place(
        files={
            "/run/host/container-manager": "systemd-nspawn",
            "/run/systemd/container": "systemd-nspawn",
            "/proc/1/environ": "container=systemd-nspawn\0",
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/self/cgroup": "0::/init.scope",
        },
        own=f"{ALL} user",
        platform="container",
        container="systemd-nspawn",
    ),
    "lxc": Place(
        files={
            "/proc/1/environ": "container=lxc\0",
            "/proc/self/mountinfo": root("ext4", "/dev/sda1")
            + "2 1 0:9 / /proc/meminfo rw - fuse.lxcfs lxcfs rw\n",
            "/proc/self/cgroup": "0::/.lxc",
        },
        own=ALL,
        platform="container",
        container="lxc",
    ),
    "lxc, seen by a user": Place(
        files={
            "/run/systemd/container": "lxc",
            "/proc/self/mountinfo": root("zfs", "tank/lxd/c1"),
            "/proc/self/cgroup": "0::/user.slice/user-1000.slice/session-1.scope",
        },
        own=f"{ALL} user",
        platform="container",
        container="lxc",
    ),
    "gVisor under docker": Place(
        files={
            "/.dockerenv": "",
            "/proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016",
            "/proc/self/mountinfo": root("9p"),
        },
        hidden=True,
        platform="container",
        container="gvisor",
    ),
    "gVisor in a pod": Place(
        files={
            "/etc/hosts": HOSTS,
            TOKEN: "x",
            "/proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016",
            "/proc/self/mountinfo": root("9p"),
        },
        environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        hidden=True,
        platform="container",
        container="gvisor",
        pod=True,
    ),
    "QEMU with virtio-ports": Place(
        files={
            **dmi("QEMU", "KVM Virtual Machine"),
            "/sys/class/virtio-ports/vport1p1/name": "org.qemu.guest_agent.0",
            "/sys/class/virtio-ports/vport1p2/name": "com.redhat.spice.0",
            "/proc/self/mountinfo": root("ext4", "/dev/vda1"),
            "/proc/cmdline": "root=/dev/vda1 console=ttyS0",
        },
        machine="kvm",
    ),
    "pepita": Place(
        files={
            **VIRTUAL,
            "/proc/cmdline": "console=hvc0 pepita.id=7",
            "/sys/class/virtio-ports/vport1p1/name": "org.pepita.control",
            "/proc/self/mountinfo": root("rootfs"),
        },
        platform="pepita",
        machine="unknown",
    ),
    "machine with a pepita word in its command line": Place(
        files={"/proc/cmdline": "root=/dev/sda1 pepita.id=7"},
        contradicts="/proc/cmdline",
    ),
    "that word, and ports of others": Place(
        files={
            "/proc/cmdline": "root=/dev/sda1 pepita.id=7",
            "/sys/class/virtio-ports/vport1p1/name": "org.qemu.guest_agent.0",
        },
        contradicts="/proc/cmdline",
    ),
    "docker in a pepita": Place(
        files={
            "/.dockerenv": "",
            "/proc/cmdline": "pepita.id=7",
            "/sys/class/virtio-ports/vport1p1/name": "org.pepita.control",
            "/proc/self/mountinfo": DOCKER_ROOT,
            "/proc/self/cgroup": "0::/",
        },
        own=ALL,
        platform="container",
        container="docker",
    ),
    "live system with an overlay as root": Place(
        files={
            "/proc/self/mountinfo": root("overlay", "/cow", "rw,lowerdir=/rofs"),
            "/proc/self/cgroup": HOST_CGROUP,
        },
        contradicts="overlay at /",
    ),
    "unshare --pid --fork": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/self/cgroup": HOST_CGROUP,
        },
        own="pid",
    ),
    "unit with namespaces of its own": Place(
        files={
            "/proc/self/mountinfo": root("ext4", "/dev/sda1"),
            "/proc/self/cgroup": "0::/system.slice/web.service",
        },
        own="pid uts ipc user",
        contradicts="pid, uts, ipc",
    ),
    "User-mode Linux": Place(
        files={
            "/proc/cpuinfo": "processor\t: 0\nvendor_id\t: User Mode Linux\n",
            "/proc/self/mountinfo": root("hostfs"),
            "/.dockerenv": "",
        },
        machine="uml",
        contradicts="/.dockerenv",
    ),
    "Xen, the controlling machine": Place(
        files={
            "/sys/hypervisor/type": "xen",
            "/proc/xen/capabilities": "control_d",
            "/proc/cpuinfo": CPU % "hypervisor",
        }
    ),
    "Xen, a guest": Place(
        files={"/sys/hypervisor/type": "xen", "/proc/xen/capabilities": ""},
        machine="xen",
    ),
    "Amazon Nitro": Place(files=dmi("Amazon EC2", "c5.large"), machine="amazon"),
    "VMware": Place(files=dmi("VMware, Inc.", "VMware7,1"), machine="vmware"),
    "Hyper-V": Place(
        files=dmi("Microsoft Corporation", "Virtual Machine"), machine="microsoft"
    ),
    "VirtualBox": Place(files=dmi("innotek GmbH", "VirtualBox"), machine="virtualbox"),
    "nothing can be read": Place(files={}, hidden=True),
}
