"""Supervisors to measure, behind the same few methods, and the floor below them."""

from __future__ import annotations

import abc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from workplace import SOURCES, Workplace
from world import Alive, Marks, await_end, descendants, end_process, runs

__all__ = ("FloorC", "FloorPython", "Peer", "Runit", "Supervisord")


class Peer(abc.ABC):
    """This is one supervisor with `count` children that are all alike.

    The order of calls is `prepare`, `start`, whatever is measured, `stop`; `end` ends
    what is left, whatever happened before.

    Args:
        place: Where to work.
        count: How many children.
        mode: What they do: pause, all (write `lines` lines at once), or steady (a line
            each `lines` nanoseconds).
        size: Bytes a line.
        lines: See `mode`.
    """

    name: str

    def __init__(
        self,
        place: Workplace,
        count: int,
        mode: str = "",
        size: int = 0,
        lines: int = 0,
    ) -> None:
        self.place = place
        self.count = count
        self.folder = place.new_folder()
        self.marks = Marks(self.folder / "marks", max(count, 1))
        self.alive = Alive(self.folder / "alive")
        self.child_env = {
            "BENCH_MARKS": str(self.marks.path),
            "BENCH_ALIVE": str(self.alive.path),
            "BENCH_MODE": mode,
            "BENCH_SIZE": str(size),
            "BENCH_LINES": str(lines),
        }
        self.writes = bool(mode)
        self.started_at = 0
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a peer says of itself ---------------------------------------------------

    @abc.abstractmethod
    def prepare(self) -> None:
        """This writes the configuration."""

    @abc.abstractmethod
    def command(self) -> list[str]:
        """This is what starts the supervisor in the foreground."""

    def log_files(self, number: int) -> list[Path]:
        """These are the files with a child's output, the oldest first."""
        return []

    def status_command(self) -> list[str] | None:
        """This is what lists all children; None where there is nothing like it."""
        return None

    def environ(self) -> dict[str, str]:
        """This is the supervisor's environment."""
        return {**os.environ, **self.child_env}

    # -- what is the same for all -----------------------------------------------------

    def start(self, events: int | None = None) -> None:
        """This starts the supervisor and returns at once.

        `events` is what `marks.wait` is to wait for: a start a child unless given.
        """
        self.marks.expect(self.count if events is None else events)
        with open(self.folder / "output", "ab") as output:
            self.started_at = time.monotonic_ns()
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def up(self, timeout: float = 120.0) -> None:
        """This starts the supervisor and returns when all children have begun."""
        self.start()
        self.marks.wait(timeout)

    def pids(self) -> list[int]:
        """These are the supervisor's own processes, without the children."""
        roots = [] if self._process is None else [self._process.pid]
        return descendants(roots, without=self.place.child)

    def settle(self) -> None:
        """This waits for the command to return, where it does."""

    def before_stop(self) -> None:
        """This is called before the stop that is measured."""

    def ask_to_stop(self) -> None:
        """This begins the orderly stop and returns at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def wait_gone(self, timeout: float) -> int:
        """This waits for the supervisor's end and gives its time in nanoseconds."""
        if self._process is not None:
            self._process.wait(timeout)
        return time.monotonic_ns()

    def end(self) -> None:
        """This calls `close`; Ctrl-C has to wait until nothing is left."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: None) for number in numbers]
        try:
            self.close()
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def close(self) -> None:
        """This ends everything that is left of this peer, by pid."""
        left = self.pids()
        try:
            if self._process is not None and self._process.poll() is None:
                self.ask_to_stop()
                self._process.wait(30)
        except (subprocess.TimeoutExpired, OSError):
            pass
        for pid in left:
            if pid in self.pids() or self._is_ours(pid):
                end_process(pid)
        if self._process is not None:
            self._process.wait(10)
        for slot in self.marks.slots(self.count):
            if slot.pid and runs(slot.pid, self.place.child):
                os.kill(slot.pid, signal.SIGKILL)
        self.alive.close()
        self.marks.close()

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/cwd").startswith(str(self.folder))
        except OSError:
            return False


class FloorC(Peer):
    """This is a bare loop in C."""

    name = "floor C"

    def prepare(self) -> None:
        """This makes the folder for output."""
        (self.folder / "logs").mkdir()

    def command(self) -> list[str]:
        """This is the compiled loop."""
        command = [str(self.place.floor), str(self.place.child), str(self.count)]
        return [*command, str(self.folder / "logs")] if self.writes else command

    def log_files(self, number: int) -> list[Path]:
        """There is one file a child."""
        return [self.folder / "logs" / f"{number}.log"]


class FloorPython(FloorC):
    """This is a bare loop in Python, without site and the environment's settings."""

    name = "floor Python"

    def command(self) -> list[str]:
        """This is the same loop, run by this interpreter."""
        script = str(SOURCES / "floor.py")
        return [sys.executable, "-I", "-S", script, *super().command()[1:]]


class Runit(Peer):
    """This is runsvdir with a runsv for each child (and svlogd for one that writes)."""

    name = "runit"
    _runsvs: tuple[int, ...] = ()

    def prepare(self) -> None:
        """This makes a service folder a child; `run` is the child itself."""
        self.child_env["BENCH_BY_FOLDER"] = "1"
        services = self.folder / "services"
        services.mkdir()
        svlogd = self.place.program("svlogd")
        for number in range(self.count):
            service = services / str(number)
            service.mkdir()
            (service / "run").symlink_to(self.place.child)
            if self.writes:
                log = service / "log"
                (log / "main").mkdir(parents=True)
                (log / "main" / "config").write_text("s0\nn0\n")
                (log / "run").write_text(f"#!/bin/sh\nexec {svlogd} ./main\n")
                (log / "run").chmod(0o755)
        # runsvdir sleeps for a second over a folder that has just been changed.
        os.utime(services, (0, 0))

    def command(self) -> list[str]:
        """This is runsvdir; SIGHUP is its orderly stop."""
        program = self.place.program("runsvdir")
        return [str(program), str(self.folder / "services")]

    def ask_to_stop(self) -> None:
        """This begins the orderly stop."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def wait_gone(self, timeout: float) -> int:
        """This waits for runsvdir, and for each runsv that it leaves to end."""
        super().wait_gone(timeout)
        for pid in self._runsvs:
            await_end(pid, timeout)
        return time.monotonic_ns()

    def before_stop(self) -> None:
        """This notes whom to wait for: runsvdir does not wait for its runsvs."""
        self._runsvs = tuple(self.pids()[1:])

    def log_files(self, number: int) -> list[Path]:
        """There is one file, as rotation is off."""
        return [self.folder / "services" / str(number) / "log" / "main" / "current"]

    def status_command(self) -> list[str]:
        """This is sv status of all."""
        services = sorted((self.folder / "services").iterdir())
        return [str(self.place.program("sv")), "status", *map(str, services)]


class Supervisord(Peer):
    """This is supervisord from PyPI, with one program of many processes."""

    name = "supervisord"

    def prepare(self) -> None:
        """This writes supervisord.conf."""
        (self.folder / "logs").mkdir()
        output = (
            f"stdout_logfile={self.folder}/logs/%(process_num)d.log\n"
            "stdout_logfile_maxbytes=0\n"
            if self.writes
            else "stdout_logfile=NONE\n"
        )
        program = (
            f"[program:child]\ncommand={self.place.child} %(process_num)d\n"
            f"numprocs={self.count}\nprocess_name=%(process_num)d\n"
            f"autorestart=true\nstderr_logfile=NONE\n{output}"
        )
        (self.folder / "supervisord.conf").write_text(
            f"[unix_http_server]\nfile={self.folder}/supervisor.sock\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory="
            "supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{self.folder}/supervisor.sock\n"
            f"[supervisord]\nnodaemon=true\nminfds=4096\nuser=root\n"
            f"logfile={self.folder}/supervisord.log\n"
            f"pidfile={self.folder}/supervisord.pid\n" + (program if self.count else "")
        )
        self._programs = self.place.supervisor_programs()

    def command(self) -> list[str]:
        """This is supervisord in the foreground."""
        return [str(self._programs / "supervisord"), "-c", "supervisord.conf"]

    def log_files(self, number: int) -> list[Path]:
        """There is one file a child, as rotation is off."""
        return [self.folder / "logs" / f"{number}.log"]

    def status_command(self) -> list[str]:
        """This is supervisorctl status."""
        control = str(self._programs / "supervisorctl")
        return [control, "-c", str(self.folder / "supervisord.conf"), "status"]
