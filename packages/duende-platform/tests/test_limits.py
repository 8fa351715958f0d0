"""What this process can have of the machine: the limit that really binds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.mlock import LockMode
from duende.platform import (
    PlatformInfoError,
    World,
    apply_memory_config,
    cpu_limit,
    memory_available,
    memory_limit,
    page_size,
)
from duende.platform.cpu import parse_affinity

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1024 * 1024
TOP = "/sys/fs/cgroup"
MACHINE = {
    "/proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
    "/sys/devices/system/cpu/online": "0-7",
    "/proc/self/status": "Cpus_allowed_list:\t0-7\n",
}
TWO = {
    **MACHINE,
    "/proc/self/cgroup": "0::/a/b\n",
    "/proc/self/mountinfo": f"1 0 0:1 / {TOP} rw - cgroup2 cgroup2 rw\n",
}
ONE = {
    **MACHINE,
    "/proc/self/cgroup": "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n",
    "/proc/self/mountinfo": (
        f"1 0 0:1 / {TOP}/memory rw - cgroup cgroup rw,memory\n"
        f"2 0 0:2 / {TOP}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    ),
}
WITHIN = {
    **MACHINE,
    "/proc/self/cgroup": "0::/\n",
    "/proc/self/mountinfo": f"1 0 0:1 / {TOP} ro - cgroup2 cgroup rw\n",
}


def machine(folder: Path, *layers: dict[str, str]) -> World:
    """This is a machine of files."""
    for path, text in {k: v for layer in layers for k, v in layer.items()}.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return World(str(folder), {})


def group(path: str, limit: str, used: int, idle: int = 0) -> dict[str, str]:
    """A group of version 2, in MiB."""
    return {
        f"{TOP}{path}/memory.max": limit,
        f"{TOP}{path}/memory.current": f"{used * MIB}\n",
        f"{TOP}{path}/memory.stat": f"anon 1\ninactive_file {idle * MIB}\n",
    }


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    """No limit is None; available is the machine's own."""
    world = machine(tmp_path, TWO, group("/a/b", "max\n", 5), group("/a", "max", 5))
    assert memory_limit(world) is None
    assert memory_available(world) == 8192 * MIB
    assert cpu_limit(world) is None


def test_the_outer_group_can_be_the_one_that_binds(tmp_path: Path) -> None:
    """What binds is the least of the way to the top; a neighbour's use counts there."""
    inner = group("/a/b", f"{512 * MIB}", 100)
    outer = group("/a", f"{400 * MIB}", 350, idle=30)
    world = machine(tmp_path, TWO, inner, outer)
    assert memory_limit(world) == 400 * MIB
    assert memory_available(world) == (400 - 350 + 30) * MIB


def test_cached_files_count_as_available(tmp_path: Path) -> None:
    """A group that is full of idle cache is not full."""
    world = machine(tmp_path, TWO, group("/a/b", f"{100 * MIB}", 99, idle=60))
    assert memory_available(world) == 61 * MIB
    world = machine(tmp_path, TWO, group("/a/b", f"{100 * MIB}", 120))
    assert memory_available(world) == 0


def test_inside_a_container_the_mount_is_the_own_group(tmp_path: Path) -> None:
    """With `0::/` the limits are in the mounted folder itself."""
    world = machine(tmp_path, WITHIN, group("", f"{64 * MIB}", 10))
    assert memory_limit(world) == 64 * MIB
    assert memory_available(world) == 54 * MIB


def test_version_1(tmp_path: Path) -> None:
    """Its files have other names; "no limit" is a number larger than any machine."""
    files = {
        f"{TOP}/memory/a/b/memory.limit_in_bytes": f"{96 * MIB}",
        f"{TOP}/memory/a/b/memory.usage_in_bytes": f"{40 * MIB}",
        f"{TOP}/memory/a/b/memory.stat": f"total_inactive_file {8 * MIB}\n",
        f"{TOP}/memory/memory.limit_in_bytes": "9223372036854771712",
        f"{TOP}/cpu/a/b/cpu.cfs_quota_us": "-1",
        f"{TOP}/cpu/a/b/cpu.cfs_period_us": "100000",
        f"{TOP}/cpu/a/cpu.cfs_quota_us": "25000",
        f"{TOP}/cpu/a/cpu.cfs_period_us": "50000",
    }
    world = machine(tmp_path, ONE, files)
    assert memory_limit(world) == 96 * MIB
    assert memory_available(world) == 64 * MIB
    assert cpu_limit(world) == 0.5


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"/a/b/cpu.max": "150000 100000"}, 1.5),
        ({"/a/b/cpu.max": "max 100000", "/a/cpu.max": "20000 100000"}, 0.2),
        ({"/a/b/cpu.max": "900000 100000"}, None),
        ({"/a/b/cpu.max": "50000"}, None),
        ({"/a/b/cpu.max": "50000 0"}, None),
        ({"/a/b/cpu.max": ""}, None),
    ],
)
def test_quotas(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    """The least of the way; one beyond the machine's own processors binds nothing."""
    found = {f"{TOP}{path}": text for path, text in files.items()}
    assert cpu_limit(machine(tmp_path, TWO, found)) == limit


def test_affinity(tmp_path: Path) -> None:
    """Fewer processors than there are is a limit, and beside a quota the less counts."""
    few = {"/proc/self/status": "Cpus_allowed_list:\t0-1,5\n"}
    assert cpu_limit(machine(tmp_path, TWO, few)) == 3
    quota = {f"{TOP}/a/b/cpu.max": "50000 100000"}
    assert cpu_limit(machine(tmp_path, TWO, few, quota)) == 0.5


@pytest.mark.parametrize("text", ["", "0-", "-3", "a", "1,,2", "0-3;5", "²"])
def test_a_list_that_is_none(text: str) -> None:
    """It counts nothing, and raises nothing."""
    assert parse_affinity(text) == 0


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_of_processors(processors: set[int]) -> None:
    """Ranges and single numbers, in the kernel's form, are counted rightly."""
    parts, first = [], None
    for number in sorted(processors):
        first = number if first is None else first
        if number + 1 not in processors:
            parts.append(f"{first}-{number}" if first != number else f"{number}")
            first = None
    assert parse_affinity(",".join(parts) + "\n") == len(processors)


def test_without_proc(tmp_path: Path) -> None:
    """There is no figure to give, and the error says what is missing."""
    with pytest.raises(PlatformInfoError, match="is /proc mounted"):
        memory_available(World(str(tmp_path), {}))
    assert memory_limit(World(str(tmp_path), {})) is None
    assert cpu_limit(World(str(tmp_path), {})) is None


@linux
@pytest.mark.real
def test_here() -> None:
    """The figures of this machine are possible ones."""
    assert page_size() == os.sysconf("SC_PAGESIZE")
    limit = memory_limit()
    assert 0 < memory_available() <= os.sysconf("SC_PHYS_PAGES") * page_size()
    assert limit is None or limit > 0


@linux
@pytest.mark.real
def test_a_process_on_one_processor() -> None:
    """It has one, and no more."""
    if os.cpu_count() == 1:
        pytest.skip("there is one processor only")
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    code += "from duende.platform import cpu_limit; print(cpu_limit() <= 1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True\n"


LOCK = """
import enum, resource, types, sys
from duende.platform import apply_memory_config
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
Kind = enum.Enum("Kind", {"REQUIRED": "required"})
import duende.mlock.limits, os
if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)
try:
    apply_memory_config(types.SimpleNamespace(lock_memory=Kind.REQUIRED))
except OSError as error:
    print(type(error).__name__)
status = apply_memory_config(types.SimpleNamespace(lock_memory=True))
print(status.state, status.is_locked())
"""


@linux
@pytest.mark.real
def test_resources_that_ask_for_a_lock() -> None:
    """The value is read of the resources, an enum's too; required raises."""
    done = subprocess.run(
        [sys.executable, "-c", LOCK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "MlockPermissionError\nfailed False\n", done.stderr


def test_resources_that_ask_for_none() -> None:
    """Nothing is done; nonsense is refused."""
    assert apply_memory_config(SimpleNamespace(lock_memory=False), {}) is None
    assert apply_memory_config(LockMode.OFF, {}) is None
    assert apply_memory_config(None, {}) is None
    with pytest.raises(ValueError, match="lock_memory is 'maybe'"):
        apply_memory_config("maybe", {})
