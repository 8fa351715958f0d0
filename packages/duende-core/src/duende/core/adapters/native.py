"""Daemons as plain processes of this machine, through a keeper of the adapter's own.

The keeper watches this process: when it goes away, in whatever way, the keeper stops
the daemons and removes its folders.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import anyio.to_thread

from duende.core.adapters.base import (
    AdapterStatus,
    Capability,
    DaemonHandle,
    PlatformAdapter,
)
from duende.core.adapters.keeper_lines import parse_event, render_spawn
from duende.core.config.launch import render_launch
from duende.core.config.model import DaemonConfig
from duende.core.config.plan import DaemonSpec
from duende.core.config.values import signal_number
from duende.core.errors import (
    AlreadyRunning,
    InvalidState,
    NotFound,
    PlatformError,
    ShutdownTimeout,
    SpawnError,
)
from duende.core.keeper_client import (
    AsyncKeeper,
    KeeperConnection,
    KeeperLost,
    start_keeper,
)
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    MainChanged,
    MainContinued,
    MainStopped,
    Notified,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.stopping import (
    Force,
    MainGone,
    Overdue,
    SendSignal,
    StopEffect,
    StopPhase,
    Stopping,
    TreeEmpty,
    begin_stop,
)
from duende.core.types import DaemonStatus, ExitInfo

__all__ = ("NativeAdapter",)

_SECOND = 1_000_000_000


class _Run:
    """This is what is known of one start."""

    def __init__(self, config: DaemonConfig, log: Path) -> None:
        self.config = config
        self.log = log
        self.pid: int | None = None
        self.exit: ExitInfo | None = None
        self.failed: SpawnFailed | None = None
        self.spawned = False
        self.left = 0
        self.ready = config.readiness.kind != "notify"
        self.paused = False
        self.stopping = False
        self.status_text = ""
        self.changed = anyio.Event()

    @property
    def gone(self) -> bool:
        """Whether nothing of its tree lives."""
        return self.exit is not None and self.left == 0

    def take_in(self, event: HostEvent) -> None:
        match event:
            case Spawned(pid=pid):
                self.pid, self.spawned = pid, True
            case SpawnFailed():
                self.failed = event
            case Exited(exit=exit_info, left=left):
                self.exit, self.left, self.pid = exit_info, left, None
            case TreeGone():
                self.left = 0
            case Notified(fields=fields):
                told = dict(fields)
                self.ready = self.ready or told.get("READY") == "1"
                self.status_text = told.get("STATUS", self.status_text)
            case MainChanged(pid=pid):
                self.pid = pid
            case MainStopped():
                self.paused = True
            case MainContinued():
                self.paused = False
        self.wake()

    def wake(self) -> None:
        """This wakes who waits for anything to happen."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class NativeAdapter(PlatformAdapter):
    """This starts daemons as processes; it restarts nothing (see `DaemonManager`).

    Args:
        base_dir: What relative paths of a configuration are relative to; the
            current folder unless given.
    """

    name = "native"

    def __init__(self, base_dir: str | os.PathLike[str] | None = None) -> None:
        self._base_dir = Path(base_dir or ".").absolute()
        self._folder: Path | None = None
        self._keeper: AsyncKeeper | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._runs: dict[str, _Run] = {}
        self._current: dict[str, str] = {}
        self._followed: set[str] = set()

    async def __aenter__(self) -> Self:
        folder = self._folder = Path(tempfile.mkdtemp(prefix="duende-native-"))
        state, runtime = folder / "state", folder / "run"
        for made in (state, runtime, state / "logs"):
            made.mkdir(mode=0o700)
        os.chmod(folder, 0o711)
        os.chmod(runtime, 0o711)

        def begin() -> KeeperConnection:
            start_keeper(state, runtime, owner=os.getpid())
            connection = KeeperConnection.connect(state)
            connection.attach()
            return connection

        connection = await anyio.to_thread.run_sync(begin)
        tasks = self._tasks = anyio.create_task_group()
        await tasks.__aenter__()
        keeper = self._keeper = AsyncKeeper(connection)
        await tasks.start(keeper.serve)
        tasks.start_soon(self._listen, keeper)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks, keeper, folder = self._tasks, self._keeper, self._folder
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as stops:
                for name, run_id in self._current.items():
                    if not self._runs[run_id].gone:
                        stops.start_soon(self._stop_quietly, name, run_id)
            if keeper is not None:
                try:
                    await keeper.request("exit")
                except (KeeperLost, PlatformError):
                    pass
        self._tasks = self._keeper = self._folder = None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    async def _stop_quietly(self, name: str, run_id: str) -> None:
        try:
            await self.stop(DaemonHandle(platform=self.name, name=name, run=run_id))
        except (ShutdownTimeout, KeeperLost, PlatformError):
            return

    async def _listen(self, keeper: AsyncKeeper) -> None:
        try:
            async for batch in keeper.batches():
                for line in batch:
                    self._take_in(line)
        except KeeperLost as lost:
            raise PlatformError(
                "the keeper of this adapter has died; its daemons were left alone",
                "look for them by DUENDE_PROJECT=native in their environment",
            ) from lost

    def _take_in(self, line: dict[str, Any]) -> None:
        if line.get("ev") == "log":
            run = self._runs.get(self._current.get(line["name"], ""))
            if run is not None:
                run.wake()
            return
        event = parse_event(line, time.monotonic_ns())
        run_id = getattr(event, "run", None)
        if event is not None and run_id in self._runs:
            self._runs[run_id].take_in(event)

    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def _open(self) -> AsyncKeeper:
        if self._keeper is None:
            raise InvalidState(
                "the adapter is not in use", "write `async with NativeAdapter() as …`"
            )
        return self._keeper

    def _run(self, handle: DaemonHandle) -> _Run:
        try:
            return self._runs[handle.run]
        except KeyError:
            raise NotFound(f"{handle.name!r} was not started by this adapter") from None

    async def spawn(self, config: DaemonConfig) -> DaemonHandle:
        keeper = self._open()
        current = self._current.get(config.name)
        if current is not None and not self._runs[current].gone:
            raise AlreadyRunning(
                f"daemon {config.name!r} runs already", "stop it first"
            )
        assert self._folder is not None, "an open adapter has a folder"
        run_id = str(uuid.uuid4())
        log_dir = self._folder / "state" / "logs"
        spec = DaemonSpec(name=config.name, base=config.name, instance=0, config=config)
        launch = await anyio.to_thread.run_sync(
            lambda: render_launch(
                spec,
                base_dir=self._base_dir,
                project="native",
                run_id=run_id,
                environ=os.environ,
            )
        )
        run = self._runs[run_id] = _Run(config, log_dir / f"{config.name}.log")
        self._current[config.name] = run_id
        keeper.send_nowait(
            render_spawn(
                spec,
                launch,
                run=run_id,
                log_dir=log_dir,
                log_total_max=None,
                blob={},
            )
        )
        while not run.spawned and run.failed is None:
            await run.changed.wait()
        if run.failed is not None:
            run.exit = ExitInfo(code=127)
            raise SpawnError(
                f"daemon {config.name!r}: {run.failed.text}",
                errno=run.failed.errno,
                step=run.failed.step,
            )
        return DaemonHandle(platform=self.name, name=config.name, run=run_id)

    async def signal(self, handle: DaemonHandle, number: int) -> None:
        run = self._run(handle)
        if run.exit is not None:
            raise NotFound(f"daemon {handle.name!r} has ended ({run.exit})")
        await self._deliver(handle, number, "main")

    async def _deliver(self, handle: DaemonHandle, number: int, scope: str) -> None:
        await self._open().request(
            "signal", name=handle.name, run=handle.run, sig=int(number), scope=scope
        )

    async def status(self, handle: DaemonHandle) -> AdapterStatus:
        run = self._run(handle)
        if run.gone:
            clean = run.exit is not None and run.exit.code == 0
            state = DaemonStatus.STOPPED if clean else DaemonStatus.FAILED
            if run.stopping:
                state = DaemonStatus.STOPPED
        elif run.stopping or run.exit is not None:
            state = DaemonStatus.STOPPING
        elif run.paused:
            state = DaemonStatus.PAUSED
        else:
            state = DaemonStatus.RUNNING if run.ready else DaemonStatus.STARTING
        return AdapterStatus(
            state=state,
            pid=run.pid,
            ready=run.ready and run.exit is None,
            exit=run.exit,
            status_text=run.status_text,
        )

    async def stop(
        self, handle: DaemonHandle, timeout: float | None = None
    ) -> ExitInfo:
        run = self._run(handle)
        stop = run.config.stop
        seconds = stop.timeout if timeout is None else timeout
        now = time.monotonic_ns()
        stopping, effects = begin_stop(
            stop.signal, now=now, timeout=round(seconds * _SECOND), frozen=run.paused
        )
        return await self._climb(handle, run, stopping, effects)

    async def kill(self, handle: DaemonHandle) -> ExitInfo:
        run = self._run(handle)
        stopping = Stopping(StopPhase.ASKED, None, main_gone=run.exit is not None)
        return await self._climb(handle, run, *stopping.on(Force(time.monotonic_ns())))

    async def _climb(
        self,
        handle: DaemonHandle,
        run: _Run,
        stopping: Stopping,
        effects: tuple[StopEffect, ...],
    ) -> ExitInfo:
        """This goes up the stop ladder until nothing of the tree is left."""
        run.stopping = True
        while True:
            for effect in effects:
                if isinstance(effect, SendSignal):
                    number = signal_number(effect.signal)
                    await self._deliver(handle, number, effect.scope)
            if run.gone:
                return run.exit or ExitInfo()
            if stopping.phase is StopPhase.STUCK:
                raise ShutdownTimeout(
                    f"daemon {handle.name!r} is still there after SIGKILL",
                    "it may be in uninterruptible sleep; see its state in ps",
                )
            changed = run.changed
            exited = run.exit is not None
            deadline = stopping.deadline or time.monotonic_ns()
            left = max(0, deadline - time.monotonic_ns()) / _SECOND
            with anyio.move_on_after(left) as scope:
                await changed.wait()
            if scope.cancelled_caught:
                stopping, effects = stopping.on(Overdue(time.monotonic_ns()))
            elif run.gone:
                stopping, effects = stopping.on(TreeEmpty())
            elif run.exit is not None and not exited:
                stopping, effects = stopping.on(MainGone(run.left))
            else:
                effects = ()

    async def pause(self, handle: DaemonHandle) -> None:
        run = self._run(handle)
        if run.exit is not None:
            raise InvalidState(f"daemon {handle.name!r} has ended")
        await self._deliver(handle, signal.SIGSTOP, "tree")
        run.paused = True

    async def resume(self, handle: DaemonHandle) -> None:
        run = self._run(handle)
        if run.exit is not None:
            raise InvalidState(f"daemon {handle.name!r} has ended")
        await self._deliver(handle, signal.SIGCONT, "tree")
        run.paused = False

    async def logs(
        self, handle: DaemonHandle, *, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        run = self._run(handle)
        keeper = self._open()
        sent, rest = 0, b""
        if follow:
            self._followed.add(handle.name)
            keeper.send_nowait({"op": "follow", "names": sorted(self._followed)})
        while True:
            ended = run.gone
            changed = run.changed
            await keeper.request("flush", names=[handle.name])
            content = await anyio.to_thread.run_sync(_read_from, run.log, sent)
            sent += len(content)
            *lines, rest = (rest + content).split(b"\n")
            for line in lines:
                yield line
            if ended or not follow:
                if rest:
                    yield rest
                return
            if not content:
                await changed.wait()

    async def wait(self, handle: DaemonHandle) -> ExitInfo:
        run = self._run(handle)
        while run.exit is None:
            await run.changed.wait()
        return run.exit


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""
