"""A supervisor whose daemons are processes: it, its keeper, and the loss of either.

`KeeperProject` attaches to a keeper, makes the machine agree with what it finds,
and goes on. When the keeper is lost, it starts another one and does the same again.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import anyio
import anyio.abc
import attrs

from duende.core._drivers.clock import Clock, MonotonicClock
from duende.core._drivers.engine import Host
from duende.core._drivers.keeper_host import KeeperHost
from duende.core._drivers.log_feed import LogFeed
from duende.core._drivers.readiness import ReadinessProber
from duende.core._drivers.supervisor import Supervisor
from duende.core.adapters.keeper_lines import parse_slot
from duende.core.config.launch import render_launch
from duende.core.config.model import SupervisorConfig
from duende.core.config.plan import DaemonSpec
from duende.core.errors import DaemonError, InvalidState, PlatformError
from duende.core.keeper_client import (
    AsyncKeeper,
    KeeperConnection,
    KeeperLost,
    Snapshot,
    start_keeper,
)
from duende.core.machines.reconcile import SlotFacts, reconcile_all, start_afresh
from duende.core.machines.record import Record
from duende.core.types import DaemonStatus, RestartPolicy

__all__ = ("KeeperProject", "ProjectSettings")

PHASE_RUNNING = "running"
PHASE_DOWN = "down"


@final
@attrs.frozen(kw_only=True)
class ProjectSettings:
    """This is what a project needs of the machine: folders and environment.

    `owner` is the pid whose death ends an embedded project; `keeper_mode` is
    foreground or background.
    """

    project: str
    base_dir: Path
    state: Path
    runtime: Path
    log_dir: Path
    log_total_max: int
    environ: dict[str, str]
    file: Path | None = None
    owner: int | None = None
    keeper_mode: str = "foreground"


class KeeperProject:
    """This supervises a set of daemons as children of one keeper.

    Args:
        settings: Folders and environment.
        config: `[supervisor]`.
        specs: The daemons, in start order.
        sink: Gets events, several at a time; must not block.
        first_seq: The number of the next event.
        clock: The time.
        other_host: Gives another host for a daemon that is no process.
    """

    def __init__(
        self,
        settings: ProjectSettings,
        config: SupervisorConfig,
        specs: Mapping[str, DaemonSpec],
        *,
        sink: Callable[..., None],
        first_seq: int = 1,
        clock: Clock | None = None,
        other_host: Callable[[str], Host | None] = lambda name: None,
    ) -> None:
        self.settings = settings
        self.specs = dict(specs)
        self.clock = clock or MonotonicClock()
        self.keeper_pid: int | None = None
        self.boot_id = ""
        self.resumed = False
        self._other_host = other_host
        self.host = KeeperHost(
            settings,
            spec_of=lambda name: self.supervisor.machine.records[name].spec,
            blob_of=lambda name: self.supervisor.engine.blob(name),
            deliver=lambda *events: self.supervisor.engine.deliver(*events),
            clock=self.clock.now,
        )
        self.log_feed = LogFeed(self._follow)
        self.host.on_log = lambda name, gen, size: self.log_feed.grew(name)
        self.supervisor = Supervisor(
            config,
            self.clock,
            host_of=self._host_of,
            prober=ReadinessProber(self.context_of, self._log_of, self.log_feed),
            context_of=self.context_of,
            sink=sink,
            draw=lambda: random.uniform(-1.0, 1.0),
            new_run=lambda: str(uuid.uuid4()),
            first_seq=first_seq,
        )
        self._keeper: AsyncKeeper | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._opening = anyio.Lock()

    def _host_of(self, name: str) -> Host:
        return self._other_host(name) or self.host

    def _follow(self, names: list[str]) -> None:
        if self._keeper is not None:
            self._keeper.send_nowait({"op": "follow", "names": names})

    def log_path(self, name: str) -> Path:
        """This is the daemon's current log file."""
        return self.settings.log_dir / f"{name}.log"

    def _log_of(self, record: Record) -> tuple[str, int]:
        position = self.host.log_position(record.name)
        return str(self.log_path(record.name)), position[1] if position else 0

    def context_of(self, record: Record) -> dict[str, Any]:
        """This is cwd, env, user and group for a command beside a daemon."""
        launch = render_launch(
            record.spec,
            base_dir=self.settings.base_dir,
            project=self.settings.project,
            run_id=record.run or "",
            environ=self.settings.environ,
        )
        return {
            "cwd": launch.cwd,
            "env": launch.env,
            "user": launch.uid,
            "group": launch.gid,
        }

    async def flush(self, names: tuple[str, ...]) -> None:
        """This returns when all that was written so far is in the log files."""
        try:
            await self.host.keeper.request("flush", names=list(names))
        except DaemonError:
            return

    # -- taking over ------------------------------------------------------------------

    async def serve(
        self,
        connection: KeeperConnection,
        snapshot: Snapshot,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """This supervises until it is cancelled, whatever happens to the keeper."""
        async with anyio.create_task_group() as tasks:
            keeper = await self._attach(connection, snapshot, tasks)
            self._adopt(snapshot)
            await tasks.start(self.supervisor.engine.serve)
            task_status.started()
            await self._listen(keeper, tasks)

    async def serve_embedded(
        self,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """This supervises inside an application; a keeper begins with `open_keeper`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self.supervisor.engine.serve)
            task_status.started()
            await anyio.sleep_forever()

    async def open_keeper(self) -> None:
        """This starts the private keeper of an embedded project, once."""
        async with self._opening:
            if self._keeper is not None:
                return
            if self._tasks is None:
                raise InvalidState("the project is not being served")
            connection, snapshot = await anyio.to_thread.run_sync(self._start_another)
            keeper = await self._attach(connection, snapshot, self._tasks)
            self._tasks.start_soon(self._listen, keeper, self._tasks)

    async def _listen(self, keeper: AsyncKeeper, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                await self.host.serve(keeper.batches())
            except KeeperLost:
                keeper = await self._replace_keeper(tasks)

    async def _attach(
        self,
        connection: KeeperConnection,
        snapshot: Snapshot,
        tasks: anyio.abc.TaskGroup,
    ) -> AsyncKeeper:
        keeper = self._keeper = AsyncKeeper(connection)
        await tasks.start(keeper.serve)
        self.keeper_pid = snapshot.keeper_pid
        self.boot_id = snapshot.boot_id
        self.host.connect(keeper, snapshot.slots)
        self.log_feed.renew()
        return keeper

    def _adopt(self, snapshot: Snapshot) -> None:
        """This decides whether an earlier life goes on, and makes the records so."""
        machine = self.supervisor.machine
        past = snapshot.blob if isinstance(snapshot.blob, dict) else {}
        same_boot = past.get("boot_id") == snapshot.boot_id
        lives = any(slot.get("alive") for slot in snapshot.slots)
        self.resumed = lives or (same_boot and past.get("phase") == PHASE_RUNNING)
        slots = {slot["name"]: slot for slot in snapshot.slots}
        for name, spec in self.specs.items():
            record = read_record(spec, slots.get(name))
            machine.add(spec, record)
            if not self.resumed:
                # After `down` everything begins anew, but what was stopped by hand
                # and is to stay so; a reboot forgets nobody's intent.
                kept = spec.config.restart.policy is RestartPolicy.UNLESS_STOPPED
                if past.get("phase") == PHASE_DOWN and not kept:
                    record.by_hand = False
                start_afresh(record)
        timeout = round(self.supervisor.shutdown_timeout * 1_000_000_000)
        machine.set_shutdown_timeout(timeout)
        if self.resumed:
            reconcile_all(machine, self._facts(slots), self.clock.now())
        self.mark(PHASE_RUNNING)

    def _facts(
        self, slots: Mapping[str, dict[str, Any]]
    ) -> dict[str, SlotFacts | None]:
        """This is what the keeper knows of the daemons that are processes."""
        return {
            name: None if slots.get(name) is None else parse_slot(slots[name])
            for name in self.supervisor.machine.records
            if self._other_host(name) is None
        }

    def mark(self, phase: str) -> None:
        """This writes down whether the project runs or was taken down."""
        blob = {"phase": phase, "boot_id": self.boot_id}
        self.host.persist("", blob, sync=True)

    def start_enabled(self, names: tuple[str, ...] = ()) -> tuple[str, ...]:
        """This starts what is to run: the names, else all that is enabled.

        Returns what stays stopped because a person stopped it.
        """
        machine = self.supervisor.machine
        if names:
            self.supervisor.engine.decide(lambda now: machine.start(names, now))
            return ()
        by_hand = tuple(n for n, r in machine.records.items() if r.by_hand)
        wanted = [
            name
            for name, record in machine.records.items()
            if record.spec.config.enabled
            and not record.by_hand
            and record.status is DaemonStatus.CREATED
        ]
        self.supervisor.engine.decide(lambda now: machine.start(wanted, now))
        return by_hand

    # -- the loss of the keeper -----------------------------------------------------------

    async def _replace_keeper(self, tasks: anyio.abc.TaskGroup) -> AsyncKeeper:
        self.host.disconnect()
        self._keeper = None
        engine = self.supervisor.engine
        engine.announce(
            "supervisor",
            reason="the keeper is gone; another one is started",
            data={"keeper_pid": self.keeper_pid},
        )
        connection, snapshot = await anyio.to_thread.run_sync(self._start_another)
        keeper = await self._attach(connection, snapshot, tasks)
        slots = {slot["name"]: slot for slot in snapshot.slots}

        facts = self._facts(slots)
        engine.decide(lambda now: reconcile_all(self.supervisor.machine, facts, now))
        self.mark(PHASE_RUNNING)
        return keeper

    def _start_another(self) -> tuple[KeeperConnection, Snapshot]:
        settings = self.settings
        error: PlatformError | None = None
        for _ in range(5):
            start_keeper(
                settings.state,
                settings.runtime,
                owner=settings.owner,
                environ=settings.environ,
                mode=settings.keeper_mode,
            )
            try:
                connection = KeeperConnection.connect(settings.state)
                return connection, connection.attach()
            except PlatformError as err:
                error = err
        raise PlatformError(
            "the keeper dies again and again", f"see {settings.state}/keeper.log"
        ) from error

    # -- ending ---------------------------------------------------------------------------

    async def end_keeper(self) -> None:
        """This ends the keeper; everything must have been stopped before."""
        self.mark(PHASE_DOWN)
        if self._keeper is not None:
            try:
                await self._keeper.request("exit")
            except KeeperLost:
                pass
        self.host.close()


def read_record(spec: DaemonSpec, slot: Mapping[str, Any] | None) -> Record:
    """This reads a daemon's record from its slot; a new one where that can't be."""
    blob = None if slot is None else slot.get("blob")
    if isinstance(blob, dict):
        try:
            return Record.from_blob(spec, blob)
        except (KeyError, TypeError, ValueError):
            pass
    record = Record(spec)
    if slot is not None and slot.get("alive"):
        record.run = slot.get("run")
        record.status = DaemonStatus.STARTING
        record.wanted = True
    return record
