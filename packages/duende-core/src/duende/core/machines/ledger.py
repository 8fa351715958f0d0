"""The records of all daemons, and the small moves that every decision is made of.

`Ledger` is the lowest part of `supervision`: `starting` and `ending` build on it.
Whatever follows from a change of status alone (who is alive, who is on its way to
readiness) is kept here, in the one place that changes a status.
"""

from __future__ import annotations

from collections.abc import Callable

from duende.core.machines.effects import (
    Arm,
    Deliver,
    Disarm,
    Effect,
    Publish,
    TimerKind,
)
from duende.core.machines.lifecycle import Trigger, next_status
from duende.core.machines.record import Record
from duende.core.machines.restart import End
from duende.core.types import DaemonStatus

__all__ = ("Ledger",)


class Ledger:
    """This holds the records and collects effects.

    Args:
        draw: Gives a number in [-1, 1] for the jitter.
        new_run: Gives a fresh id for a start.
    """

    def __init__(
        self, *, draw: Callable[[], float], new_run: Callable[[], str]
    ) -> None:
        self.records: dict[str, Record] = {}
        self.closing = False
        self.touched: set[str] = set()
        self.intent_changed = False
        self._draw = draw
        self._new_run = new_run
        self._effects: list[Effect] = []
        self._dependents: dict[str, list[str]] = {}
        self._alive: set[str] = set()
        self._on_their_way: set[str] = set()

    def drain(self) -> list[Effect]:
        """This hands over the effects collected since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def _move(self, record: Record, trigger: Trigger, reason: str | None) -> None:
        before = record.status
        record.status = next_status(before, trigger)
        self._place(record)
        if record.status is not before:
            self.touched.add(record.name)
            self._effects.append(
                Publish(record.name, "state", before.value, record.status.value, reason)
            )

    def _place(self, record: Record) -> None:
        """This keeps up who is alive and who is on its way to readiness."""
        if record.status.has_process:
            self._alive.add(record.name)
        else:
            self._alive.discard(record.name)
        if record.status is DaemonStatus.STARTING and self._counts(record):
            self._on_their_way.add(record.name)
        else:
            self._on_their_way.discard(record.name)

    def _counts(self, record: Record) -> bool:
        """Whether its starts count against the cap: what is ready at once does not."""
        return not record.readiness.immediate

    def _intend(self, record: Record, *, wanted: bool, by_hand: bool) -> None:
        if record.by_hand != by_hand or record.wanted != wanted:
            self.intent_changed = True
            self.touched.add(record.name)
        record.wanted, record.by_hand = wanted, by_hand

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
