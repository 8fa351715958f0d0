"""What a control plane believes, held against what the keeper says.

Used when a new control plane takes over, and when the keeper itself was lost and
another one has looked for survivors. The keeper is right about processes, the
record about intent.
"""

from __future__ import annotations

from typing import final

import attrs

from duende.core.machines.effects import Arm, Spawn, TimerKind
from duende.core.machines.host_events import Exited, MainContinued, MainStopped
from duende.core.machines.readiness import Begun, Passed
from duende.core.machines.record import Record
from duende.core.machines.restart import NANOSECONDS
from duende.core.machines.stopping import begin_stop, begin_sweep
from duende.core.machines.supervision import Supervision
from duende.core.types import DaemonStatus, ExitInfo

__all__ = ("SlotFacts", "reconcile", "start_afresh")


@final
@attrs.frozen(kw_only=True)
class SlotFacts:
    """This is what the keeper knows of a slot; times are monotonic nanoseconds."""

    run: str | None
    alive: bool
    pid: int | None
    exit: ExitInfo | None
    left: int
    ready: bool
    paused: bool
    status_text: str
    spawned_at: int | None
    exited_at: int | None


def start_afresh(record: Record) -> None:
    """This forgets a life that is over (a reboot, a `down`), but not who stopped it."""
    by_hand, completed = record.by_hand, record.completed
    record.__init__(record.spec)  # type: ignore[misc]  # a record is slots only: this sets every one of them anew
    record.by_hand, record.completed = by_hand, completed


def reconcile(
    supervision: Supervision, record: Record, facts: SlotFacts | None, now: int
) -> None:
    """This makes one record agree with the facts, and sets going what has to go on.

    `facts` is None when the keeper does not know the slot.
    """
    supervision.touched.add(record.name)
    believed = record.status.has_process
    if facts is None or facts.run != record.run:
        if believed and record.status is not DaemonStatus.STOPPING and record.run:
            supervision.send(Spawn(record.name, record.run))
        elif believed:
            supervision.on_host(Exited(record.name, record.run or "", ExitInfo(), 0, now))
        else:
            _go_on_without_process(supervision, record, now)
        return
    record.status_text = facts.status_text
    if facts.alive:
        _go_on_with_process(supervision, record, facts, now)
    elif believed:
        if record.status is DaemonStatus.STOPPING and facts.left:
            _sweep_again(supervision, record, now)
        else:
            supervision.on_host(
                Exited(
                    record.name,
                    record.run or "",
                    facts.exit or ExitInfo(),
                    facts.left,
                    facts.exited_at or now,
                )
            )
    else:
        _go_on_without_process(supervision, record, now)


def _go_on_without_process(supervision: Supervision, record: Record, now: int) -> None:
    if record.status is DaemonStatus.BACKOFF:
        at = max(now, record.next_restart_at or now)
        record.timers[TimerKind.RESTART] = at
        supervision.send(Arm(record.name, TimerKind.RESTART, at))
    elif record.status is DaemonStatus.WAITING:
        supervision.go_on_waiting(record, now)


def _go_on_with_process(
    supervision: Supervision, record: Record, facts: SlotFacts, now: int
) -> None:
    record.pid = facts.pid
    record.spawned_at = facts.spawned_at
    if not record.status.has_process:
        record.status = DaemonStatus.STARTING
    if record.status is DaemonStatus.STOPPING:
        _stop_again(supervision, record, facts, now)
        return
    if record.status is DaemonStatus.STARTING:
        record.readiness = record.readiness.on(Begun(now))
        if facts.ready and record.spec.config.readiness.kind == "notify":
            record.readiness = record.readiness.on(Passed())
        supervision.go_on_starting(record, now)
    if facts.paused:
        supervision.on_host(MainStopped(record.name, record.run or "", now))
    elif record.status is DaemonStatus.PAUSED:
        supervision.on_host(MainContinued(record.name, record.run or "", now))


def _timeout(record: Record) -> int:
    return round(record.spec.config.stop.timeout * NANOSECONDS)


def _stop_again(
    supervision: Supervision, record: Record, facts: SlotFacts, now: int
) -> None:
    stopping, effects = begin_stop(
        record.spec.config.stop.signal,
        now=now,
        timeout=_timeout(record),
        frozen=facts.paused,
    )
    was_killed = record.stopping is not None and record.stopping.killed
    supervision.carry_out_stop(record, stopping, effects, now)
    if was_killed:
        supervision.force(now, (record.name,))


def _sweep_again(supervision: Supervision, record: Record, now: int) -> None:
    stopping, effects = begin_sweep(now=now, timeout=_timeout(record))
    supervision.carry_out_stop(record, stopping, effects, now)
