"""The control plane of a project: begin, serve, end.

In the foreground it lives inside `duende up`; in the background the keeper starts
`python -m duende.core.control.plane` and starts it again when it dies. Only one is
in charge: it holds a lock on STATE/control.lock as long as it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, final

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from duende.core._drivers.project import KeeperProject, ProjectSettings
from duende.core.config.codec import config_from_json, config_to_json
from duende.core.config.model import ProjectConfig
from duende.core.config.plan import Plan, plan_project
from duende.core.config.project import (
    ProjectPaths,
    SupervisorRecord,
    make_folders,
    remove_record,
    write_record,
)
from duende.core.control.api import Display
from duende.core.control.eventlog import EventLog
from duende.core.control.project_api import ProjectApi, own_version
from duende.core.control.unix_socket import check_replaceable
from duende.core.errors import (
    AlreadyRunning,
    ConfigError,
    DaemonError,
    NotFound,
    PlatformError,
)
from duende.core.keeper_client import (
    KeeperConnection,
    Snapshot,
    keeper_is_alive,
    start_keeper,
)

__all__ = (
    "StartReport",
    "control_plane_lives",
    "run_foreground",
    "start_background",
    "take_over",
)

LOCK = "control.lock"
_START_TIMEOUT = 30.0


@final
@attrs.frozen(kw_only=True)
class StartReport:
    """This is what `up -d` found: a new supervisor, or a living one.

    `changed` says that the file is not what the living one accepted; `stopped` names
    what stays stopped because a person stopped it.
    """

    already_running: bool
    changed: bool
    pid: int | None


# -- the accepted configuration -------------------------------------------------------


def load_checked(paths: ProjectPaths) -> tuple[ProjectConfig, str]:
    """This loads the file, refuses what can't be done yet, and gives its hash.

    Raises:
        ConfigError: With every problem.
    """
    from duende.core.config.load import load_project
    from duende.core.config.support import unsupported

    config = load_project(paths.file)
    problems = unsupported(config)
    if problems:
        raise ConfigError(f"{paths.file}: not supported yet", problems=problems)
    return config, hashlib.sha256(paths.file.read_bytes()).hexdigest()


def accept(
    paths: ProjectPaths, config: ProjectConfig, digest: str, names: tuple[str, ...]
) -> None:
    """This writes down the configuration that is in force from now on."""
    value = config_to_json(config, str(paths.file), digest)
    value["names"] = list(names)
    temporary = paths.accepted.with_name("accepted.json.new")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(temporary, paths.accepted)


def read_accepted(
    paths: ProjectPaths,
) -> tuple[ProjectConfig, str, tuple[str, ...]] | None:
    """This reads what `accept` wrote; None when there is none, or a broken one."""
    try:
        value = json.loads(paths.accepted.read_bytes())
        return (
            config_from_json(value),
            str(value["sha256"]),
            tuple(value.get("names", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def check_names(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """This expands names from the command line to slots.

    Raises:
        NotFound: There is no such daemon in the file.
    """
    found: list[str] = []
    for name in names:
        slots = [slot for slot, spec in plan.specs.items() if name in (slot, spec.base)]
        if not slots:
            known = ", ".join(sorted({s.base for s in plan.specs.values()})) or "none"
            raise NotFound(f"there is no daemon {name!r}", f"the file defines {known}")
        found += slots
    return tuple(found)


def _socket_of(paths: ProjectPaths, environ: Mapping[str, str]) -> str:
    return environ.get("DUENDE_SOCKET") or str(paths.control_socket)


# -- who is in charge -------------------------------------------------------------------


def control_plane_lives(state: Path) -> bool:
    """Whether a control plane is in charge of the project."""
    try:
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def take_charge(paths: ProjectPaths, wait: float) -> int:
    """This takes the lock of the control plane, waiting `wait` seconds at most.

    Raises:
        AlreadyRunning: Another one holds it.
    """
    descriptor = os.open(
        paths.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"project {paths.name!r} is running already",
                    "see `duende ps`, or end it with `duende down`",
                ) from None
            time.sleep(0.01)  # noqa: TID251 - flock has no time limit of its own
        else:
            return descriptor


def _attach(
    paths: ProjectPaths, environ: Mapping[str, str], mode: str
) -> tuple[KeeperConnection, Snapshot]:
    if keeper_is_alive(paths.state) is None:
        start_keeper(paths.state, paths.runtime, environ=environ, mode=mode)
    connection = KeeperConnection.connect(paths.state)
    return connection, connection.attach()


# -- foreground ---------------------------------------------------------------------------


def run_foreground(
    paths: ProjectPaths,
    names: tuple[str, ...],
    display: Display,
    environ: Mapping[str, str],
) -> int:
    """This is `duende up`: everything in this process until it is told to end.

    Returns the exit code: 0, or 1 when a daemon's end brought everything down.

    Raises:
        AlreadyRunning: The project runs already.
        ConfigError: The file is wrong.
        PermissionDenied: A folder can't be used.
    """
    config, digest = load_checked(paths)
    wanted = check_names(plan_project(config), names)
    make_folders(paths)
    lock = take_charge(paths, wait=0)
    try:
        check_replaceable(_socket_of(paths, environ))
        connection, snapshot = _attach(paths, environ, "foreground")
        if any(slot.get("alive") for slot in snapshot.slots):
            accepted = read_accepted(paths)
            if accepted is not None:
                if accepted[1] != digest:
                    display.note(
                        "taking over what runs, with the configuration it was started "
                        "with: the file has changed since"
                    )
                config, digest, _ = accepted
        accept(paths, config, digest, wanted)
        plane = Plane(paths, config, wanted, environ, "foreground", display)
        return anyio.run(plane.run, connection, snapshot)
    finally:
        os.close(lock)


class Plane:
    """This is one life of a control plane."""

    def __init__(
        self,
        paths: ProjectPaths,
        config: ProjectConfig,
        names: tuple[str, ...],
        environ: Mapping[str, str],
        mode: str,
        display: Display | None,
    ) -> None:
        self.paths = paths
        self.names = names
        self.display = display
        log_dir = config.supervisor.log_dir
        self.events = EventLog(str(paths.events))
        self.socket = _socket_of(paths, environ)
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
            plan_project(config).specs,
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
        if self.display is not None or not self.project.resumed:
            by_hand = self.project.start_enabled(self.names)
        if self.display is not None and by_hand:
            self.display.note(
                f"stays stopped, because it was stopped by hand: {', '.join(by_hand)}"
            )

    async def _serve_control(self, tasks: anyio.abc.TaskGroup) -> None:
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
        if self.display is None:
            return False
        try:
            descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return os.isatty(0) or os.isatty(2) or not _has_tty()
        os.close(descriptor)
        return False

    async def _end(self) -> None:
        # The answer to `down` is on its way when the last daemon has ended.
        await anyio.sleep(0.02)
        await self.project.end_keeper()
        self.events.close()
        remove_record(self.paths)


def _has_tty() -> bool:
    """Whether this process was started from a terminal that may have hung up."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[4] != b"0"
    except OSError:
        return False


# -- background ---------------------------------------------------------------------------


def start_background(
    paths: ProjectPaths, names: tuple[str, ...], environ: Mapping[str, str]
) -> StartReport:
    """This is the first half of `duende up -d`: a supervisor that answers.

    Raises:
        ConfigError: The file is wrong.
        PermissionDenied: A folder can't be used.
        PlatformError: The supervisor did not come up.
    """
    config, digest = load_checked(paths)
    wanted = check_names(plan_project(config), names)
    make_folders(paths)
    accepted = read_accepted(paths)
    if control_plane_lives(paths.state):
        _await_socket(paths, environ)
        changed = accepted is None or accepted[1] != digest
        return StartReport(already_running=True, changed=changed, pid=None)
    alive = keeper_is_alive(paths.state)
    if alive is None or accepted is None:
        accept(paths, config, digest, wanted)
    changed = alive is not None and accepted is not None and accepted[1] != digest
    pid = _start_control_plane(paths, environ)
    return StartReport(already_running=False, changed=changed, pid=pid)


def take_over(paths: ProjectPaths, environ: Mapping[str, str]) -> None:
    """This starts a control plane for a keeper that has none.

    Raises:
        PlatformError: It did not come up.
    """
    if not control_plane_lives(paths.state):
        _start_control_plane(paths, environ)
    _await_socket(paths, environ)


def _start_control_plane(paths: ProjectPaths, environ: Mapping[str, str]) -> int | None:
    """This has the keeper, an old or a new one, start the control plane."""
    try:
        lock = take_charge(paths, wait=0)
    except AlreadyRunning:
        _await_socket(paths, environ)
        return None
    started = None
    try:
        # We are in charge: who listens there now is another project's supervisor.
        check_replaceable(_socket_of(paths, environ))
        if keeper_is_alive(paths.state) is None:
            started = start_keeper(
                paths.state, paths.runtime, environ=environ, mode="background"
            )
        connection = KeeperConnection.connect(paths.state)
        connection.attach()
        places = [paths.file, paths.name, paths.state, paths.runtime]
        argument = json.dumps([str(place) for place in places])
        argv = [sys.executable, "-m", "duende.core.control.plane", argument]
        reply = connection.request("control", argv=argv, env=dict(environ))
        connection.close()
    except DaemonError:
        if started is not None:
            os.kill(started, signal.SIGKILL)
        raise
    finally:
        os.close(lock)
    _await_socket(paths, environ)
    return reply.get("pid")


def _await_socket(paths: ProjectPaths, environ: Mapping[str, str]) -> None:
    """This waits until the control socket answers.

    Raises:
        PlatformError: It does not, or the control plane says why it can't.
    """
    from duende.core.control.client import ControlClient, NoSupervisor

    client = ControlClient(_socket_of(paths, environ))
    until = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            client.get("/v1/version")
        except NoSupervisor:
            if keeper_is_alive(paths.state) is None or time.monotonic() > until:
                raise PlatformError(
                    "the supervisor did not come up",
                    f"see {paths.state / 'supervisor.log'}",
                ) from None
            time.sleep(0.005)  # noqa: TID251 - a socket that is not there yet can't be waited for
        else:
            return


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
        connection, snapshot = _attach(paths, environ, "background")
        plane = Plane(paths, config, names, environ, "background", None)
        code = anyio.run(plane.run, connection, snapshot)
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
