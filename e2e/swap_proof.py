"""What memory locking is for, shown on one machine under memory pressure.

Three programs of this file, run in a guest that has swap: two daemons that answer
requests out of a working set, one of them locked, and a rival that takes more memory
than there is left. `python swap_proof.py` prints what became of the daemons, as JSON;
with the word `swapped` it makes no requests under pressure.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
WORKING_SET = 24 * MIB
REQUESTS = 20
KINDS = ("unlocked", "locked", "onfault")


def daemon(kind: str, path: str) -> None:
    """This answers each connection once it has looked at all of its working set."""
    from duende import mlock

    declared = "false" if kind == "unlocked" else "required"
    if mlock.resolve_mode(declared) is not mlock.LockMode.OFF:
        mlock.lock_with_config(mlock.MlockConfig(onfault=kind == "onfault"))
    held = bytearray(os.urandom(MIB) * (WORKING_SET // MIB))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"%d" % sum(held[:: mmap.PAGESIZE]))


def rival(size: int) -> None:
    """This takes memory, and goes through it again and again to keep it."""
    held = []
    for _ in range(size // MIB):
        held.append(bytearray(os.urandom(4096) * 256))
    print("full", flush=True)
    while True:
        for part in held:
            part[:: mmap.PAGESIZE] = bytes(MIB // mmap.PAGESIZE)


def request(path: str) -> float:
    """This is how many milliseconds one answer takes."""
    began = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        while client.recv(100):
            pass
    return (time.perf_counter() - began) * 1000


def memory_of(pid: int) -> dict[str, int]:
    """This is what the kernel says of a process's memory, in bytes."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmSwap", "VmLck", "VmRSS"):
            found[name] = int(value.split()[0]) * 1024
    return found


def free_memory() -> int:
    """This is what the machine could still give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no MemAvailable")


def summary(times: list[float]) -> dict[str, float]:
    """This is the median and the worst, in milliseconds."""
    ordered = sorted(times)
    return {"median": round(ordered[len(times) // 2], 2), "max": round(ordered[-1], 2)}


def start(*words: str) -> subprocess.Popen[str]:
    """This starts a program of this file, and waits until it says a word."""
    process = subprocess.Popen(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"{words} ended with {process.wait()}")
    return process


def main(requests: int) -> None:
    """This shows it, and prints what was seen; `requests` are made under pressure."""
    seen: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        sockets = {kind: f"{folder}/{kind}" for kind in KINDS}
        daemons = {kind: start("daemon", kind, sockets[kind]) for kind in KINDS}
        everything = list(daemons.values())
        try:
            for kind in KINDS:
                times = [request(sockets[kind]) for _ in range(REQUESTS)]
                seen[kind]["before_ms"] = summary(times)
                seen[kind]["before"] = memory_of(daemons[kind].pid)
            size = free_memory() + 48 * MIB
            everything.append(start("rival", str(size)))
            for kind in KINDS:
                seen[kind]["pressed"] = memory_of(daemons[kind].pid)
            for kind in KINDS if requests else ():
                seen[kind]["first_ms"] = round(request(sockets[kind]), 2)
            times_of: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(requests):
                for kind in KINDS:
                    times_of[kind].append(request(sockets[kind]))
            for kind in KINDS:
                if requests:
                    seen[kind]["under_ms"] = summary(times_of[kind])
                seen[kind]["after"] = memory_of(daemons[kind].pid)
        finally:
            for process in everything:
                process.kill()
                process.wait()
    print(json.dumps(seen))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["daemon", kind, path]:
            daemon(kind, path)
        case ["rival", size]:
            rival(int(size))
        case ["swapped"]:
            main(0)
        case _:
            main(REQUESTS)
