"""What the figures were measured on: without it they mean nothing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from workplace import Workplace

__all__ = ("describe_machine", "load_average", "versions")


def load_average() -> float:
    """This is the load average of the last minute."""
    return os.getloadavg()[0]


def describe_machine() -> dict[str, Any]:
    """This describes the machine and the moment."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(load_average(), 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def versions(place: Workplace, peers: list[str]) -> dict[str, str]:
    """This names the versions of what was measured."""
    found = {"duende": importlib.metadata.version("duende-core")}
    if "runit" in peers:
        found["runit"] = _output(["dpkg-query", "-W", "-f", "${Version}", "runit"])
    if "supervisord" in peers:
        program = str(place.supervisor_programs() / "supervisord")
        found["supervisord"] = _output([program, "--version"])
    return found


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
