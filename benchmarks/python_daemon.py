"""How long a Daemon class takes from its spawn to READY, and what takes it.

The runner is started as the keeper starts it, with a notify socket of the harness.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from results import Results
from workplace import Workplace
from world import end_process

__all__ = ("measure_daemon", "measure_interpreter")

_MODULE = """
import time
stamps = [time.monotonic_ns()]
from duende.core import Daemon
stamps.append(time.monotonic_ns())

class Bench(Daemon):
    async def init(self, config):
        stamps.append(time.monotonic_ns())
        with open("stamps", "w") as stream:
            stream.write(" ".join(map(str, stamps)))

    async def run(self, ctx):
        await ctx.wait_shutdown()
        return None
"""
_STAMP = "import time; print(time.monotonic_ns())"
_MS = 1e6
NAME = "duende"


def measure_interpreter(results: Results) -> None:
    """This measures what Python takes until its first statement."""
    floors = {
        "floor Python": [sys.executable, "-I", "-S", "-c", _STAMP],
        NAME: [sys.executable, "-c", _STAMP],
    }
    for name, command in floors.items():
        before = time.monotonic_ns()
        printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        results.add("python-interpreter", name, (int(printed) - before) / _MS)


def measure_daemon(place: Workplace, results: Results) -> None:
    """This measures one start of a Daemon class."""
    folder = place.new_folder()
    (folder / "benchdaemon.py").write_text(_MODULE)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(folder / "notify"))
    listener.settimeout(20)
    environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
    before = time.monotonic_ns()
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "duende.core.runner", "benchdaemon:Bench"],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while b"READY=1" not in listener.recv(4096):
            pass
        ready = time.monotonic_ns()
        module, imported, init = map(int, (folder / "stamps").read_text().split())
        interpreter = min(results.samples["python-interpreter"][NAME])
        imports = (module - before) / _MS - interpreter
        results.add("python-imports", NAME, imports)
        results.add("python-module", NAME, (imported - module) / _MS)
        results.add("python-loop", NAME, (init - imported) / _MS)
        results.add("python-init", NAME, (ready - init) / _MS)
        results.add("python-ready", NAME, (ready - before) / _MS)
    except TimeoutError:
        text = (folder / "output").read_text()[-300:]
        results.fail("python-ready", NAME, f"no READY=1: {text}")
    finally:
        end_process(process.pid)
        process.wait(10)
        listener.close()
