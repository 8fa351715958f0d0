"""Pressure on memory: the figures, and a descriptor that wakes."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from duende.platform import PlatformInfoError, PressureTrigger, World, memory_pressure

linux = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's")

FIGURES = """some avg10=1.50 avg60=0.25 avg300=0.00 total=2500000
full avg10=0.50 avg60=0.00 avg300=0.00 total=1000000
"""
CGROUP = {
    "/proc/self/cgroup": "0::/a\n",
    "/proc/self/mountinfo": "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}


def machine(folder: Path, files: dict[str, str]) -> World:
    """This is a machine of files."""
    for path, text in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return World(str(folder), {})


def test_the_own_group_goes_before_the_machine(tmp_path: Path) -> None:
    """Its figures are taken where there are some, and the source is named."""
    own = "/sys/fs/cgroup/a/memory.pressure"
    idle = FIGURES.replace("1.50", "0.00")
    files = {**CGROUP, "/proc/pressure/memory": idle, own: FIGURES}
    found = memory_pressure(machine(tmp_path, files))
    assert (found.some.avg10, found.some.avg60, found.some.total) == (1.5, 0.25, 2.5)
    assert (found.full.avg10, found.full.total, found.source) == (0.5, 1.0, own)
    (tmp_path / own.lstrip("/")).write_text("")
    assert memory_pressure(World(str(tmp_path))).source == "/proc/pressure/memory"


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "some avg10=x avg60=0 avg300=0 total=1", FIGURES.split("\n")[0], "="],
)
def test_figures_that_are_none(tmp_path: Path, text: str) -> None:
    """There is no pressure to tell of, and that is an error with a mend."""
    with pytest.raises(PlatformInfoError, match="psi=1") as caught:
        memory_pressure(machine(tmp_path, {"/proc/pressure/memory": text}))
    assert caught.value.errno == errno.ENOTSUP


@pytest.mark.parametrize(
    ("stall", "window", "kind", "message"),
    [
        (0.1, 0.4, "some", "window is 0.4 s; it can be 0.5 to 10 s"),
        (0.1, 11, "some", "window is 11 s"),
        (0, 2, "some", "stall is 0 s"),
        (3, 2, "full", "stall is 3 s; it can be up to the window, 2 s"),
        (0.1, 2, "most", "kind is 'most'"),
    ],
)
def test_triggers_that_the_kernel_would_refuse(
    stall: float, window: float, kind: str, message: str
) -> None:
    """They are refused before it is asked."""
    with pytest.raises(ValueError, match=message):
        PressureTrigger(stall, window, kind)  # type: ignore[arg-type]


@linux
@pytest.mark.real
def test_a_file_that_is_no_pressure_file(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(PlatformInfoError, match="can't watch the pressure") as caught:
        PressureTrigger(0.1, 2, source=str(tmp_path / "none"))
    assert caught.value.filename == str(tmp_path / "none")


def may_watch() -> bool:
    """This asks the kernel whether it lets this process watch."""
    try:
        PressureTrigger(0.1, 2).close()
    except PlatformInfoError:
        return False
    return True


THRASH = """
import mmap, os, sys, tempfile
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
with tempfile.TemporaryFile(dir="/var/tmp") as file:
    for _ in range(64):
        file.write(os.urandom(1 << 20))
    file.flush()
    view = mmap.mmap(file.fileno(), 64 << 20, prot=mmap.PROT_READ)
    while True:
        for at in range(0, 64 << 20, 4096):
            view[at]
"""


@pytest.fixture
def squeezed() -> Iterator[int]:
    """A process that reads a file over and over, in a group too small for it."""
    folder = Path(f"/sys/fs/cgroup/memory/duende-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no version 1 memory group can be made: {error}")
    (folder / "memory.limit_in_bytes").write_text(f"{16 << 20}")
    process = subprocess.Popen([sys.executable, "-c", THRASH, str(folder)])
    yield process.pid
    process.kill()
    process.wait()
    folder.rmdir()


@linux
@pytest.mark.real
@pytest.mark.skipif(not may_watch(), reason="needs PSI and write access to it")
def test_a_trigger_wakes_under_pressure(squeezed: int) -> None:
    """It wakes a thread and an event loop, and does not spin between the events."""
    with PressureTrigger(0.05, 2, source="/proc/pressure/memory") as trigger:
        assert trigger.wait(60)

        async def seconds_between_events() -> float:
            loop = asyncio.get_running_loop()
            woken: asyncio.Queue[float] = asyncio.Queue()
            loop.add_reader(
                trigger.fileno(), lambda: woken.put_nowait(time.monotonic())
            )
            first = await asyncio.wait_for(woken.get(), 60)
            second = await asyncio.wait_for(woken.get(), 60)
            loop.remove_reader(trigger.fileno())
            return second - first

        assert asyncio.run(seconds_between_events()) > 0.1


@linux
@pytest.mark.real
@pytest.mark.skipif(not may_watch(), reason="needs PSI and write access to it")
def test_a_trigger_without_pressure() -> None:
    """It stays silent, and gives back what it opened."""
    before = len(os.listdir("/proc/self/fd"))
    with PressureTrigger(2, 2, "full") as trigger:
        assert not trigger.wait(0)
        assert select.select([trigger], [], [], 0)[0] == []
    trigger.close()
    assert len(os.listdir("/proc/self/fd")) == before
