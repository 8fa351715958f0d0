"""From "it may run" to "it is ready": dependencies, turns, and readiness.

A daemon that has to wait is WAITING, for one of two things: a dependency, or its
turn, where `start_concurrency` others are on their way to readiness. Whatever frees
it is followed up at the end of the same step (`_go_on`), never in the middle of a
decision about another daemon.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from duende.core.config.model import DependencyState
from duende.core.machines.effects import (
    Publish,
    Spawn,
    StartProbe,
    StopProbe,
    TimerKind,
)
from duende.core.machines.host_events import Spawned
from duende.core.machines.ledger import Ledger
from duende.core.machines.lifecycle import Trigger
from duende.core.machines.readiness import Begun, Held, Passed, Released
from duende.core.machines.record import Record
from duende.core.machines.restart import NANOSECONDS
from duende.core.types import DaemonStatus

__all__ = ("STARTED", "Starting")

_S = DaemonStatus
_TURN: Final = "waits for its turn (start_concurrency)"

STARTED: Final = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED})
"""Statuses of a run that nobody has begun to end."""


class Starting(Ledger):
    """This starts daemons, in the order of their dependencies, and watches them.

    Args:
        start_concurrency: How many may be on their way to readiness at once. A
            daemon that is ready as soon as it was started does not count.
        draw: Gives a number in [-1, 1] for the jitter.
        new_run: Gives a fresh id for a start.
    """

    def __init__(
        self,
        *,
        start_concurrency: int,
        draw: Callable[[], float],
        new_run: Callable[[], str],
    ) -> None:
        super().__init__(draw=draw, new_run=new_run)
        self._cap = start_concurrency
        self._turn: OrderedDict[str, None] = OrderedDict()
        self._improved: OrderedDict[str, None] = OrderedDict()
        self._starts_held = False

    # -- may it start? ----------------------------------------------------------------

    def waits_for(self, record: Record) -> str | None:
        """This says in words which dependency holds a daemon back, if one does."""
        for name, edge in record.spec.depends_on.items():
            other = self.records.get(name)
            if other is None:
                return f"waits for {name}, which is not defined"
            if not self._satisfied(other, edge.until):
                return f"waits for {name} to be {edge.until.value}"
        return None

    def _satisfied(self, other: Record, until: DependencyState) -> bool:
        match until:
            case DependencyState.COMPLETED:
                return other.completed
            case DependencyState.STARTED:
                return other.completed or (
                    other.status in STARTED and other.spawned_at is not None
                )
            case DependencyState.READY:
                return other.completed or other.ready
            case DependencyState.HEALTHY:
                return other.ready and other.healthy is True

    def _has_room(self) -> bool:
        return len(self._on_their_way) < self._cap

    def _request_launch(self, record: Record) -> None:
        """This starts it, or lets it wait for a dependency or behind others."""
        if self.closing or not record.wanted:
            self._rest(record)
            return
        # Until it is launched again it takes nobody's place.
        self._on_their_way.discard(record.name)
        self._disarm(record, TimerKind.RESTART)
        record.next_restart_at = None
        reason = self.waits_for(record)
        if reason is not None or self._starts_held:
            self._hold_back(record, reason)
        elif self._counts(record) and (self._turn or not self._has_room()):
            self._turn[record.name] = None
            self._hold_back(record, _TURN)
        else:
            self._launch(record)

    def _hold_back(self, record: Record, reason: str | None) -> None:
        if record.waits_for != reason:
            record.waits_for = reason
            self.touched.add(record.name)
        self._move(record, Trigger.HOLD, reason)

    def _go_on(self) -> None:
        """This follows up what has changed for the better: the end of every step."""
        while not self._starts_held:
            if self._improved:
                name, _ = self._improved.popitem(last=False)
                for dependent in self._dependents.get(name, ()):
                    self._ask_again(self.records[dependent])
            elif self._turn and self._has_room():
                name, _ = self._turn.popitem(last=False)
                record = self.records[name]
                reason = self.waits_for(record)
                if reason is None:
                    self._launch(record)
                else:
                    self._hold_back(record, reason)
            else:
                return

    def _ask_again(self, record: Record) -> None:
        if record.status is _S.WAITING and record.name not in self._turn:
            self._request_launch(record)

    def _rest(self, record: Record) -> None:
        """Nothing of it runs, and nothing is to follow."""
        self._turn.pop(record.name, None)
        self._disarm(record, TimerKind.RESTART)
        record.next_restart_at = None
        record.waits_for = None
        self._settle(record, None)
        self._move(record, Trigger.REST, None)

    # -- its start --------------------------------------------------------------------

    def _launch(self, record: Record) -> None:
        record.run = self._new_run()
        record.pid = None
        record.spawned_at = None
        record.waits_for = None
        record.main_told = False
        record.is_stopped = False
        record.reloading = False
        record.status_text = ""
        record.stopping = None
        record.goal = None
        record.relaunch = False
        record.readiness = record.new_readiness()
        self.touched.add(record.name)
        self._move(record, Trigger.LAUNCH, None)
        self._effects.append(Spawn(record.name, record.run))

    def _spawned(self, record: Record, event: Spawned) -> None:
        if record.spawned_at is not None:
            return
        record.pid = event.pid
        record.spawned_at = event.at
        self.touched.add(record.name)
        if record.status is _S.STARTING:
            record.readiness = record.readiness.on(Begun(event.at))
            if record.readiness.is_ready:
                self._become_ready(record, event.at)
            else:
                self._watch(record)
        self._improved[record.name] = None

    def _watch(self, record: Record) -> None:
        deadline = record.readiness.deadline
        if deadline is not None:
            self._arm(record, TimerKind.READY, deadline)
        if record.run and record.spec.config.readiness.kind != "notify":
            self._effects.append(StartProbe(record.name, record.run))

    def _passed(self, record: Record, now: int) -> None:
        if record.readiness.is_ready or record.status not in STARTED:
            return
        record.readiness = record.readiness.on(Passed())
        if record.readiness.is_ready:
            self._become_ready(record, now)

    def _become_ready(self, record: Record, now: int) -> None:
        """It is ready; if it is paused, only what waits for it takes note for now."""
        self._disarm(record, TimerKind.READY)
        if not record.readiness.immediate:
            self._effects.append(StopProbe(record.name))
        self._settle(record, None)
        record.first_try_failed = False
        self._move(record, Trigger.READY, None)
        self._emit(Publish(record.name, "ready"))
        self._arm_stable(record, now)
        self._improved[record.name] = None

    def _arm_stable(self, record: Record, now: int) -> None:
        if record.retry.attempts and record.status is _S.RUNNING:
            after = round(record.spec.config.restart.backoff.reset_after * NANOSECONDS)
            self._arm(record, TimerKind.STABLE, now + after)

    # -- paused -----------------------------------------------------------------------

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
            return
        self._move(record, Trigger.RESUME_UNREADY, None)
        record.readiness = record.readiness.on(Released(now))
        self._watch(record)
