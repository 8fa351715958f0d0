"""Where a process is among the control groups: trees of files, and the real one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.mlock.cgroups import (
    memory_limit,
    own_cgroups,
    parse_cgroups,
    parse_mounts,
)

from .child import SOURCE, linux

MIB = 1024 * 1024
MEMINFO = "MemTotal:        8388608 kB\n"
V2 = "30 20 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 20 0:27 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
HYBRID = "32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def tree(folder: Path, cgroup: str, mountinfo: str, **limits: str) -> str:
    """This makes files as a machine would have them; limits by path, `__` is `/`."""
    files = {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": mountinfo,
        "proc/meminfo": MEMINFO,
    }
    for name, value in limits.items():
        files["sys/fs/cgroup/" + name.replace("__", "/").replace("_dot_", ".")] = value
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return str(folder)


CASES = {
    "no control groups": ("", "", {}, None, 0),
    "host, version 2, no limit": (
        "0::/user.slice\n",
        V2.format(root="/"),
        {"user.slice__memory_dot_max": "max\n"},
        None,
        2,
    ),
    "a slice's limit binds its services": (
        "0::/app.slice/web.service\n",
        V2.format(root="/"),
        {
            "app.slice__web.service__memory_dot_max": "max\n",
            "app.slice__memory_dot_max": f"{512 * MIB}\n",
        },
        512 * MIB,
        3,
    ),
    "nested, the smallest binds": (
        "0::/pod/one\n",
        V2.format(root="/"),
        {
            "pod__one__memory_dot_max": f"{256 * MIB}\n",
            "pod__memory_dot_max": f"{128 * MIB}\n",
        },
        128 * MIB,
        3,
    ),
    "container with a cgroup namespace": (
        "0::/\n",
        V2.format(root="/"),
        {"memory_dot_max": f"{64 * MIB}\n"},
        64 * MIB,
        1,
    ),
    "container, version 1, the host's paths": (
        "5:memory:/docker/0123\n0::/\n",
        V1.format(root="/docker/0123"),
        {"memory__memory_dot_limit_in_bytes": f"{64 * MIB}\n"},
        64 * MIB,
        1,
    ),
    "version 1 without a limit": (
        "5:memory:/\n",
        V1.format(root="/"),
        {"memory__memory_dot_limit_in_bytes": "9223372036854771712\n"},
        None,
        1,
    ),
    "hybrid: the controller is version 1's": (
        "5:memory:/a\n0::/b\n",
        V1.format(root="/") + HYBRID,
        {"memory__a__memory_dot_limit_in_bytes": f"{32 * MIB}\n"},
        32 * MIB,
        2,
    ),
    "more than the machine has": (
        "0::/\n",
        V2.format(root="/"),
        {"memory_dot_max": f"{9 * 1024 * MIB}\n"},
        None,
        1,
    ),
    "a path outside of the namespace": (
        "0::/../../other\n",
        V2.format(root="/"),
        {"memory_dot_max": f"{64 * MIB}\n"},
        64 * MIB,
        1,
    ),
    "the named folder is not mounted": (
        "0::/kubepods/pod7/c9\n",
        V2.format(root="/"),
        {"memory_dot_max": f"{64 * MIB}\n"},
        64 * MIB,
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_binds(tmp_path: Path, name: str) -> None:
    """The limit, and how many groups it was looked for in."""
    cgroup, mountinfo, limits, expected, depth = CASES[name]
    root = tree(tmp_path, cgroup, mountinfo, **limits)
    assert memory_limit(root) == expected
    assert len(own_cgroups("memory", root)) == depth


@given(st.text(), st.text())
def test_garbage_is_no_control_group(cgroup: str, mountinfo: str) -> None:
    """Nothing that these files hold makes the reading fail."""
    parse_cgroups(cgroup)
    parse_mounts(mountinfo)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_mount_points_are_unescaped(name: str) -> None:
    r"""Blanks, tabs, newlines and backslashes are octal in mountinfo (proc(5))."""
    path = "/" + name
    escaped = path
    for char in "\\ \t\n":
        escaped = escaped.replace(char, f"\\{ord(char):03o}")
    [mount] = parse_mounts(f"1 2 0:3 / {escaped} rw - cgroup2 none rw\n")
    assert mount.point == path


@contextlib.contextmanager
def real_group(limit: int) -> Iterator[Path]:
    """This makes a memory control group below this process's own, with a limit."""
    own = own_cgroups("memory")
    if not own or not os.access(own[0].path, os.W_OK):
        pytest.skip("needs a memory control group that may be written: run as root")
    name = "memory.max" if own[0].version == 2 else "memory.limit_in_bytes"
    group = Path(own[0].path) / f"duende-test-{os.getpid()}"
    group.mkdir()
    try:
        if not (group / name).exists():
            pytest.skip("the memory controller isn't delegated to this group")
        (group / name).write_text(str(limit))
        yield group
    finally:
        group.rmdir()


@linux
@pytest.mark.real
def test_a_real_limit() -> None:
    """A process that the kernel limits finds the limit."""
    code = """
import os, sys
from duende.mlock.cgroups import memory_limit
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
print(memory_limit())
"""
    with real_group(256 * MIB) as group:
        done = subprocess.run(
            [sys.executable, "-c", code, str(group)],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert done.stdout.strip() == str(256 * MIB)
