"""Daemon objects of this process as tasks that report like processes do.

A task can't be paused or killed against its will: SIGSTOP and SIGCONT are refused,
and one that ignores its cancellation has not exited until it really ends.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import anyio
import anyio.lowlevel
import attrs

from duende.core._hosting import (
    DaemonLife,
    Ending,
    Outcome,
    check_health,
    describe,
    hosted_config,
)
from duende.core.errors import ConfigError, InvalidState, NotFound, NotSupported
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    Notified,
    Spawned,
    SpawnFailed,
)
from duende.core.types import ExitInfo, HealthStatus, signal_name

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from duende.core.config.model import DaemonConfig
    from duende.core.context import Fields
    from duende.core.daemon import Daemon

__all__ = ("TaskHost",)

_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
_PAUSING = frozenset(
    {signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)


@final
@attrs.define
class _Slot:
    """This is one registered daemon and its current run, if any."""

    make: Callable[[], Daemon]
    settings: object
    stop_timeout: float
    run: str | None = None
    daemon: Daemon | None = None
    config: DaemonConfig | None = None
    life: DaemonLife | None = None
    early: list[int] = attrs.Factory(list)


@final
class TaskHost:
    """This carries daemons as tasks; see `machines.host_events` for what it reports.

    Args:
        deliver: takes each event, on the event loop, never from inside a call of
            `spawn`, `signal` or `remove`.
        clock: gives monotonic nanoseconds.
    """

    platform = "in-process"

    def __init__(
        self, deliver: Callable[[HostEvent], None], clock: Callable[[], int]
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._group: TaskGroup | None = None
        self._outbox: deque[HostEvent] = deque()
        self._wake = anyio.Event()

    # -- the registry -------------------------------------------------------------

    def add(
        self,
        name: str,
        make: Callable[[], Daemon],
        settings: object,
        stop_timeout: float,
    ) -> None:
        """This makes a daemon known; `make` is called for each run.

        Of a name that is known the next run is made anew: the current one goes on.
        """
        slot = self._slots.get(name)
        if slot is None:
            self._slots[name] = _Slot(make, settings, stop_timeout)
        else:
            slot.make, slot.settings = make, settings
            slot.stop_timeout = stop_timeout

    def remove(self, name: str) -> None:
        """This forgets a daemon that has ended.

        Raises:
            InvalidState: Its task has not.
        """
        slot = self._slots.get(name)
        if slot is not None and slot.run is not None:
            raise InvalidState(f"the task of {name!r} has not ended", "stop it first")
        self._slots.pop(name, None)

    # -- the host's interface -----------------------------------------------------

    async def serve(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """This owns the tasks; it runs until cancelled, and they end with it."""
        self._wake = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                task_status.started()
                await self._pump()
        finally:
            self._group = None
            self._flush()

    def spawn(self, name: str, run: str) -> None:
        """This starts a run; `Spawned` or `SpawnFailed` is delivered for it.

        Raises:
            NotFound: No daemon has this name.
            InvalidState: `serve` does not run, or a run of this name has not ended.
        """
        slot = self._slots.get(name)
        if slot is None:
            raise NotFound(f"no in-process daemon is called {name!r}", "add it first")
        if self._group is None:
            raise InvalidState("the task host does not serve", "await serve() first")
        if slot.run is not None:
            raise InvalidState(f"run {slot.run} of {name!r} has not ended")
        slot.run = run
        slot.early.clear()
        self._group.start_soon(self._live, name, slot, run)

    def signal(self, name: str, run: str, number: int, scope: str) -> None:
        """This acts as the signal would on a process; what is gone is passed over.

        SIGTERM and SIGINT stop, SIGHUP reloads, SIGKILL cancels everything, and all
        others reach `ctx.signals()`. A task has no tree: `rest` is nobody.

        Raises:
            NotSupported: A task can't be paused or continued; or nothing in it
                listens for the signal, whose default action would be its death.
        """
        slot = self._slots.get(name)
        if slot is None or slot.run != run or scope == "rest" or number == 0:
            return
        if number in _PAUSING:
            raise NotSupported(
                f"{signal_name(number)} for {name!r}: a task of this process can't be "
                "paused or continued",
                "run it as a process (entry = …) to pause it",
            )
        if slot.life is None:
            slot.early.append(number)  # its task has not had its first turn
        else:
            self._act(name, slot, slot.life, number)

    def persist(self, name: str, blob: dict[str, Any], *, sync: bool) -> None:
        """This keeps nothing: tasks do not outlive the process that decides."""

    def kill_scope(self, name: str) -> str | None:
        """This is None: a task has no processes of its own."""
        return None

    async def barrier(self) -> None:
        """This returns when what was reported so far has been delivered."""
        await anyio.lowlevel.checkpoint()
        self._flush()

    async def health(self, name: str) -> HealthStatus:
        """This calls the daemon's health check.

        Raises:
            NotFound: No daemon has this name.
            InvalidState: It does not run.
        """
        slot = self._slots.get(name)
        if slot is None:
            raise NotFound(f"no in-process daemon is called {name!r}")
        if slot.daemon is None or slot.life is None:
            raise InvalidState(f"daemon {name!r} does not run", "start it first")
        return await check_health(slot.daemon)

    # -- the tasks ----------------------------------------------------------------

    async def _live(self, name: str, slot: _Slot, run: str) -> None:
        def notify(fields: Fields) -> None:
            self._report(Notified(name, run, fields, self._clock()))

        try:
            daemon = slot.make()
            config = hosted_config(type(daemon), name, slot.settings, slot.stop_timeout)
            life = DaemonLife(daemon, config, settings=slot.settings, notify=notify)
        except (Exception, SystemExit) as error:
            is_config = isinstance(error, ConfigError)
            text = str(error) if is_config else describe(error)
            step = "settings" if is_config else "create"
            slot.run = None
            self._report(
                SpawnFailed(name, run, step, None, text, is_config, self._clock())
            )
            return
        slot.daemon, slot.config, slot.life = daemon, config, life
        self._report(Spawned(name, run, None, self._clock()))
        for number in slot.early:
            try:
                self._act(name, slot, life, number)
            except NotSupported:
                pass  # nothing can listen before the daemon runs
        outcome = Outcome(Ending.KILLED)
        try:
            outcome = await life.live()
        finally:
            # Also when the host itself is cancelled: nobody is left thinking it runs.
            self._log(name, outcome)
            slot.run = slot.daemon = slot.config = slot.life = None
            self._report(
                Exited(name, run, _exit_info(outcome), 0, self._clock(), outcome.text)
            )

    def _act(self, name: str, slot: _Slot, life: DaemonLife, number: int) -> None:
        if number == signal.SIGKILL:
            life.kill()
            return
        is_heard = life.deliver_signal(number)
        if number in _STOPPING:
            life.request_stop()
        elif number == signal.SIGHUP:
            self._reload(name, slot, life)
        elif not is_heard:
            raise NotSupported(
                f"{signal_name(number)} for {name!r}: nothing in that task listens for "
                "it",
                "use ctx.signals() in its run()",
            )

    def _reload(self, name: str, slot: _Slot, life: DaemonLife) -> None:
        if slot.daemon is None:
            return
        try:
            slot.config = hosted_config(
                type(slot.daemon), name, slot.settings, slot.stop_timeout
            )
        except ConfigError as error:
            life.refuse_reload(error)
        else:
            life.request_reload(slot.settings, slot.config)

    def _log(self, name: str, outcome: Outcome) -> None:
        if outcome.ending is not Ending.ERROR:
            return
        import logging

        logging.getLogger(name).error(
            "the daemon failed: %s", outcome.text, exc_info=outcome.error
        )

    # -- delivering ---------------------------------------------------------------

    def _report(self, event: HostEvent) -> None:
        """This queues an event: whoever called us must not be called back inside."""
        self._outbox.append(event)
        self._wake.set()

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            self._deliver(self._outbox.popleft())


def _exit_info(outcome: Outcome) -> ExitInfo:
    if outcome.ending is Ending.KILLED:
        return ExitInfo(signal=int(signal.SIGKILL))
    return ExitInfo(code=outcome.exit_code)
