"""The control plane of a project: begin, serve, end.

In the foreground it lives inside `duende up`; in the background the keeper starts
`python -m duende.core.control.plane` and starts it again when it dies. Only one is
in charge: it holds a lock on STATE/control.lock as long as it lives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from duende.core._drivers.project import KeeperProject, ProjectSettings
from duende.core.config.model import ProjectConfig
from duende.core.config.plan import Plan, plan_project
from duende.core.config.project import (
    ProjectPaths,
    SupervisorRecord,
    remove_record,
    write_record,
)
from duende.core.control.api import Display
from duende.core.control.charge import read_accepted, socket_of, take_charge
from duende.core.control.eventlog import EventLog
from duende.core.errors import DaemonError, PlatformError
from duende.core.keeper_client import (
    KeeperConnection,
    Snapshot,
    keeper_is_alive,
    start_keeper,
)

# Loaded here, where a keeper may be starting at the same time, not by anyio.run.
import anyio._backends._asyncio  # isort: skip

__all__ = ("Plane", "run_plane")


class Plane:
    """This is one life of a control plane."""

    def __init__(
        self,
        paths: ProjectPaths,
        config: ProjectConfig,
        plan: Plan,
        names: tuple[str, ...],
        environ: Mapping[str, str],
        mode: str,
        display: Display | None,
    ) -> None:
        self.paths = paths
        self.names = names
        self.display = display
        # A hang-up takes the terminal away: whether there was one is known now only.
        self._had_terminal = _has_tty()
        log_dir = config.supervisor.log_dir
        self.events = EventLog(str(paths.events))
        self.socket = socket_of(paths, environ)
        self.project = KeeperProject(
            ProjectSettings(
                project=paths.name,
                base_dir=paths.file.parent,
                state=paths.state,
                runtime=paths.runtime,
                log_dir=paths.logs
                if log_dir is None
                else paths.file.parent / os.path.expanduser(log_dir),
                log_total_max=config.supervisor.log_total_max,
                environ=dict(environ),
                file=paths.file,
                keeper_mode=mode,
            ),
            config.supervisor,
            plan.specs,
            sink=self.events.append,
            first_seq=self.events.last_seq + 1,
        )
        self.supervisor = self.project.supervisor

    async def run(self, connection: KeeperConnection, snapshot: Snapshot) -> int:
        """This serves until everything is down."""
        with anyio.open_signal_receiver(
            signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        ) as signals:
            async with anyio.create_task_group() as tasks:
                if self.display is not None:
                    from duende.core.control.show import log_ends

                    ends = log_ends(self.project)
                # First what starts daemons, then what needs more imports.
                await tasks.start(self.project.serve, connection, snapshot)
                self._start()
                await anyio.lowlevel.checkpoint()
                await self._serve_control(tasks)
                tasks.start_soon(self._on_signals, signals)
                if self.display is not None:
                    from duende.core.control.show import show_logs, show_progress

                    tasks.start_soon(show_progress, self.project, self.display)
                    tasks.start_soon(show_logs, self.project, self.display, ends)
                await self.supervisor.engine.all_down.wait()
                await self._end()
                tasks.cancel_scope.cancel()
        return 0 if self.supervisor.machine.ended_by in (None, "down", "signal") else 1

    def _start(self) -> None:
        by_hand: tuple[str, ...] = ()
        if self.project.resumed:
            self.supervisor.engine.announce(
                "supervisor",
                reason="took over what an earlier supervisor had left running",
                data={"pid": os.getpid()},
            )
        if self.display is not None or not self.project.resumed:
            by_hand = self.project.start_enabled(self.names)
        if self.display is not None and by_hand:
            self.display.note(
                f"stays stopped, because it was stopped by hand: {', '.join(by_hand)}"
            )

    async def _serve_control(self, tasks: anyio.abc.TaskGroup) -> None:
        from duende.core.control.project_api import ProjectApi, own_version
        from duende.core.control.server import serve_control

        api = ProjectApi(self.project, self.events, str(self.paths.events), os.getpid())
        serve = partial(serve_control, state=str(self.paths.state))
        await tasks.start(serve, api, self.socket)
        write_record(
            self.paths,
            SupervisorRecord(
                runtime=str(self.paths.runtime),
                socket=self.socket,
                pid=os.getpid(),
                keeper_pid=self.project.keeper_pid or 0,
                file=str(self.paths.file),
                version=own_version(),
            ),
        )

    async def _on_signals(self, signals: Any) -> None:
        interrupts = 0
        async for number in signals:
            if number == signal.SIGHUP and not self._terminal_gone():
                self.supervisor.engine.announce(
                    "config", reason="re-reading the file is not supported yet"
                )
                if self.display is not None:
                    self.display.note(
                        "SIGHUP: re-reading the file is not supported yet"
                    )
                continue
            if number == signal.SIGINT:
                interrupts += 1
            if interrupts > 1:
                if self.display is not None:
                    self.display.note("killing everything")
                self.supervisor.force_shutdown()
                continue
            if self.display is not None and not self.supervisor.machine.closing:
                self.display.note("stopping; press Ctrl-C again to kill")
            self.supervisor.begin_shutdown(reason="signal")

    def _terminal_gone(self) -> bool:
        """Whether the hang-up came from a terminal that is no longer there."""
        if self.display is None or not self._had_terminal:
            return False
        try:
            descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return True
        os.close(descriptor)
        return False

    async def _end(self) -> None:
        # The answer to `down` is on its way when the last daemon has ended.
        await anyio.sleep(0.02)
        await self.project.end_keeper()
        self.events.close()
        remove_record(self.paths)


def _has_tty() -> bool:
    """Whether this process has a controlling terminal, which may hang up."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[4] != b"0"
    except OSError:
        return False


def run_plane(plane: Plane, connection: KeeperConnection, snapshot: Snapshot) -> int:
    """This serves until everything is down, and gives the exit code."""
    return anyio.run(plane.run, connection, snapshot)


def _attach(
    paths: ProjectPaths, environ: Mapping[str, str]
) -> tuple[KeeperConnection, Snapshot]:
    if keeper_is_alive(paths.state) is None:
        start_keeper(paths.state, paths.runtime, environ=environ, mode="background")
    connection = KeeperConnection.connect(paths.state)
    return connection, connection.attach()


def main(argument: str) -> int:
    """This is the control plane that a keeper starts."""
    file, name, state, runtime = json.loads(argument)
    paths = ProjectPaths(Path(file), name, Path(state), Path(runtime))
    environ = {
        key: value for key, value in os.environ.items() if key != "DUENDE_KEEPER"
    }
    try:
        lock = take_charge(paths, wait=5.0)
        accepted = read_accepted(paths)
        if accepted is None:
            raise PlatformError(
                f"{paths.accepted} can't be read", "end the project and start it again"
            )
        config, _, names = accepted
        connection, snapshot = _attach(paths, environ)
        plan = plan_project(config)
        plane = Plane(paths, config, plan, names, environ, "background", None)
        code = run_plane(plane, connection, snapshot)
    except DaemonError as error:
        print(f"duende: {error}", file=sys.stderr)
        return 1
    os.close(lock)
    return code


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and closed: taking the interpreter down takes longer
    # than all of the shutdown before it.
    os._exit(code)
