"""`DaemonManager`: supervised daemons inside an application.

Daemon objects run as tasks of this process, configurations as processes of a
private keeper, which stops them when this process goes away. Both have the same
states, restarts, events and verbs.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Self, final

import anyio
import anyio.abc
import attrs

from duende.core._drivers.clock import LoopClock
from duende.core._drivers.engine import Host
from duende.core._drivers.project import KeeperProject, ProjectSettings
from duende.core._drivers.task_host import TaskHost
from duende.core._hosting import hosted_config
from duende.core._target import create_daemon, load_target
from duende.core.config.model import (
    DaemonConfig,
    RestartConfig,
    StopConfig,
    SupervisorConfig,
)
from duende.core.config.plan import DaemonSpec
from duende.core.daemon import Daemon
from duende.core.errors import (
    AlreadyRunning,
    DaemonError,
    InvalidState,
    NotFound,
    NotSupported,
    ShutdownTimeout,
)
from duende.core.types import (
    DaemonId,
    DaemonInfo,
    DaemonStatus,
    Event,
    HealthStatus,
    Outcome,
    RestartPolicy,
)

__all__ = ("DaemonManager",)

Which = DaemonId | uuid.UUID | str


@final
class DaemonManager:
    """This runs and supervises daemons; used as an async context manager.

    What is registered is started at once, and stopped at the end of the context, last
    registered first. Works on asyncio and trio.

    Args:
        base_dir: What relative paths of a `DaemonConfig` are relative to; the
            current folder unless given.
        shutdown_timeout: Seconds that the end of the context may take; the longest
            stop timeout unless given.
        start_concurrency: How many may be on their way to readiness at once.
    """

    def __init__(
        self,
        *,
        base_dir: str | os.PathLike[str] | None = None,
        shutdown_timeout: float | None = None,
        start_concurrency: int = 16,
    ) -> None:
        self._base_dir = Path(base_dir or ".").absolute()
        self._config = SupervisorConfig(
            shutdown_timeout=shutdown_timeout, start_concurrency=start_concurrency
        )
        self._tasks: anyio.abc.TaskGroup | None = None
        self._project: KeeperProject | None = None
        self._task_host: TaskHost | None = None
        self._objects: set[str] = set()
        self._folder: Path | None = None

    # -- the context ------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise InvalidState("this manager is in use already")
        clock = LoopClock()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="duende-manager-"))
        os.chmod(folder, 0o711)
        project = self._project = KeeperProject(
            ProjectSettings(
                project="embedded",
                base_dir=self._base_dir,
                state=folder / "state",
                runtime=folder / "run",
                log_dir=folder / "state" / "logs",
                log_total_max=self._config.log_total_max,
                environ=dict(os.environ),
                owner=os.getpid(),
            ),
            self._config,
            {},
            sink=lambda *events: None,
            clock=clock,
            other_host=self._other_host,
        )
        self._task_host = TaskHost(project.supervisor.engine.deliver, clock.now)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        await self._tasks.start(self._task_host.serve)
        await self._tasks.start(project.serve_embedded)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        tasks = self._tasks
        assert tasks is not None, "the context was entered"
        try:
            with anyio.CancelScope(shield=True):
                await self._end()
        finally:
            self._tasks = None
            tasks.cancel_scope.cancel()
            # An error of the caller's own goes out as it is, not inside a group.
            if isinstance(error, Exception):
                await tasks.__aexit__(None, None, None)
                swallowed = False
            else:
                swallowed = bool(await tasks.__aexit__(kind, error, trace))
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        return swallowed

    async def _end(self) -> None:
        project = self._open()
        if not project.supervisor.machine.closing:
            await project.supervisor.shutdown()
        if project.keeper_pid is not None:
            await project.end_keeper()

    def _open(self) -> KeeperProject:
        if self._tasks is None or self._project is None:
            raise InvalidState(
                "the manager is not in use", "write `async with DaemonManager() as …`"
            )
        return self._project

    def _other_host(self, name: str) -> Host | None:
        return self._task_host if name in self._objects else None

    # -- what it runs -------------------------------------------------------------------

    async def register(
        self,
        daemon: Daemon | type[Daemon] | Callable[..., Awaitable[object]] | DaemonConfig,
        *,
        restart: RestartConfig | RestartPolicy | str | None = None,
        settings: object = None,
    ) -> DaemonId:
        """This takes a daemon in and starts it; `start` or `wait` await its readiness.

        Args:
            daemon: A Daemon object or class, or an async function, which runs as a
                task of this process, or a configuration, which runs as a process.
            restart: When to restart it; on failure unless said otherwise.
            settings: What the daemon's `settings` are read from.

        Raises:
            AlreadyRunning: There is a daemon of this name.
            ConfigError: The configuration can't work.
            NotSupported: The configuration wants a platform that isn't there yet.
        """
        project = self._open()
        if isinstance(daemon, DaemonConfig):
            config = _with_restart(daemon, restart)
            self._check_name(config.name)
            if config.platform not in ("native", "auto"):
                raise NotSupported(
                    f"DaemonManager can't run platform {config.platform!r}",
                    'use platform = "native"',
                )
            for folder, mode in (("state", 0o700), ("run", 0o711)):
                assert self._folder is not None, "an open manager has a folder"
                (self._folder / folder).mkdir(mode=mode, exist_ok=True)
                os.chmod(self._folder / folder, mode)
            await project.open_keeper()
        else:
            instance = (
                daemon
                if isinstance(daemon, Daemon)
                else create_daemon(load_target(daemon))
            )
            config = _config_of(instance, restart)
            self._check_name(config.name)
            assert self._task_host is not None, "an open manager has a task host"
            self._objects.add(config.name)
            self._task_host.add(
                config.name, lambda: instance, settings, config.stop.timeout
            )
        spec = DaemonSpec(
            name=config.name,
            base=config.name,
            instance=0,
            config=config,
            depends_on=dict(config.depends_on),
        )
        for name in spec.depends_on:
            if name not in project.supervisor.machine.records:
                raise NotFound(
                    f"daemon {config.name!r} depends on {name!r}, which is not here",
                    "register it first",
                )
        record = project.supervisor.machine.add(spec)
        if not isinstance(daemon, DaemonConfig):
            record.id = str(instance.id)
        project.supervisor.engine.decide(
            lambda now: project.supervisor.machine.start((config.name,), now)
        )
        return DaemonId(uuid.UUID(record.id))

    def _check_name(self, name: str) -> None:
        if name in self._open().supervisor.machine.records:
            raise AlreadyRunning(
                f"there is a daemon {name!r} already", "give this one another name"
            )

    async def unregister(self, which: Which) -> None:
        """This stops a daemon and forgets it.

        Raises:
            NotFound: There is no such daemon.
            ShutdownTimeout: It could not be ended.
        """
        name = self._name(which)
        await self.stop(which)
        project = self._open()
        host = self._other_host(name) or project.host
        project.supervisor.machine.remove(name)
        host.remove(name)
        self._objects.discard(name)

    def _name(self, which: Which) -> str:
        records = self._open().supervisor.machine.records
        if isinstance(which, uuid.UUID):
            for name, record in records.items():
                if record.id == str(which):
                    return name
            raise NotFound(f"there is no daemon with the id {which}")
        return self._open().supervisor.record(which).name

    # -- verbs --------------------------------------------------------------------------

    async def start(self, which: Which, timeout: float | None = None) -> None:
        """This starts a daemon and waits until it is ready.

        Raises:
            DaemonError: It failed; the text says why.
            TimeoutError: It is not ready after `timeout` seconds.
        """
        await self._do("start", which, timeout)

    async def stop(self, which: Which, timeout: float | None = None) -> None:
        """This stops a daemon and waits until its whole tree has ended.

        Raises:
            ShutdownTimeout: Something survived even SIGKILL.
        """
        await self._do("stop", which, timeout)

    async def restart(self, which: Which, timeout: float | None = None) -> None:
        """This stops a daemon, starts it again and waits until it is ready."""
        await self._do("restart", which, timeout)

    async def reload(self, which: Which, timeout: float | None = None) -> None:
        """This has a daemon reload its configuration.

        Raises:
            InvalidState: It does not run, or does not know how.
        """
        await self._do("reload", which, timeout)

    async def pause(self, which: Which) -> None:
        """This stops a daemon's tree from running, without ending it.

        Raises:
            NotSupported: It is a task of this process.
            InvalidState: It does not run.
        """
        self._refuse_task(which, "pause")
        await self._do("pause", which, None)

    async def resume(self, which: Which) -> None:
        """This lets a paused daemon go on."""
        self._refuse_task(which, "resume")
        await self._do("resume", which, None)

    def _refuse_task(self, which: Which, verb: str) -> None:
        name = self._name(which)
        if name in self._objects:
            raise NotSupported(
                f"DaemonManager can't {verb} {name!r}: it is a task of this process",
                "register a DaemonConfig to run it as a process",
            )

    async def signal(self, which: Which, number: int | signal.Signals) -> None:
        """This sends a signal to the daemon's main process, or its task.

        Raises:
            InvalidState: It does not run.
        """
        name = self._name(which)
        _raise((await self._open().supervisor.signal(int(number), (name,)))[0])

    async def _do(self, verb: str, which: Which, timeout: float | None) -> None:
        name = self._name(which)
        _raise(
            (await self._open().supervisor.command(verb, (name,), timeout=timeout))[0]
        )

    # -- looking ------------------------------------------------------------------------

    def status(self, which: Which) -> DaemonStatus:
        """This is the daemon's present state."""
        return self._open().supervisor.record(self._name(which)).status

    def info(self, which: Which) -> DaemonInfo:
        """This is the daemon's row of `daemons()`."""
        return self._open().supervisor.info(self._name(which))

    def daemons(self) -> tuple[DaemonInfo, ...]:
        """This is every daemon, as `ps -o json` shows it."""
        return self._open().supervisor.infos()

    async def health(self, which: Which) -> HealthStatus:
        """This runs the daemon's health check now.

        A process without one is healthy when it is ready.
        """
        name = self._name(which)
        if name in self._objects and self._task_host is not None:
            return await self._task_host.health(name)
        info = self.info(which)
        if info.ready and info.healthy is not False:
            return HealthStatus.healthy()
        return HealthStatus.unhealthy(info.reason or f"it is {info.state.value}")

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """This gives events as they happen: `async with manager.events() as stream`."""
        return self._open().supervisor.engine.subscribe()

    async def wait(
        self,
        which: Which,
        until: DaemonStatus | str = DaemonStatus.RUNNING,
        timeout: float | None = None,
    ) -> DaemonStatus:
        """This waits until a daemon is in a state and returns the state it is in.

        `until` is a `DaemonStatus`, or ready, healthy, completed.

        Raises:
            TimeoutError: It is not, after `timeout` seconds.
            DaemonError: It can't get there any more; the text says why.
        """
        name = self._name(which)
        supervisor = self._open().supervisor
        record = supervisor.record(name)
        if isinstance(until, DaemonStatus) and until.value not in _NAMED:
            if not await supervisor.engine.until(
                lambda: record.status is until, timeout
            ):
                raise TimeoutError(f"daemon {name!r} is not {until.value} in time")
            return record.status
        state = until.value if isinstance(until, DaemonStatus) else until
        _raise((await supervisor.wait((name,), state, timeout))[0])
        return record.status

    async def shutdown_all(self, timeout: float | None = None) -> None:
        """This stops everything, dependents first; by force when time is over.

        Raises:
            ShutdownTimeout: Something survived even SIGKILL.
        """
        for outcome in await self._open().supervisor.shutdown(timeout):
            if not outcome.ok:
                raise ShutdownTimeout(f"daemon {outcome.name!r}: {outcome.message}")


_NAMED = frozenset({"running", "stopped", "failed"})


def _raise(outcome: Outcome) -> None:
    if outcome.ok:
        return
    text = f"daemon {outcome.name!r}: {outcome.message}"
    if outcome.code == 124:
        raise TimeoutError(text)
    raise InvalidState(text) if outcome.code == 3 else DaemonError(text)


def _config_of(
    daemon: Daemon, restart: RestartConfig | RestartPolicy | str | None
) -> DaemonConfig:
    timeout = StopConfig().timeout
    return _with_restart(hosted_config(type(daemon), daemon.name, {}, timeout), restart)


def _with_restart(
    config: DaemonConfig, restart: RestartConfig | RestartPolicy | str | None
) -> DaemonConfig:
    return config if restart is None else attrs.evolve(config, restart=restart)
