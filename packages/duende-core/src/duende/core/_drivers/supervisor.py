"""What a person or a program can ask of running daemons, over one `Engine`.

`DaemonManager` and the control server are two faces of this class. Every wait has a
deadline that follows from the daemons' own timeouts.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from duende.core._drivers.clock import Clock, rfc3339
from duende.core._drivers.engine import Engine, Host, Prober
from duende.core._drivers.usage import UsageReader
from duende.core.config.model import SupervisorConfig
from duende.core.config.plan import DaemonSpec
from duende.core.config.values import signal_number
from duende.core.errors import DaemonError, InvalidState, NotFound
from duende.core.machines.record import Record
from duende.core.machines.restart import NANOSECONDS
from duende.core.machines.stopping import STUCK_AFTER, StopPhase
from duende.core.machines.supervision import Supervision
from duende.core.types import (
    RELOAD_FAILED,
    DaemonInfo,
    DaemonStatus,
    Event,
    Outcome,
)

__all__ = ("Supervisor",)

_S = DaemonStatus
_GRACE = STUCK_AFTER / NANOSECONDS + 2.0
"""Seconds beyond a daemon's own timeouts before a wait is given up."""
_STOP_SEEN = 1.0
"""Seconds that a pause waits for word that the process has stopped."""


class Supervisor:
    """This supervises daemons through hosts; see `Engine` for the arguments.

    Args:
        config: `[supervisor]`.
        clock: The time.
        host_of: Which host carries a daemon.
        prober: Watches a run until it is ready.
        context_of: Gives cwd, env, user and group for a command beside a daemon.
        sink: Gets events, several at a time.
        first_seq: The number of the next event.
        draw: Gives numbers in [-1, 1].
        new_run: Gives a fresh id for a start.
    """

    def __init__(
        self,
        config: SupervisorConfig,
        clock: Clock,
        *,
        host_of: Callable[[str], Host],
        prober: Prober,
        context_of: Callable[[Record], dict[str, Any]],
        sink: Callable[..., None],
        draw: Callable[[], float],
        new_run: Callable[[], str],
        first_seq: int = 1,
    ) -> None:
        self.config = config
        self.clock = clock
        self.machine = Supervision(
            {},
            start_concurrency=config.start_concurrency,
            draw=draw,
            new_run=new_run,
        )
        self.engine = Engine(
            self.machine,
            clock,
            host_of=host_of,
            prober=prober,
            sink=sink,
            first_seq=first_seq,
        )
        self._host_of = host_of
        self._context_of = context_of
        self._usage = UsageReader()

    # -- looking ----------------------------------------------------------------------

    def record(self, name: str) -> Record:
        """This is the record of a daemon.

        Raises:
            NotFound: There is none of this name.
        """
        try:
            return self.machine.records[name]
        except KeyError:
            known = ", ".join(sorted(self.machine.records)[:8]) or "none is defined"
            raise NotFound(f"there is no daemon {name!r}", f"known: {known}") from None

    def resolve(self, patterns: Sequence[str], all: bool = False) -> tuple[str, ...]:
        """This expands names, base names of instances and globs, in start order.

        Raises:
            NotFound: A pattern matches nothing.
        """
        if all:
            return tuple(self.machine.records)
        found: dict[str, None] = {}
        for pattern in patterns:
            names = [
                name
                for name, record in self.machine.records.items()
                if pattern in (name, record.spec.base)
                or fnmatch.fnmatchcase(name, pattern)
            ]
            if not names:
                self.record(pattern)
            found.update(dict.fromkeys(names))
        return tuple(name for name in self.machine.records if name in found)

    def info(self, name: str) -> DaemonInfo:
        """This is one row of `duende ps`."""
        record = self.record(name)
        now = self.clock.now()
        running = record.status.has_process and record.spawned_at is not None
        uptime = None
        if running and record.spawned_at is not None:
            uptime = round(max(0, now - record.spawned_at) / NANOSECONDS, 3)
        usage = None if record.pid is None else self._usage.read(record.pid)
        host = self._host_of(name)
        pending = record.next_restart_at
        return DaemonInfo(
            name=name,
            instance=record.spec.instance,
            id=record.id,
            platform=host.platform,
            state=record.status,
            ready=record.ready,
            healthy=record.healthy,
            pid=record.pid,
            uptime=uptime,
            restarts=record.restarts,
            next_restart_in=None
            if record.status is not _S.BACKOFF or pending is None
            else round(max(0, pending - now) / NANOSECONDS, 3),
            exit=record.exit,
            reason=record.reason or record.waits_for,
            kill_scope=host.kill_scope(name),
            cpu_percent=None if usage is None else usage.cpu_percent,
            rss_bytes=None if usage is None else usage.rss_bytes,
            started_at=None
            if record.started_at is None
            else rfc3339(record.started_at),
            status_text=record.status_text,
        )

    def infos(self) -> tuple[DaemonInfo, ...]:
        """This is every row of `duende ps`."""
        rows = tuple(self.info(name) for name in self.machine.records)
        self._usage.forget({row.pid for row in rows if row.pid is not None})
        return rows

    def detail(self, name: str) -> dict[str, Any]:
        """This is one row with all else that is known, as JSON values."""
        record = self.record(name)
        config = record.spec.config
        row: dict[str, Any] = self.info(name).to_json()
        row.update(
            description=config.description,
            command=list(config.command or ()) or None,
            entry=config.entry,
            working_dir=config.working_dir,
            restart=config.restart.policy.value,
            attempts=record.retry.attempts,
            max_retries=config.restart.max_retries,
            depends_on={
                other: edge.until.value
                for other, edge in record.spec.depends_on.items()
            },
            waits_for=record.waits_for,
            stopped_by_hand=record.by_hand,
            completed=record.completed,
            run=record.run,
            failure=None if record.failure is None else record.failure.value,
        )
        return row

    # -- commands -----------------------------------------------------------------------

    async def command(
        self,
        verb: str,
        names: Sequence[str],
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> tuple[Outcome, ...]:
        """This starts, stops, restarts, reloads, pauses or resumes daemons.

        Raises:
            NotFound: There is no such daemon.
            InvalidState: There is no such verb, or everything is being shut down.
        """
        for name in names:
            self.record(name)
        if self.machine.closing and verb != "stop":
            raise InvalidState("the supervisor is shutting down", "wait, then `up`")
        match verb:
            case "start":
                self._decide(self.machine.start, names)
                return await self._wait_up(names, {}, wait=wait, timeout=timeout)
            case "restart":
                runs = {name: self.machine.records[name].run for name in names}
                self._decide(self.machine.restart, names)
                return await self._wait_up(names, runs, wait=wait, timeout=timeout)
            case "stop":
                self._decide(self.machine.stop, names)
                return await self._wait_down(names, wait=wait, timeout=timeout)
            case "pause" | "resume":
                outcomes = tuple(self._pause_or_resume(verb, name) for name in names)
                for outcome in outcomes if wait else ():
                    await self._host_of(outcome.name).barrier()
                    if verb == "pause" and outcome.ok:
                        await self._see_stopped(outcome.name)
                return outcomes
            case "reload":
                return tuple([await self._reload(name, timeout) for name in names])
        raise InvalidState(f"there is no verb {verb!r}")

    def _decide(
        self, call: Callable[[Iterable[str], int], None], names: Sequence[str]
    ) -> None:
        self.engine.decide(lambda now: call(names, now))

    async def _wait_up(
        self,
        names: Sequence[str],
        before: dict[str, str | None],
        *,
        wait: bool,
        timeout: float | None,
    ) -> tuple[Outcome, ...]:
        verdicts = [
            partial(self._judge_up, name, before.get(name, "")) for name in names
        ]
        if wait:
            limit = self._start_limit(names) if timeout is None else timeout
            await self.engine.until(
                lambda: all(verdict() is not None for verdict in verdicts), limit
            )
        return tuple(
            verdict()
            or self._outcome(name, *((124, "not ready in time") if wait else ()))
            for name, verdict in zip(names, verdicts, strict=True)
        )

    def _judge_up(self, name: str, before: str | None) -> Outcome | None:
        """This says how a start has turned out, or None while it is under way."""
        record = self.record(name)
        if record.status is _S.STOPPING and record.relaunch:
            return None
        if before and record.run == before and record.status.has_process:
            return None
        match record.status:
            case _S.RUNNING if record.ready:
                return self._outcome(name)
            case _S.PAUSED:
                return self._outcome(name, message="paused")
            case _S.FAILED:
                return self._outcome(name, 1, record.reason or "failed")
            case _S.STOPPED:
                return self._outcome(name, message=record.reason or "")
        if record.first_try_failed:
            return self._outcome(name, 1, self._trouble(record))
        if record.status is _S.WAITING and (culprit := self._culprit(record)):
            return self._outcome(name, 1, f"{record.waits_for}, and {culprit}")
        return None

    def _trouble(self, record: Record) -> str:
        text = record.reason or "its first start failed"
        if record.next_restart_at is not None:
            left = max(0, record.next_restart_at - self.clock.now()) / NANOSECONDS
            text += f"; next try in {left:.1f} s"
        return text

    def _culprit(self, record: Record) -> str | None:
        """This names a failed or stopped daemon that a waiting one depends on."""
        for name in record.spec.depends_on:
            other = self.machine.records.get(name)
            if other is None or other.completed:
                continue
            if other.status in (_S.FAILED, _S.STOPPED):
                return f"{name} is {other.status.value}"
            if other.first_try_failed:
                return f"{name} fails: {other.reason}"
            if other.status is _S.WAITING and (deeper := self._culprit(other)):
                return deeper
        return None

    def _start_limit(self, names: Sequence[str]) -> float:
        """Seconds after which every start has succeeded, failed, or hangs."""
        chain = sum(
            record.spec.config.readiness.timeout + record.spec.config.stop.timeout
            for record in self.machine.records.values()
        )
        return chain + _GRACE

    async def _wait_down(
        self, names: Sequence[str], *, wait: bool, timeout: float | None
    ) -> tuple[Outcome, ...]:
        records = [self.machine.records[name] for name in names]
        if wait and records:
            longest = max(record.spec.config.stop.timeout for record in records)
            limit = longest + _GRACE if timeout is None else timeout
            await self.engine.until(
                lambda: not any(self._stopping(record) for record in records), limit
            )
        return tuple(
            self._outcome(record.name)
            if not wait or not record.status.has_process
            else self._outcome(
                record.name,
                124 if record.reason is None else 1,
                record.reason or "still stopping",
            )
            for record in records
        )

    def _stopping(self, record: Record) -> bool:
        stuck = record.stopping and record.stopping.phase is StopPhase.STUCK
        return record.status.has_process and not stuck

    def _pause_or_resume(self, verb: str, name: str) -> Outcome:
        call = self.machine.pause if verb == "pause" else self.machine.resume
        try:
            self.engine.decide(lambda now: call(name, now))
        except InvalidState as error:
            return self._outcome(name, 3, str(error))
        except DaemonError as error:
            return self._outcome(name, 1, str(error))
        return self._outcome(name)

    async def _see_stopped(self, name: str) -> None:
        """This waits for the kernel to have stopped the main process.

        Of a process that is not the keeper's child no word comes: then the time ends it.
        """
        record = self.record(name)
        await self.engine.until(
            lambda: record.is_stopped or record.status is not _S.PAUSED, _STOP_SEEN
        )

    # -- reload and signals ---------------------------------------------------------------

    async def _reload(self, name: str, timeout: float | None) -> Outcome:
        from duende.core._drivers.probes import check_exec

        record = self.record(name)
        if record.status is not _S.RUNNING or record.run is None:
            return self._outcome(name, 3, f"it is {record.status.value}")
        config = record.spec.config
        limit = config.stop.timeout if timeout is None else timeout
        if config.reload.exec is not None:
            launch = self._context_of(record)
            with anyio.move_on_after(limit):
                if await check_exec(config.reload.exec, **launch):
                    return self._outcome(name)
                return self._outcome(name, 1, "its reload command failed")
            return self._outcome(name, 124, "its reload command did not end in time")
        text = config.reload.signal or "SIGHUP"
        number = signal_number(text)
        # Without a `reload` of its own, SIGHUP must not kill what doesn't expect it.
        # A task of this process has no pid, and nothing to fear from a signal.
        may_kill = config.reload.signal is None and record.pid is not None
        if may_kill and not catches(record.pid, number):
            return self._outcome(
                name,
                1,
                f"it does not catch {text}, which would end it; set reload in its "
                "configuration, or restart it",
            )
        before = record.reloads
        outcome = (await self.signal(number, (name,)))[0]
        if outcome.ok and config.entry is not None:
            if not await self.engine.until(
                lambda: record.reloads > before or not record.status.has_process, limit
            ):
                return self._outcome(name, 124, "it did not say that it has reloaded")
            if record.status is not _S.RUNNING:
                return self._outcome(name, 1, record.reason or "it ended")
            if record.status_text.startswith(RELOAD_FAILED):
                return self._outcome(name, 1, record.status_text)
        return outcome

    async def signal(self, number: int, names: Sequence[str]) -> tuple[Outcome, ...]:
        """This sends a signal to the main process of each daemon.

        Raises:
            NotFound: There is no such daemon.
        """
        for name in names:
            self.record(name)
        outcomes = []
        for name in names:
            record = self.record(name)
            if not record.status.has_process or record.run is None:
                text = f"it is {record.status.value}"
                outcomes.append(self._outcome(name, 3, text))
                continue
            host = self._host_of(name)
            try:
                host.signal(name, record.run, number, "main")
                await host.barrier()
            except DaemonError as error:
                outcomes.append(self._outcome(name, 1, str(error)))
                continue
            self.engine.announce("signal", daemon=name, data={"signal": number})
            outcomes.append(self._outcome(name))
        return tuple(outcomes)

    # -- waiting and ending -----------------------------------------------------------------

    async def wait(
        self, names: Sequence[str], state: str, timeout: float | None
    ) -> tuple[Outcome, ...]:
        """This waits until every daemon is in the state, can't be any more, or time is up.

        `state` is running, ready, healthy, stopped, completed or failed.

        Raises:
            NotFound: There is no such daemon.
            InvalidState: There is no such state to wait for.
        """
        if state not in _AWAITED:
            raise InvalidState(
                f"{state!r} is nothing to wait for", f"one of {', '.join(_AWAITED)}"
            )
        records = [self.record(name) for name in names]

        def settled(record: Record) -> bool:
            return _AWAITED[state](record) or (
                state not in ("failed", "stopped") and record.status is _S.FAILED
            )

        await self.engine.until(lambda: all(settled(r) for r in records), timeout)
        return tuple(
            self._outcome(record.name)
            if _AWAITED[state](record)
            else self._outcome(record.name, 1, record.reason or "failed")
            if settled(record)
            else self._outcome(record.name, 124, f"not {state} in time")
            for record in records
        )

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that an orderly shutdown may take."""
        if self.config.shutdown_timeout is not None:
            return self.config.shutdown_timeout
        specs = {name: r.spec for name, r in self.machine.records.items()}
        return longest_chain(specs)

    async def shutdown(
        self, timeout: float | None = None, reason: str | None = None
    ) -> tuple[Outcome, ...]:
        """This stops everything, dependents first; by force when `timeout` is over."""
        self.begin_shutdown(timeout, reason)
        limit = self.shutdown_timeout if timeout is None else timeout
        with anyio.move_on_after(limit + _GRACE):
            await self.engine.all_down.wait()
        return tuple(
            self._outcome(name)
            if not record.status.has_process
            else self._outcome(name, 1, record.reason or "it could not be ended")
            for name, record in self.machine.records.items()
        )

    def begin_shutdown(
        self, timeout: float | None = None, reason: str | None = None
    ) -> None:
        """This begins to stop everything and returns at once."""
        limit = self.shutdown_timeout if timeout is None else timeout
        nanoseconds = round(limit * NANOSECONDS)
        self.engine.decide(lambda now: self.machine.shut_down(now, nanoseconds, reason))

    def force_shutdown(self) -> None:
        """This kills everything now."""
        self.begin_shutdown()
        self.engine.decide(self.machine.force)

    # -- events -----------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe_events(
        self, since: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """This yields events as they happen; `since` needs a written log (see control)."""
        async with self.engine.subscribe() as stream:
            yield stream

    def _outcome(self, name: str, code: int = 0, message: str = "") -> Outcome:
        state = self.machine.records[name].status.value
        return Outcome(name=name, ok=code == 0, state=state, message=message, code=code)


_AWAITED: dict[str, Callable[[Record], bool]] = {
    "running": lambda record: record.status is _S.RUNNING,
    "ready": lambda record: record.ready,
    "healthy": lambda record: record.ready and record.healthy is not False,
    "stopped": lambda record: record.status is _S.STOPPED,
    "completed": lambda record: record.completed,
    "failed": lambda record: record.status is _S.FAILED,
}


def longest_chain(specs: dict[str, DaemonSpec]) -> float:
    """This sums stop timeouts along the longest way through the dependencies."""
    from duende.core.machines.graph import topological_order

    length: dict[str, float] = {}
    edges = {
        name: [other for other in spec.depends_on if other in specs]
        for name, spec in specs.items()
    }
    for name in topological_order(edges):
        before = max((length[other] for other in edges[name]), default=0.0)
        length[name] = before + specs[name].config.stop.timeout
    return max(length.values(), default=0.0)


def catches(pid: int | None, number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt of proc_pid_status(5)).

    Where that can't be read, the answer is yes.
    """
    if pid is None:
        return False
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        return not os.path.exists("/proc/self/status")
    return True
