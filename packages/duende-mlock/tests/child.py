"""A process of its own for each case: a lock, a limit and a lost capability stay in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PREAMBLE = """
import json, os, resource, sys
from duende import mlock
def limit(soft, hard=None):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, soft if hard is None else hard))
def drop():
    # What root has goes with the change of user (capabilities(7)).
    if os.geteuid() == 0:
        os.setgroups([]); os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
def tell(**what):
    print(json.dumps(what), flush=True)
def vm(name, pid="self"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="mlockall is Linux's")


def may_lock() -> bool:
    """This asks the kernel whether this machine's tests can lock without limit."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 14 & 1)
    return False


def run(code: str, **environ: str) -> dict[str, Any]:
    """This runs code in a process of its own, and gives what it told."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return told
