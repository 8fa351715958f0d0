"""From "it is to end" or "it has ended" to what follows: nothing, or a restart.

Intent beats policy: only what is wanted is judged by its restart policy. A daemon
that is no longer wanted ends before what it depends on does, so that a shutdown runs
against the order of starting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from duende.core.machines.effects import (
    AllDown,
    Arm,
    Disarm,
    Publish,
    StopProbe,
    TimerKind,
)
from duende.core.machines.graph import topological_order
from duende.core.machines.host_events import Exited, SpawnFailed
from duende.core.machines.lifecycle import Trigger
from duende.core.machines.record import Goal, Record
from duende.core.machines.restart import (
    NANOSECONDS,
    End,
    Finish,
    RestartAfter,
    classify_exit,
)
from duende.core.machines.starting import STARTED, Starting
from duende.core.machines.stopping import (
    Ended,
    Force,
    MainGone,
    SendSignal,
    StopEffect,
    StopEvent,
    Stopping,
    Stuck,
    begin_stop,
    begin_sweep,
)
from duende.core.types import DaemonStatus, FailureReason

__all__ = ("Ending", "stop_timeout")

_S = DaemonStatus


def stop_timeout(record: Record) -> int:
    """This is how long the daemon may take to stop before SIGKILL, in nanoseconds."""
    return round(record.spec.config.stop.timeout * NANOSECONDS)


class Ending(Starting):
    """This ends daemons, and judges those that end by themselves."""

    def __init__(
        self,
        *,
        start_concurrency: int,
        draw: Callable[[], float],
        new_run: Callable[[], str],
    ) -> None:
        super().__init__(
            start_concurrency=start_concurrency, draw=draw, new_run=new_run
        )
        self.ended_by: str | None = None
        self._shutdown_timeout: int | None = None
        self._shutdown_at: int | None = None
        self._said_all_down = False

    # -- stopping one -----------------------------------------------------------------

    def _stop(self, record: Record, now: int) -> None:
        """It is to end, whatever it does now; what failed counts as stopped then."""
        if record.status is _S.STOPPING:
            record.goal = None
            record.relaunch = False
            self._settle(record, None)
        elif record.status in STARTED:
            self._begin_stop(record, None, now)
        elif record.status is not _S.STOPPED:
            self._rest(record)

    def _begin_stop(self, record: Record, goal: Goal, now: int) -> None:
        """This sets foot on the stop ladder; `goal` says what comes after it."""
        if record.status is _S.STOPPING:
            record.goal = goal
            self.touched.add(record.name)
            return
        frozen = record.status is _S.PAUSED
        self._quiet(record)
        self._settle(record, goal)
        self._move(record, Trigger.HALT, record.reason)
        record.goal = goal
        record.relaunch = False
        self.carry_out_stop(
            record,
            *begin_stop(
                record.spec.config.stop.signal,
                now=now,
                timeout=stop_timeout(record),
                frozen=frozen,
            ),
            now,
        )

    def _quiet(self, record: Record) -> None:
        """Nothing is awaited of this run any more."""
        self._disarm(record, TimerKind.READY)
        self._disarm(record, TimerKind.STABLE)
        self._effects.append(StopProbe(record.name))

    def _step_stop(self, record: Record, event: StopEvent, now: int) -> None:
        if record.stopping is not None:
            self.carry_out_stop(record, *record.stopping.on(event), now)

    def carry_out_stop(
        self,
        record: Record,
        stopping: Stopping,
        effects: tuple[StopEffect, ...],
        now: int,
    ) -> None:
        """This sets one rung of the stop ladder and does what it says."""
        record.stopping = stopping
        self.touched.add(record.name)
        if stopping.deadline is None:
            self._disarm(record, TimerKind.STOP)
        elif record.timers.get(TimerKind.STOP) != stopping.deadline:
            self._arm(record, TimerKind.STOP, stopping.deadline)
        for effect in effects:
            match effect:
                case SendSignal(signal=signal, scope=scope):
                    self._deliver(record, signal, scope)
                case Stuck():
                    record.reason = "still there after SIGKILL (uninterruptible sleep?)"
                    self._emit(Publish(record.name, "signal", reason=record.reason))
                case Ended():
                    self._stopped(record, now)

    def _stopped(self, record: Record, now: int) -> None:
        """A stop is over; what follows was said when it began, or since."""
        goal, relaunch = record.goal, record.relaunch
        record.stopping, record.goal, record.relaunch = None, None, False
        self._disarm(record, TimerKind.STOP)
        if record.wanted and not self.closing:
            if goal is not None:
                self._finish(record, goal, now)
                return
            if relaunch:
                self._settle(record, None)
                self._request_launch(record)
                return
        self._rest(record)
        self._gone(record, now)

    # -- it ended by itself -----------------------------------------------------------

    def _spawn_failed(self, record: Record, event: SpawnFailed) -> None:
        if record.spawned_at is not None:
            return
        if record.status is _S.STOPPING:
            self._stopped(record, event.at)
            return
        failure = FailureReason.BAD_CONFIG if event.permanent else FailureReason.SPAWN
        self._finish(record, End(failure, event.text, event.permanent), event.at)

    def _exited(self, record: Record, event: Exited) -> None:
        if record.stopping is not None and record.stopping.main_gone:
            return
        pid, record.pid, record.exit = record.pid, None, event.exit
        self.touched.add(record.name)
        data: dict[str, object] = {"exit": event.exit.to_json(), "pid": pid}
        self._emit(Publish(record.name, "exit", reason=event.text or None, data=data))
        if record.status is _S.STOPPING:
            self._step_stop(record, MainGone(event.left), event.at)
            return
        end = classify_exit(
            event.exit,
            left=event.left,
            ready=record.readiness.is_ready,
            main_told=record.main_told,
            oneshot=record.spec.config.oneshot,
            success_exit_codes=record.spec.config.restart.success_exit_codes,
        )
        if event.text and end.failure is not None:
            end = End(end.failure, event.text, end.permanent)
        if event.left:
            self.sweep(record, end, event.at)
        else:
            self._finish(record, end, event.at)

    def sweep(self, record: Record, goal: Goal, now: int) -> None:
        """This ends what a main process has left behind; `goal` comes after it."""
        self._quiet(record)
        self._settle(record, goal)
        self._move(record, Trigger.HALT, record.reason)
        record.goal = goal
        record.relaunch = False
        self.carry_out_stop(
            record, *begin_sweep(now=now, timeout=stop_timeout(record)), now
        )

    def _finish(self, record: Record, end: End, now: int) -> None:
        """A run that was not asked to end has ended, and nothing of it is left."""
        self._quiet(record)
        if not record.wanted or self.closing:
            self._rest(record)
            self._gone(record, now)
            return
        config = record.spec.config
        record.retry, decision = record.retry.on_end(
            end, config.restart, oneshot=config.oneshot, now=now, draw=self._draw()
        )
        if end.failure is not None:
            record.first_try_failed = True
        match decision:
            case RestartAfter(delay=delay):
                self._settle(record, end)
                self._restart_after(record, delay, now)
            case Finish(failure=failure, text=text):
                self._end_for_good(record, End(failure, text), now)

    def _restart_after(self, record: Record, delay: int, now: int) -> None:
        seconds: dict[str, object] = {"delay": delay / NANOSECONDS}
        self._emit(
            Publish(
                record.name, "restart_scheduled", reason=record.reason, data=seconds
            )
        )
        if delay == 0:
            record.restarts += 1
            self._request_launch(record)
            return
        record.next_restart_at = now + delay
        self._move(record, Trigger.RETRY, record.reason)
        self._arm(record, TimerKind.RESTART, now + delay)

    def _end_for_good(self, record: Record, end: End, now: int) -> None:
        self._settle(record, end)
        if end.failure is None:
            if record.spec.config.oneshot:
                record.completed = True
                self.intent_changed = True
                self._improved[record.name] = None
            self._move(record, Trigger.REST, record.reason)
        else:
            self._move(record, Trigger.FAIL, record.reason)
        if record.spec.config.essential:
            self._close(
                now,
                self._default_timeout(),
                f"essential daemon {record.name} has ended: {record.reason}",
            )
        self._gone(record, now)

    # -- ending everything ------------------------------------------------------------

    def set_shutdown_timeout(self, timeout: int) -> None:
        """This sets how long (ns) a shutdown that nobody asked for may take."""
        self._shutdown_timeout = timeout

    def _default_timeout(self) -> int:
        """The longest stop chain through depends_on, unless one was set."""
        if self._shutdown_timeout is not None:
            return self._shutdown_timeout
        longest: dict[str, int] = {}
        edges = {name: record.spec.depends_on for name, record in self.records.items()}
        for name in topological_order(edges):
            before = max((longest.get(other, 0) for other in edges[name]), default=0)
            longest[name] = before + stop_timeout(self.records[name])
        return max(longest.values(), default=0)

    def _close(self, now: int, timeout: int, reason: str | None) -> None:
        if self.closing:
            if self._shutdown_at is not None and now + timeout < self._shutdown_at:
                self._arm_shutdown(now + timeout)
            return
        self.closing = True
        self.ended_by = reason
        self._emit(Publish(None, "supervisor", reason=reason or "shutting down"))
        self._arm_shutdown(now + timeout)
        for record in self.records.values():
            self._intend(record, wanted=False, by_hand=record.by_hand)
            # What has failed stays so: it is why a person will look.
            if record.status in (_S.CREATED, _S.WAITING, _S.BACKOFF):
                self._rest(record)
        self.stop_unwanted(now)
        self._check_all_down()

    def _arm_shutdown(self, at: int) -> None:
        self._shutdown_at = at
        self._effects.append(Arm("", TimerKind.SHUTDOWN, at))

    def stop_unwanted(self, now: int) -> None:
        """This stops what runs unwanted, unless it has to outlive a dependent."""
        for record in tuple(self.records.values()):
            self._stop_if_free(record, now)

    def _stop_if_free(self, record: Record, now: int) -> None:
        if (
            record.status in STARTED
            and not record.wanted
            and not self._is_held_up(record)
        ):
            self._begin_stop(record, None, now)

    def _is_held_up(self, record: Record) -> bool:
        """Whether something unwanted that depends on it, however far, still lives."""
        seen = {record.name}
        todo = [record.name]
        while todo:
            # From the back, because they end from the front: the first look decides.
            for name in reversed(self._dependents.get(todo.pop(), ())):
                if name in seen:
                    continue
                if name not in self._alive:
                    seen.add(name)
                    todo.append(name)
                elif not self.records[name].wanted:
                    return True
        return False

    def _gone(self, record: Record, now: int) -> None:
        """Nothing of it runs any more: what it depends on may end, if it is to."""
        seen: set[str] = set()
        todo = list(record.spec.depends_on)
        while todo:
            name = todo.pop()
            other = self.records.get(name)
            if other is None or name in seen:
                continue
            seen.add(name)
            if name in self._alive:
                self._stop_if_free(other, now)
            else:
                todo += other.spec.depends_on
        self._check_all_down()

    def _check_all_down(self) -> None:
        if self.closing and not self._alive and not self._said_all_down:
            self._said_all_down = True
            self._shutdown_at = None
            self._effects.append(Disarm("", TimerKind.SHUTDOWN))
            self._effects.append(AllDown())

    def _force(self, record: Record, now: int) -> None:
        if record.status in STARTED and not record.wanted:
            self._begin_stop(record, None, now)
        self._step_stop(record, Force(now), now)

    def _forced(self, names: Iterable[str], now: int) -> None:
        for name in names:
            self._force(self.records[name], now)
