"""Show examples/quickstart: up, ps, a crash, back again, down.

It runs a copy in a temporary folder, on free ports and with its state there, so that
nothing of yours is touched and nothing is left. Every step is checked: the exit code
is 0 only when all happened as shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEADLINE = 60.0  # seconds that any single step may take


class Failure(Exception):
    """This is a step that did not go as it should."""


class Demo:
    """This is the example in a folder of its own, and the commands on it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "quickstart"
        ignored = shutil.ignore_patterns("site", "__pycache__")
        shutil.copytree(ROOT / "examples" / "quickstart", self.folder, ignore=ignored)
        self.ports = free_ports(2)
        file = self.folder / "duende.toml"
        text = file.read_text()
        for usual, free in zip(("8470", "8471"), self.ports, strict=True):
            text = text.replace(usual, str(free))
        file.write_text(text)
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
        }
        for name in ("state", "run"):
            (folder / name).mkdir(mode=0o700)
        for name in ("DUENDE_SOCKET", "NOTIFY_SOCKET"):
            self.environment.pop(name, None)

    def duende(self, *arguments: str, show: bool = True) -> str:
        """This runs one `duende` command, shown as a person would type it."""
        if show:
            say(f"$ duende {shlex.join(arguments)}")
        done = subprocess.run(
            [sys.executable, "-m", "duende.core", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.DEVNULL,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if show:
            print(done.stdout, end="", flush=True)
        if done.returncode:
            raise Failure(f"duende {shlex.join(arguments)}: exit {done.returncode}")
        return done.stdout

    def rows(self) -> dict[str, dict[str, object]]:
        """This is `duende ps -o json`, by name."""
        answer = json.loads(self.duende("ps", "-o", "json", show=False))
        return {row["name"]: row for row in answer["daemons"]}

    def await_death(self, name: str, pid: int) -> None:
        """This returns once the supervisor knows that `pid` ended."""
        deadline = time.monotonic() + DEADLINE
        while self.rows()[name]["pid"] == pid:
            if time.monotonic() > deadline:
                raise Failure(f"nobody saw that {pid} ended")
            time.sleep(0.02)

    def await_restart(self, name: str, pid: int) -> dict[str, object]:
        """This returns the row once another process than `pid` is ready."""
        deadline = time.monotonic() + DEADLINE
        while True:
            row = self.rows()[name]
            if row["ready"] and row["pid"] not in (None, pid):
                return row
            if time.monotonic() > deadline:
                raise Failure(f"{name} did not come back: {row}")
            time.sleep(0.1)

    def page(self) -> str:
        """This is what the site shows."""
        url = f"http://127.0.0.1:{self.ports[1]}/"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            return str(answer.read().decode()).strip()


def say(text: str) -> None:
    """This prints a line apart from the output of commands."""
    bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\n\x1b[1m{text}\x1b[0m" if bold else f"\n{text}", flush=True)


def free_ports(count: int) -> list[int]:
    """This finds TCP ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def left_behind(folder: pathlib.Path) -> dict[int, str]:
    """This finds processes that belong to the demo: they name its folder, or are in it.

    Linux alone tells; elsewhere it finds nothing.
    """
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            known = command + (entry / "environ").read_bytes()
            place = os.readlink(entry / "cwd")
        except OSError:
            continue  # it has gone, or it is somebody else's
        pid = int(entry.name)
        if pid != os.getpid() and str(folder).encode() in known + os.fsencode(place):
            found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def end_all(folder: pathlib.Path) -> None:
    """This kills what a failed demo left, so that the machine is as it was."""
    for pid, command in left_behind(folder).items():
        print(f"killing what is left: {pid} {command}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def show(demo: Demo) -> None:
    """This is the demo itself."""
    demo.duende("version")
    demo.duende("check")
    demo.duende("up", "-d")
    demo.duende("ps")
    before = demo.rows()
    states = {name: (row["state"], row["ready"]) for name, row in before.items()}
    if states != dict.fromkeys(("web", "worker", "site"), ("running", True)):
        raise Failure(f"not all are ready after `up -d`: {states}")
    say(f"$ curl http://127.0.0.1:{demo.ports[1]}/")
    print(demo.page())

    pid = int(str(before["web"]["pid"]))
    say(f"$ kill -9 {pid}    # web crashes")
    os.kill(pid, signal.SIGKILL)
    demo.await_death("web", pid)
    demo.duende("ps")
    after = demo.await_restart("web", pid)
    demo.duende("ps")
    if (after["restarts"], after["exit"]) != (1, {"signal": "SIGKILL"}):
        raise Failure(f"the restart is not told as it was: {after}")
    for name in ("worker", "site"):
        if demo.rows()[name]["pid"] != before[name]["pid"]:
            raise Failure(f"{name} was restarted too, and nobody asked for it")
    demo.duende("events", "--since", "1m")
    demo.duende("logs", "-n", "5", "worker")

    demo.duende("down")
    left = left_behind(demo.folder.parent)
    if left:
        raise Failure(f"still there after `down`: {left}")
    say("All three came up, one crashed and came back, and nothing is left.")


def main() -> int:
    """This runs the demo, cleans up whatever happens, and returns an exit code."""
    with tempfile.TemporaryDirectory(prefix="duende-demo-") as folder:
        demo = Demo(pathlib.Path(folder).resolve())
        try:
            show(demo)
        except (Failure, subprocess.TimeoutExpired, OSError) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            with contextlib.suppress(Failure, subprocess.TimeoutExpired):
                demo.duende("logs", "-n", "20")
            with contextlib.suppress(Failure, subprocess.TimeoutExpired):
                demo.duende("down", "--timeout", "5s")
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            end_all(demo.folder.parent)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
