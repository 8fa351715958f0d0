"""What /proc says, whatever the supervisor believes. Linux only."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Process:
    """This is one process as /proc showed it; `start` tells it from a namesake."""

    pid: int
    parent: int
    state: str
    start: int
    command: str


def read_process(pid: int) -> Process | None:
    """This reads one process; None when there is none."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    fields = tail.split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode(),
        start=int(fields[19]),
        command=b" ".join(words).decode("utf-8", "replace")
        or head.partition(b"(")[2].decode("utf-8", "replace"),
    )


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


def all_processes() -> list[Process]:
    """This reads the whole table."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [process for pid in pids if (process := read_process(pid)) is not None]


def marked(mark: str, folder: Path) -> list[Process]:
    """This finds whatever has the mark in its environment, or lives in the folder.

    Some programs write over their environment (setproctitle): those are found by
    their command line or by their current folder.
    """
    found = []
    for process in all_processes():
        if process.pid != os.getpid() and _belongs(process, mark, folder):
            found.append(process)
    return found


def _belongs(process: Process, mark: str, folder: Path) -> bool:
    base = f"/proc/{process.pid}"
    if str(folder) in process.command:
        return True
    try:
        if mark.encode() in Path(f"{base}/environ").read_bytes():
            return True
        return Path(f"{base}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def tree_of(pid: int) -> list[Process]:
    """This lists a process and its descendants."""
    everything = all_processes()
    inside = {pid}
    grown = True
    while grown:
        more = {each.pid for each in everything if each.parent in inside}
        grown = not more <= inside
        inside |= more
    return [each for each in everything if each.pid in inside]


def zombies_of(pid: int) -> list[Process]:
    """This lists the children of a process that nobody has waited for."""
    return [
        each for each in all_processes() if each.parent == pid and each.state == "Z"
    ]


def kill_exactly(process: Process) -> None:
    """This kills what was seen, and nobody who has its pid by now."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = read_process(process.pid)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


@attrs.frozen
class Effort:
    """This is what a process has cost since its start."""

    ticks: int
    switches: int


def effort_of(pid: int) -> Effort:
    """This adds up CPU ticks and context switches of every thread."""
    ticks = switches = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_bytes().rpartition(b")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for line in (thread / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                switches += int(line.split()[1])
    return Effort(ticks, switches)


def sockets_below(folder: Path) -> list[str]:
    """This lists the unix sockets that anybody still holds below a folder."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if f"{folder}/" in line]
