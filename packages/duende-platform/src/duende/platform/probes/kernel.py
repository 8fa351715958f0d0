"""What the Linux kernel offers to a supervisor, each thing by trying it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import sys

from duende.mlock import MlockError, diagnose
from duende.platform.errors import PlatformInfoError
from duende.platform.pressure import memory_pressure
from duende.platform.probes.answers import (
    absent,
    ask_program,
    last_line,
    unusable,
    usable,
)
from duende.platform.types import Capability
from duende.platform.world import World

__all__ = (
    "probe_kvm",
    "probe_landlock",
    "probe_memory_locking",
    "probe_pidfd",
    "probe_pressure",
    "probe_seccomp",
    "probe_subreaper",
    "probe_user_namespaces",
    "probe_vsock",
)

LANDLOCK_CREATE_RULESET = 444
"""The same on all architectures (include/uapi/asm-generic/unistd.h)."""
LANDLOCK_VERSION = 1
SECCOMP = {"x86_64": 317, "aarch64": 277, "armv7l": 383, "riscv64": 277, "ppc64le": 358}
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_RET_ERRNO = 0x00050000
PR_GET_CHILD_SUBREAPER = 37
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01
VSOCK_GET_LOCAL_CID = 0x7B9
UNSHARE_USER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    sys.exit(os.strerror(ctypes.get_errno()))
print("done")
"""


def probe_pidfd(world: World) -> Capability:
    """This opens a pidfd of this process, and sends signal 0 through it."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError as error:
        return _refused("pidfd", "pidfd_open", error, "Linux 5.3")
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as error:
        return _refused("pidfd", "pidfd_send_signal", error, "Linux 5.1")
    finally:
        os.close(pidfd)
    return usable("pidfd", "pidfd_open and pidfd_send_signal work")


def probe_subreaper(world: World) -> Capability:
    """This asks whether this process is a subreaper, which only such kernels answer."""
    value = ctypes.c_int(-1)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0):
        return _refused("subreaper", "prctl", _last_error(), "Linux 3.4")
    return usable("subreaper", "prctl(PR_GET_CHILD_SUBREAPER) answers")


def probe_landlock(world: World) -> Capability:
    """This asks for the version of Landlock's interface (landlock(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(
        LANDLOCK_CREATE_RULESET,
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint32(LANDLOCK_VERSION),
    )
    if version > 0:
        return usable("landlock", "landlock_create_ruleset answers", abi=str(version))
    error = _last_error()
    if error.errno == errno.EOPNOTSUPP:
        return unusable(
            "landlock",
            "the kernel has it, and was started without it",
            "add landlock to the kernel's parameter lsm=",
        )
    return _refused("landlock", "landlock_create_ruleset", error, "Linux 5.13")


def probe_seccomp(world: World) -> Capability:
    """This asks whether filters may answer with an errno (seccomp(2))."""
    number = SECCOMP.get(platform.machine())
    if number is None:
        machine = platform.machine()
        return unusable("seccomp", f"the number of seccomp(2) on {machine} isn't known")
    libc = ctypes.CDLL(None, use_errno=True)
    action = ctypes.c_uint32(SECCOMP_RET_ERRNO)
    if libc.syscall(number, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)):
        return _refused("seccomp", "seccomp", _last_error(), "CONFIG_SECCOMP_FILTER")
    return usable("seccomp", "seccomp(SECCOMP_GET_ACTION_AVAIL) answers")


def probe_kvm(world: World) -> Capability:
    """This makes an empty virtual machine of KVM, and lets it go."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return absent(
            "kvm",
            "there is no /dev/kvm",
            "modprobe kvm_intel or kvm_amd; in a virtual machine switch on nesting",
        )
    except OSError as error:
        mend = "add the user to the group kvm; in a container pass --device /dev/kvm"
        return unusable("kvm", f"/dev/kvm: {error.strerror}", mend)
    try:
        version = fcntl.ioctl(device, KVM_GET_API_VERSION, 0)
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
    except OSError as error:
        return unusable("kvm", f"no virtual machine can be made: {error.strerror}")
    finally:
        os.close(device)
    return usable("kvm", "KVM_CREATE_VM works", api=str(version))


def probe_vsock(world: World) -> Capability:
    """This makes a vsock socket, and asks for this machine's address (vsock(7))."""
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError as error:
        return _refused("vsock", "socket(AF_VSOCK)", error, "CONFIG_VSOCKETS")
    try:
        device = os.open("/dev/vsock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        mend = "modprobe vsock; in a container pass --device /dev/vsock"
        return unusable("vsock", f"/dev/vsock: {error.strerror}", mend)
    try:
        answer = fcntl.ioctl(device, VSOCK_GET_LOCAL_CID, bytes(4))
    except OSError as error:
        return unusable("vsock", f"it has no address: {error.strerror}")
    finally:
        os.close(device)
    cid = int.from_bytes(answer, sys.byteorder)
    if cid == socket.VMADDR_CID_ANY:
        mend = "modprobe vhost_vsock for a host, or start the guest with a vsock device"
        return unusable("vsock", "no transport is loaded, so it has no address", mend)
    return usable("vsock", "this machine has an address", cid=str(cid))


def probe_user_namespaces(world: World) -> Capability:
    """This makes a user namespace, in a process of its own."""
    name = "user-namespaces"
    code, text = ask_program(sys.executable, "-I", "-S", "-c", UNSHARE_USER)
    if (code, text) == (0, "done"):
        return usable(name, "unshare(CLONE_NEWUSER) works")
    if code != 1:
        return unusable(name, f"it can't be tried: {last_line(text)}")
    if world.namespace("user") is None:
        return absent(name, "the kernel has none", "it takes CONFIG_USER_NS")
    for path, needed in (
        ("/proc/sys/user/max_user_namespaces", None),
        ("/proc/sys/kernel/unprivileged_userns_clone", 1),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0),
    ):
        value = world.number(path)
        if value is not None and (value == 0 if needed is None else value != needed):
            mend = f"echo {15000 if needed is None else needed} > {path}"
            return unusable(name, f"{last_line(text)}; {path} is {value}", mend)
    mend = "a seccomp filter may forbid it, as docker's default one does"
    return unusable(name, last_line(text), mend)


def probe_pressure(world: World) -> Capability:
    """This reads the pressure on memory (psi.rst)."""
    try:
        found = memory_pressure(world)
    except PlatformInfoError as error:
        return absent("psi", str(error.strerror))
    return usable("psi", f"{found.source} can be read")


def probe_memory_locking(world: World) -> Capability:
    """This has duende.mlock find out whether memory can be locked."""
    name = "memory-locking"
    try:
        found = diagnose()
    except MlockError as error:
        return unusable(name, str(error.strerror))
    if found.can_lock:
        return usable(name, found.verdict)
    mend = next((f"{each.place}: {each.lines[0]}" for each in found.remedies), "")
    return unusable(name, found.verdict, mend)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _refused(name: str, what: str, error: OSError, since: str) -> Capability:
    if error.errno in (errno.ENOSYS, errno.EINVAL, errno.EAFNOSUPPORT):
        return absent(name, f"{what}: {error.strerror}", f"it takes {since}")
    mend = "a seccomp filter of a container or unit may forbid it"
    return unusable(name, f"{what}: {error.strerror}", mend)
