"""All daemons together: what a command, an exit or a timer leads to.

One object, no I/O, no clock, no random source of its own: every method takes the
monotonic time (ns), and what is to be done is collected as effects, which the driver
takes with `drain`. Restart, stopping, readiness and lifecycle decide their part;
here they meet dependencies, operator intent, the cap on parallel starts, and
shutdown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from duende.core.config.model import DependencyState
from duende.core.config.plan import DaemonSpec
from duende.core.errors import InvalidState
from duende.core.machines.effects import (
    AllDown,
    Arm,
    Deliver,
    Disarm,
    Effect,
    Publish,
    Spawn,
    StartProbe,
    StopProbe,
    TimerKind,
)
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    MainChanged,
    MainContinued,
    MainStopped,
    Notified,
    OutputDropped,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.lifecycle import Trigger, next_status
from duende.core.machines.readiness import (
    Begun,
    DeadlinePassed,
    Held,
    Passed,
    ReadinessPhase,
    Released,
)
from duende.core.machines.record import Goal, Record
from duende.core.machines.restart import (
    NANOSECONDS,
    End,
    Finish,
    RestartAfter,
    classify_exit,
)
from duende.core.machines.stopping import (
    Ended,
    Force,
    MainGone,
    Overdue,
    SendSignal,
    StopEffect,
    Stopping,
    Stuck,
    TreeEmpty,
    begin_stop,
    begin_sweep,
)
from duende.core.types import DaemonStatus, FailureReason

__all__ = ("Supervision",)

_S = DaemonStatus
_STARTED: Final = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED})
_IDLE: Final = frozenset(
    {_S.CREATED, _S.WAITING, _S.STOPPED, _S.FAILED, _S.BACKOFF}
)


class Supervision:
    """This decides for every daemon; see the module's text for the rules.

    Args:
        specs: The daemons, by name.
        start_concurrency: How many may be on their way to readiness at once. A
            daemon that is ready as soon as it was started does not count.
        draw: Gives a number in [-1, 1] for the jitter.
        new_run: Gives a fresh id for a start.
    """

    def __init__(
        self,
        specs: Mapping[str, DaemonSpec],
        *,
        start_concurrency: int,
        draw: Callable[[], float],
        new_run: Callable[[], str],
    ) -> None:
        self.records: dict[str, Record] = {}
        self.closing = False
        self.ended_by: str | None = None
        self.touched: set[str] = set()
        self.intent_changed = False
        self._cap = start_concurrency
        self._draw = draw
        self._new_run = new_run
        self._effects: list[Effect] = []
        self._dependents: dict[str, list[str]] = {}
        self._on_their_way: set[str] = set()
        self._turn: deque[str] = deque()
        self._shutdown_timeout = 0
        for spec in specs.values():
            self.add(spec)

    # -- the set of daemons -------------------------------------------------

    def add(self, spec: DaemonSpec, record: Record | None = None) -> Record:
        """This takes a daemon in; nothing starts."""
        self.records[spec.name] = record or Record(spec)
        for dependency in spec.depends_on:
            self._dependents.setdefault(dependency, []).append(spec.name)
        return self.records[spec.name]

    def remove(self, name: str) -> None:
        """This drops a daemon that has no process.

        Raises:
            InvalidState: It still has one.
        """
        record = self.records[name]
        if record.status.has_process:
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}", "stop it first"
            )
        for kind in tuple(record.timers):
            self._disarm(record, kind)
        for dependency in record.spec.depends_on:
            self._dependents[dependency].remove(name)
        self._leave_turn(record)
        del self.records[name]
        self.touched.discard(name)

    def drain(self) -> list[Effect]:
        """This hands over the effects collected since the last call."""
        effects, self._effects = self._effects, []
        return effects

    # -- commands -------------------------------------------------------------

    def start(self, names: Iterable[str], now: int) -> None:
        """This starts daemons and what they depend on; what runs stays as it is."""
        for name in self._with_dependencies(names):
            record = self.records[name]
            self._intend(record, wanted=True, by_hand=False)
            if record.status in (_S.CREATED, _S.STOPPED, _S.FAILED, _S.BACKOFF):
                record.retry = record.retry.on_operator()
                record.completed = False
                record.first_try_failed = False
                self._settle(record, None)
                self._request_launch(record, now)
            elif record.status is _S.STOPPING and record.goal is None:
                record.relaunch = True

    def stop(self, names: Iterable[str], now: int) -> None:
        """This stops daemons because a person asked for it; that is remembered."""
        for name in names:
            record = self.records[name]
            self._intend(record, wanted=False, by_hand=True)
            self._stop(record, now)

    def restart(self, names: Iterable[str], now: int) -> None:
        """This stops what runs and starts it again; what does not run is started."""
        for name in names:
            record = self.records[name]
            if not record.status.has_process:
                self.start((name,), now)
                continue
            self._intend(record, wanted=True, by_hand=False)
            record.retry = record.retry.on_operator()
            record.first_try_failed = False
            self._begin_stop(record, None, now)
            record.relaunch = True

    def pause(self, name: str, now: int) -> None:
        """This stops a whole tree by SIGSTOP.

        Raises:
            InvalidState: There is no process to pause.
        """
        record = self.records[name]
        if record.status is _S.PAUSED:
            return
        if record.status not in _STARTED or not record.run or record.spawned_at is None:
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}",
                "only what runs can be paused",
            )
        self._deliver(record, "SIGSTOP", "tree")
        self._held(record)

    def resume(self, name: str, now: int) -> None:
        """This lets a paused tree go on.

        Raises:
            InvalidState: It is not paused.
        """
        record = self.records[name]
        if record.status is not _S.PAUSED:
            if record.status in _STARTED:
                return
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}", "it is not paused"
            )
        self._deliver(record, "SIGCONT", "tree")
        self._released(record, now)

    def shut_down(self, now: int, timeout: int, reason: str | None = None) -> None:
        """This stops everything, dependents first, within `timeout` ns, then by force."""
        if self.closing:
            return
        self.closing = True
        self.ended_by = reason
        self._emit(Publish(None, "supervisor", reason=reason or "shutting down"))
        self._effects.append(Arm("", TimerKind.SHUTDOWN, now + timeout))
        for record in self.records.values():
            self._intend(record, wanted=False, by_hand=record.by_hand)
            if not record.status.has_process:
                self._stop(record, now)
        for record in tuple(self.records.values()):
            if record.status.has_process and self._dependents_gone(record):
                self._stop(record, now)
        self._check_all_down()

    def force(self, now: int, names: Iterable[str] | None = None) -> None:
        """This uses SIGKILL on what is to end, without waiting any longer."""
        for name in self.records if names is None else names:
            record = self.records[name]
            if not record.status.has_process:
                continue
            self._stop(record, now)
            if record.stopping is not None:
                self._step_stop(record, Force(now), now)

    # -- going on after a loss (see `reconcile`) --------------------------------

    def send(self, effect: Effect) -> None:
        """This adds an effect that was decided elsewhere."""
        self._effects.append(effect)

    def go_on_waiting(self, record: Record, now: int) -> None:
        """This asks again whether a waiting daemon may start."""
        self._request_launch(record, now)

    def go_on_starting(self, record: Record, now: int) -> None:
        """This goes on with a start that another control plane ordered."""
        if record.readiness.is_ready:
            self._become_ready(record, now)
            self._progress(record.name, now)
            return
        if self._counts(record):
            self._on_their_way.add(record.name)
        self._watch(record)

    # -- what happens -----------------------------------------------------------

    def on_host(self, event: HostEvent) -> None:
        """This takes in what a host reports; what is out of date changes nothing."""
        record = self.records.get(event.name)
        if record is None:
            return
        if isinstance(event, OutputDropped):
            data: dict[str, object] = {"bytes": event.bytes}
            self._emit(Publish(event.name, "log_dropped", data=data))
            return
        if event.run != record.run:
            return
        match event:
            case Spawned():
                self._spawned(record, event)
            case SpawnFailed():
                self._spawn_failed(record, event)
            case Exited():
                self._exited(record, event)
            case TreeGone(at=at):
                if record.stopping is not None:
                    self._step_stop(record, TreeEmpty(), at)
            case Notified(fields=fields, at=at):
                self._notified(record, dict(fields), at)
            case MainStopped():
                self._held(record)
            case MainContinued(at=at):
                self._released(record, at)
            case MainChanged(pid=pid):
                record.pid = pid
                record.main_told = True
                self.touched.add(record.name)

    def on_probe(self, name: str, run: str, now: int) -> None:
        """This takes in that a readiness check of this run has passed."""
        record = self.records.get(name)
        if record is not None and record.run == run:
            self._passed(record, now)

    def on_timer(self, name: str, kind: TimerKind, at: int, now: int) -> None:
        """This takes in a timer; one that was set anew or disarmed changes nothing."""
        if kind is TimerKind.SHUTDOWN:
            if self.closing:
                self.force(now)
            return
        record = self.records.get(name)
        if record is None or record.timers.get(kind) != at:
            return
        del record.timers[kind]
        match kind:
            case TimerKind.READY:
                record.readiness = record.readiness.on(DeadlinePassed(now))
                if record.readiness.phase is ReadinessPhase.OVERDUE:
                    seconds = record.spec.config.readiness.timeout
                    end = End(
                        FailureReason.NOT_READY, f"not ready within {seconds:g} s"
                    )
                    self._begin_stop(record, end, now)
            case TimerKind.RESTART:
                record.restarts += 1
                record.next_restart_at = None
                self._request_launch(record, now)
            case TimerKind.STOP:
                self._step_stop(record, Overdue(now), now)
            case TimerKind.STABLE:
                record.retry = record.retry.on_stable()
                self.touched.add(name)

    # -- starting -----------------------------------------------------------------

    def waits_for(self, record: Record) -> str | None:
        """This says in words which dependency holds a daemon back, if one does."""
        for name, edge in record.spec.depends_on.items():
            if not self._satisfied(self.records.get(name), edge.until):
                return f"waits for {name} to be {edge.until.value}"
        return None

    def _satisfied(self, other: Record | None, until: DependencyState) -> bool:
        if other is None:
            return False
        match until:
            case DependencyState.COMPLETED:
                return other.completed
            case DependencyState.STARTED:
                return other.completed or (
                    other.status in _STARTED and other.spawned_at is not None
                )
            case DependencyState.READY:
                return other.completed or other.ready
            case DependencyState.HEALTHY:
                return other.ready and other.healthy is True

    def _with_dependencies(self, names: Iterable[str]) -> list[str]:
        ordered: dict[str, None] = {}
        todo = list(names)[::-1]
        while todo:
            name = todo.pop()
            missing = [
                dependency
                for dependency in self.records[name].spec.depends_on
                if dependency in self.records and dependency not in ordered
            ]
            if missing:
                todo += [name, *missing]
            else:
                ordered[name] = None
        return list(ordered)

    def _request_launch(self, record: Record, now: int) -> None:
        if self.closing or not record.wanted:
            self._rest(record, None)
            return
        reason = self.waits_for(record)
        if reason is None and self._counts(record) and not self._has_room():
            if record.name not in self._turn:
                self._turn.append(record.name)
            reason = "waits for its turn (start_concurrency)"
        if reason is not None:
            record.waits_for = reason
            self._move(record, Trigger.HOLD, reason)
            return
        self._launch(record)

    def _counts(self, record: Record) -> bool:
        return not record.readiness.immediate

    def _has_room(self) -> bool:
        return len(self._on_their_way) < self._cap

    def _launch(self, record: Record) -> None:
        record.run = self._new_run()
        record.pid = None
        record.spawned_at = None
        record.waits_for = None
        record.main_told = False
        record.reloading = False
        record.status_text = ""
        record.stopping = None
        record.goal = None
        record.relaunch = False
        record.next_restart_at = None
        record.readiness = record.new_readiness()
        if self._counts(record):
            self._on_their_way.add(record.name)
        self._move(record, Trigger.LAUNCH, None)
        self._effects.append(Spawn(record.name, record.run))

    def _spawned(self, record: Record, event: Spawned) -> None:
        record.pid = event.pid
        record.spawned_at = event.at
        self.touched.add(record.name)
        if record.status is not _S.STARTING:
            return
        record.readiness = record.readiness.on(Begun(event.at))
        if record.readiness.is_ready:
            self._become_ready(record, event.at)
        else:
            self._watch(record)
        self._progress(record.name, event.at)

    def _watch(self, record: Record) -> None:
        deadline = record.readiness.deadline
        if deadline is not None:
            self._arm(record, TimerKind.READY, deadline)
        if record.run and record.spec.config.readiness.kind != "notify":
            self._effects.append(StartProbe(record.name, record.run))

    def _passed(self, record: Record, now: int) -> None:
        if record.readiness.is_ready or record.status not in (_S.STARTING, _S.PAUSED):
            return
        record.readiness = record.readiness.on(Passed())
        if record.status is _S.STARTING and record.readiness.is_ready:
            self._become_ready(record, now)
            self._progress(record.name, now)

    def _become_ready(self, record: Record, now: int) -> None:
        self._disarm(record, TimerKind.READY)
        if not record.readiness.immediate:
            self._effects.append(StopProbe(record.name))
        self._settle(record, None)
        record.first_try_failed = False
        self._move(record, Trigger.READY, None)
        self._emit(Publish(record.name, "ready"))
        self._arm_stable(record, now)
        self._arrived(record, now)

    def _arm_stable(self, record: Record, now: int) -> None:
        if record.retry.attempts:
            after = round(record.spec.config.restart.backoff.reset_after * NANOSECONDS)
            self._arm(record, TimerKind.STABLE, now + after)

    def _arrived(self, record: Record, now: int) -> None:
        """It is no longer on its way to readiness: the next may start."""
        if record.name not in self._on_their_way:
            return
        self._on_their_way.discard(record.name)
        while self._turn and self._has_room():
            waiting = self.records[self._turn.popleft()]
            if waiting.status is _S.WAITING:
                self._request_launch(waiting, now)

    def _leave_turn(self, record: Record) -> None:
        if record.name in self._turn:
            self._turn.remove(record.name)

    def _progress(self, name: str, now: int) -> None:
        """Something changed for the better: who waited for it may go on."""
        for dependent in self._dependents.get(name, ()):
            record = self.records[dependent]
            if record.status is _S.WAITING and dependent not in self._turn:
                self._request_launch(record, now)

    # -- running ------------------------------------------------------------------

    def _notified(self, record: Record, fields: dict[str, str], now: int) -> None:
        if "STATUS" in fields:
            record.status_text = fields["STATUS"]
            self.touched.add(record.name)
        if fields.get("RELOADING") == "1":
            record.reloading = True
        if fields.get("READY") == "1":
            if record.reloading:
                record.reloading = False
                record.reloads += 1
                self.touched.add(record.name)
            if record.spec.config.readiness.kind == "notify":
                self._passed(record, now)

    def _held(self, record: Record) -> None:
        if record.status not in (_S.STARTING, _S.RUNNING):
            return
        record.readiness = record.readiness.on(Held())
        self._disarm(record, TimerKind.READY)
        self._disarm(record, TimerKind.STABLE)
        self._effects.append(StopProbe(record.name))
        self._move(record, Trigger.PAUSE, None)

    def _released(self, record: Record, now: int) -> None:
        if record.status is not _S.PAUSED:
            return
        if record.readiness.is_ready:
            self._move(record, Trigger.RESUME, None)
            self._arm_stable(record, now)
            self._arrived(record, now)
            self._progress(record.name, now)
            return
        self._move(record, Trigger.RESUME_UNREADY, None)
        record.readiness = record.readiness.on(Released(now))
        self._watch(record)

    # -- ending -------------------------------------------------------------------

    def _spawn_failed(self, record: Record, event: SpawnFailed) -> None:
        failure = FailureReason.BAD_CONFIG if event.permanent else FailureReason.SPAWN
        if record.status is _S.STOPPING:
            self._stopped(record, event.at)
        else:
            self._finish(record, End(failure, event.text, event.permanent), event.at)

    def _exited(self, record: Record, event: Exited) -> None:
        was_ready = record.readiness.is_ready
        pid, record.pid, record.exit = record.pid, None, event.exit
        self.touched.add(record.name)
        data: dict[str, object] = {"exit": event.exit.to_json(), "pid": pid}
        self._emit(Publish(record.name, "exit", reason=event.text or None, data=data))
        if record.status is _S.STOPPING:
            self._step_stop(record, MainGone(event.left), event.at)
            return
        if record.status not in _STARTED:
            return
        end = classify_exit(
            event.exit,
            left=event.left,
            ready=was_ready,
            main_told=record.main_told,
            oneshot=record.spec.config.oneshot,
            success_exit_codes=record.spec.config.restart.success_exit_codes,
        )
        if event.text and end.failure is not None:
            end = End(end.failure, event.text, end.permanent)
        if event.left:
            self._quiet(record, event.at)
            self._move(record, Trigger.HALT, end.text)
            record.goal = end
            timeout = round(record.spec.config.stop.timeout * NANOSECONDS)
            self.carry_out_stop(
                record, *begin_sweep(now=event.at, timeout=timeout), event.at
            )
        else:
            self._finish(record, end, event.at)

    def _stop(self, record: Record, now: int) -> None:
        """It is to end, whatever it does now."""
        if record.status in _IDLE:
            self._rest(record, None)
        elif record.status is _S.STOPPING:
            record.goal = None
            record.relaunch = False
            self.touched.add(record.name)
        else:
            self._begin_stop(record, None, now)

    def _begin_stop(self, record: Record, goal: Goal, now: int) -> None:
        if record.status is _S.STOPPING:
            record.goal = goal
            return
        frozen = record.status is _S.PAUSED
        self._quiet(record, now)
        self._move(record, Trigger.HALT, None if goal is None else goal.text)
        record.goal = goal
        record.relaunch = False
        stop = record.spec.config.stop
        stopping, effects = begin_stop(
            stop.signal,
            now=now,
            timeout=round(stop.timeout * NANOSECONDS),
            frozen=frozen,
        )
        self.carry_out_stop(record, stopping, effects, now)

    def _quiet(self, record: Record, now: int) -> None:
        """Nothing is awaited of this run any more."""
        self._disarm(record, TimerKind.READY)
        self._disarm(record, TimerKind.STABLE)
        self._effects.append(StopProbe(record.name))
        self._arrived(record, now)

    def _step_stop(
        self,
        record: Record,
        event: MainGone | TreeEmpty | Overdue | Force,
        now: int,
    ) -> None:
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
        if goal is not None and record.wanted:
            self._finish(record, goal, now)
        elif relaunch and record.wanted and not self.closing:
            self._request_launch(record, now)
        else:
            self._rest(record, None)
            self._gone(record, now)

    def _finish(self, record: Record, end: End, now: int) -> None:
        """A run that was not asked to end has ended, and nothing of it is left."""
        self._quiet(record, now)
        if not record.wanted or self.closing:
            self._rest(record, None)
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
                seconds: dict[str, object] = {"delay": delay / NANOSECONDS}
                self._emit(
                    Publish(
                        record.name,
                        "restart_scheduled",
                        reason=record.reason,
                        data=seconds,
                    )
                )
                if delay == 0:
                    record.restarts += 1
                    self._request_launch(record, now)
                else:
                    record.next_restart_at = now + delay
                    self._move(record, Trigger.RETRY, record.reason)
                    self._arm(record, TimerKind.RESTART, now + delay)
            case Finish(failure=failure, text=text):
                self._end_for_good(record, End(failure, text), now)

    def _end_for_good(self, record: Record, end: End, now: int) -> None:
        self._settle(record, end)
        if end.failure is None:
            if record.spec.config.oneshot:
                record.completed = True
                self.intent_changed = True
            self._move(record, Trigger.REST, record.reason)
        else:
            self._move(record, Trigger.FAIL, record.reason)
        if record.completed:
            self._progress(record.name, now)
        if record.spec.config.essential:
            self.shut_down(
                now,
                self._shutdown_timeout,
                f"essential daemon {record.name} has ended: {record.reason}",
            )
        self._gone(record, now)

    def set_shutdown_timeout(self, timeout: int) -> None:
        """This sets how long (ns) a shutdown that nobody asked for may take."""
        self._shutdown_timeout = timeout

    def _rest(self, record: Record, end: End | None) -> None:
        self._leave_turn(record)
        self._disarm(record, TimerKind.RESTART)
        record.next_restart_at = None
        record.waits_for = None
        self._settle(record, end)
        self._move(record, Trigger.REST, None)

    def _settle(self, record: Record, end: End | None) -> None:
        """This notes why it is as it is; None: there is nothing to explain."""
        self.touched.add(record.name)
        if end is None:
            record.failure, record.reason = None, None
        elif end.failure is None:
            record.failure, record.reason = None, end.text
        else:
            record.failure = end.failure
            record.reason = f"{end.failure.value}: {end.text}"

    def _gone(self, record: Record, now: int) -> None:
        """Nothing of it runs; during a shutdown its dependencies may follow."""
        if not self.closing:
            return
        for name in record.spec.depends_on:
            other = self.records.get(name)
            if (
                other is not None
                and other.status in _STARTED
                and self._dependents_gone(other)
            ):
                self._stop(other, now)
        self._check_all_down()

    def _dependents_gone(self, record: Record) -> bool:
        return not any(
            self.records[name].status.has_process
            for name in self._dependents.get(record.name, ())
        )

    def _check_all_down(self) -> None:
        if not any(record.status.has_process for record in self.records.values()):
            self._effects.append(Disarm("", TimerKind.SHUTDOWN))
            self._effects.append(AllDown())

    # -- small things -------------------------------------------------------------

    def _intend(self, record: Record, *, wanted: bool, by_hand: bool) -> None:
        if record.by_hand != by_hand or record.wanted != wanted:
            self.intent_changed = True
            self.touched.add(record.name)
        record.wanted, record.by_hand = wanted, by_hand

    def _move(self, record: Record, trigger: Trigger, reason: str | None) -> None:
        before = record.status
        record.status = next_status(before, trigger)
        if record.status is not before:
            self.touched.add(record.name)
            self._emit(
                Publish(
                    record.name, "state", before.value, record.status.value, reason
                )
            )

    def _emit(self, publish: Publish) -> None:
        self._effects.append(publish)

    def _deliver(self, record: Record, signal: str, scope: str) -> None:
        if record.run is not None:
            self._effects.append(Deliver(record.name, record.run, signal, scope))

    def _arm(self, record: Record, kind: TimerKind, at: int) -> None:
        record.timers[kind] = at
        self._effects.append(Arm(record.name, kind, at))

    def _disarm(self, record: Record, kind: TimerKind) -> None:
        if record.timers.pop(kind, None) is not None:
            self._effects.append(Disarm(record.name, kind))
