"""What a control plane believes, held against what the keeper says.

Used when a new control plane takes over, and when the keeper itself was lost and
another one has looked for survivors. The keeper is right about processes, the
record about intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import attrs

from duende.core.machines.effects import Spawn, TimerKind
from duende.core.machines.ending import stop_timeout
from duende.core.machines.host_events import (
    Exited,
    MainContinued,
    MainStopped,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.readiness import Begun, Passed
from duende.core.machines.record import Record
from duende.core.machines.stopping import take_over_stop
from duende.core.machines.supervision import Supervision
from duende.core.types import DaemonStatus, ExitInfo

__all__ = ("SlotFacts", "reconcile", "reconcile_all", "start_afresh")

_S = DaemonStatus


@final
@attrs.frozen(kw_only=True)
class SlotFacts:
    """This is what the keeper knows of a slot; times are monotonic nanoseconds.

    `exit` and `spawned_at` are None both when the run's program was never executed.
    """

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
    record.begin_anew()


def reconcile_all(
    supervision: Supervision, facts: Mapping[str, SlotFacts | None], now: int
) -> None:
    """This makes the records named in `facts` agree with them, and sets all going.

    A name maps to None when the keeper does not know the slot. Nothing starts before
    all are looked at: what a daemon waits for might have died in the meantime, and a
    start under way takes its place in the queue.
    """
    _reconcile(supervision, facts.items(), now)


def reconcile(
    supervision: Supervision, record: Record, facts: SlotFacts | None, now: int
) -> None:
    """This is `reconcile_all` for one record."""
    _reconcile(supervision, ((record.name, facts),), now)


def _reconcile(
    supervision: Supervision,
    facts: Iterable[tuple[str, SlotFacts | None]],
    now: int,
) -> None:
    pairs = [(supervision.records[name], known) for name, known in facts]
    supervision.hold_starts(record for record, _ in pairs)
    try:
        for record, known in pairs:
            supervision.touched.add(record.name)
            _make_agree(supervision, record, known, now)
    finally:
        supervision.let_starts_go(now)


def _make_agree(
    supervision: Supervision, record: Record, facts: SlotFacts | None, now: int
) -> None:
    if facts is not None and facts.run is not None and (facts.alive or facts.left):
        if facts.run != record.run or not record.status.has_process:
            record.run = facts.run
            supervision.adopt(record)
        if facts.alive:
            _go_on_with_main(supervision, record, facts, now)
        else:
            _go_on_with_rest(supervision, record, facts, now)
    elif record.status.has_process:
        _go_on_without(supervision, record, facts, now)
    elif record.status is _S.BACKOFF:
        at = max(now, record.next_restart_at or now)
        record.next_restart_at = at
        supervision.arm(record, TimerKind.RESTART, at)


def _go_on_with_main(
    supervision: Supervision, record: Record, facts: SlotFacts, now: int
) -> None:
    record.pid = facts.pid
    record.spawned_at = now if facts.spawned_at is None else facts.spawned_at
    record.status_text = facts.status_text
    match record.status:
        case _S.STOPPING:
            _stop_again(supervision, record, facts, now)
            return
        case _S.STARTING:
            record.readiness = record.readiness.on(Begun(now))
            if facts.ready and record.spec.config.readiness.kind == "notify":
                record.readiness = record.readiness.on(Passed())
            supervision.go_on_starting(record, now)
        case _S.RUNNING:
            supervision.go_on_running(record, now)
    run = record.run or ""
    if facts.paused:
        supervision.on_host(MainStopped(record.name, run, now))
    else:
        supervision.on_host(MainContinued(record.name, run, now))


def _go_on_with_rest(
    supervision: Supervision, record: Record, facts: SlotFacts, now: int
) -> None:
    """The main process has ended and left others."""
    stopping = record.stopping
    if record.status is _S.STOPPING and stopping is not None and stopping.main_gone:
        _stop_again(supervision, record, facts, now)
        return
    # The time for sweeping begins now, not when the main process ended.
    exited = Exited(record.name, facts.run or "", _exit(facts), facts.left, now)
    supervision.on_host(exited)


def _go_on_without(
    supervision: Supervision, record: Record, facts: SlotFacts | None, now: int
) -> None:
    """Nothing of it lives, though the record thinks so."""
    name, run = record.name, record.run or ""
    stopping = record.stopping
    if facts is None or facts.run != record.run:
        if record.spawned_at is not None:
            supervision.on_host(Exited(name, run, ExitInfo(), 0, now))
        elif record.status is _S.STOPPING or not record.wanted:
            text = "its start was never ordered"
            supervision.on_host(SpawnFailed(name, run, "fork", None, text, False, now))
        else:
            supervision.send(Spawn(name, run))
    elif facts.exit is None and facts.spawned_at is None:
        text = "it could not be started while nobody was watching"
        record.spawned_at = None
        supervision.on_host(SpawnFailed(name, run, "exec", None, text, False, now))
    elif stopping is not None and stopping.main_gone:
        supervision.on_host(TreeGone(name, run, now))
    else:
        at = now if facts.exited_at is None else min(facts.exited_at, now)
        supervision.on_host(Exited(name, run, _exit(facts), 0, at))


def _stop_again(
    supervision: Supervision, record: Record, facts: SlotFacts, now: int
) -> None:
    stopping, effects = take_over_stop(
        record.stopping,
        record.spec.config.stop.signal,
        now=now,
        timeout=stop_timeout(record),
        main_gone=not facts.alive,
        frozen=facts.paused,
    )
    supervision.carry_out_stop(record, stopping, effects, now)


def _exit(facts: SlotFacts) -> ExitInfo:
    return ExitInfo() if facts.exit is None else facts.exit
