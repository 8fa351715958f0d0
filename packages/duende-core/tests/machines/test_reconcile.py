"""A successor's beliefs against the facts, by example; the walks try the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from duende.core.config.model import ReadyConfig
from duende.core.machines.effects import Deliver, Publish, Spawn, TimerKind
from duende.core.machines.readiness import Begun, Readiness
from duende.core.machines.reconcile import (
    SlotFacts,
    reconcile,
    reconcile_all,
    start_afresh,
)
from duende.core.machines.record import Record
from duende.core.machines.restart import End, RestartState
from duende.core.machines.stopping import StopPhase, Stopping
from duende.core.types import DaemonStatus, ExitInfo, FailureReason

from .builders import SECOND, make_spec, make_supervision, statuses, take

S = DaemonStatus
NOW = 100 * SECOND
NOTIFY = ReadyConfig(notify=True, timeout=5.0)


def facts(**known: Any) -> SlotFacts:
    """A slot whose run r9 runs since the beginning, unless told."""
    slot: dict[str, Any] = {
        "run": "r9",
        "alive": True,
        "pid": 77,
        "exit": None,
        "left": 0,
        "ready": False,
        "paused": False,
        "status_text": "",
        "spawned_at": 1,
        "exited_at": None,
    }
    return SlotFacts(**{**slot, **known})


def dead(code: int = 1, **known: Any) -> SlotFacts:
    """A slot whose run r9 has ended."""
    ended = {"alive": False, "pid": None, "exit": ExitInfo(code), "exited_at": NOW - 5}
    return facts(**{**ended, **known})


def believed(status: DaemonStatus, **fields: Any) -> Record:
    """The record of `web` as a dead control plane left it, run r9 under way."""
    record = Record(make_spec("web", **fields.pop("config", {})))
    record.status, record.run, record.spawned_at = status, "r9", 1
    record.wanted = True
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def taken_over(record: Record, known: SlotFacts | None) -> Any:
    """A fresh machine that has reconciled this one record."""
    machine = make_supervision()
    machine.add(record.spec, record)
    reconcile(machine, record, known, NOW)
    return machine


def test_a_running_daemon_just_goes_on() -> None:
    """The same pid, nothing sent, nothing started; stability is counted again."""
    record = believed(S.RUNNING, retry=RestartState(attempts=3))
    machine = taken_over(record, facts())
    assert [] == take(machine, Spawn)
    assert (77, S.RUNNING) == (record.pid, record.status)
    assert NOW + 10 * SECOND == record.timers[TimerKind.STABLE]


def test_an_exit_nobody_saw_is_judged_by_policy() -> None:
    """The true exit code counts, and the back-off began when it ended."""
    record = believed(S.RUNNING)
    taken_over(record, dead(3))
    assert (S.BACKOFF, ExitInfo(3)) == (record.status, record.exit)
    assert NOW - 5 + SECOND == record.next_restart_at


def test_left_overs_are_swept_from_now_on() -> None:
    """Their time begins at the take-over, not when the main process ended."""
    record = believed(S.RUNNING)
    machine = taken_over(record, dead(1, left=2, exited_at=1))
    assert NOW + 10 * SECOND == record.timers[TimerKind.STOP]
    assert ["SIGTERM", "SIGCONT"] == [e.signal for e in take(machine, Deliver)]


def test_an_unknown_exit_is_a_failure() -> None:
    """And a oneshot is not run again by itself."""
    record = believed(S.RUNNING, config={"oneshot": True})
    taken_over(record, dead(exit=ExitInfo()))
    assert (S.FAILED, FailureReason.UNKNOWN) == (record.status, record.failure)


@pytest.mark.parametrize("known", [None, facts(run="r8", alive=False)])
def test_an_order_that_was_lost_is_given_again(known: SlotFacts | None) -> None:
    """The keeper never heard of this start: the same run is ordered once more."""
    record = believed(S.STARTING, spawned_at=None)
    assert [Spawn("web", "r9")] == take(taken_over(record, known), Spawn)


@pytest.mark.parametrize("status", [S.STARTING, S.STOPPING])
def test_a_lost_order_for_the_unwanted_is_dropped(status: DaemonStatus) -> None:
    """What is not wanted any more is at rest, and not started first (P7)."""
    stopping = Stopping(StopPhase.ASKED, NOW, False) if status is S.STOPPING else None
    record = believed(status, spawned_at=None, wanted=False, stopping=stopping)
    assert [] == take(taken_over(record, None), Spawn)
    assert S.STOPPED is record.status


def test_a_running_daemon_that_the_keeper_forgot_has_an_unknown_end() -> None:
    """It is not silently taken for running, nor the same run started again."""
    record = believed(S.RUNNING)
    assert [] == take(taken_over(record, None), Spawn)
    assert (S.BACKOFF, FailureReason.UNKNOWN) == (record.status, record.failure)


def test_a_start_that_failed_unseen_is_no_exit() -> None:
    """Never executed: could-not-start, and no exit is told."""
    record = believed(S.STARTING, spawned_at=None, config={"oneshot": True})
    machine = taken_over(record, dead(exit=None, spawned_at=None, exited_at=None))
    assert (S.BACKOFF, FailureReason.SPAWN) == (record.status, record.failure)
    assert [] == [e for e in take(machine, Publish) if e.type == "exit"]


def test_readiness_goes_on() -> None:
    """READY=1 that came meanwhile counts; else the deadline begins again."""
    record = believed(S.STARTING, config={"ready": NOTIFY})
    taken_over(record, facts())
    assert NOW + 5 * SECOND == record.timers[TimerKind.READY]
    record = believed(S.STARTING, config={"ready": NOTIFY})
    taken_over(record, facts(ready=True))
    assert S.RUNNING is record.status


def test_pausing_goes_on() -> None:
    """What was stopped or continued meanwhile is seen."""
    record = believed(S.RUNNING)
    taken_over(record, facts(paused=True))
    assert S.PAUSED is record.status
    record = believed(S.PAUSED, config={"ready": NOTIFY})
    taken_over(record, facts())
    assert (S.STARTING, NOW + 5 * SECOND) == (
        record.status,
        record.timers[TimerKind.READY],
    )


def test_a_stop_keeps_its_deadline_and_what_follows() -> None:
    """A crash of ours prolongs no stop, and a killed one's restart is not forgotten."""
    stopping = Stopping(StopPhase.ASKED, NOW + 2, main_gone=False)
    record = believed(S.STOPPING, stopping=stopping, relaunch=True)
    taken_over(record, facts())
    assert NOW + 2 == record.timers[TimerKind.STOP]
    stopping = Stopping(StopPhase.KILLING, NOW + 2, main_gone=False, killed=True)
    record = believed(S.STOPPING, stopping=stopping, relaunch=True)
    machine = taken_over(record, facts())
    assert ["SIGKILL"] == [effect.signal for effect in take(machine, Deliver)]
    assert record.relaunch


def test_the_end_of_a_sweep_is_no_second_exit() -> None:
    """The main process's exit was told before; now the tree is empty as well."""
    stopping = Stopping(StopPhase.SWEEPING, NOW + 2, main_gone=True)
    record = believed(S.STOPPING, stopping=stopping, wanted=False)
    machine = taken_over(record, dead())
    assert S.STOPPED is record.status
    assert [] == [e for e in take(machine, Publish) if e.type == "exit"]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_process_that_nobody_expected(wanted: bool) -> None:
    """Something lives in a slot that should be empty: adopted, or stopped (P1, P3)."""
    record = believed(S.BACKOFF, wanted=wanted, run="r1", next_restart_at=NOW)
    machine = taken_over(record, facts())
    assert [] == take(machine, Spawn)
    assert ("r9", S.RUNNING if wanted else S.STOPPING) == (record.run, record.status)
    record = believed(S.STOPPED, wanted=False)
    taken_over(record, dead(left=2))
    assert S.STOPPING is record.status


def test_a_due_restart_is_due_at_once() -> None:
    """Overdue restarts start at the take-over, others when they are due."""
    record = believed(S.BACKOFF, next_restart_at=NOW - 7)
    taken_over(record, dead())
    assert NOW == record.timers[TimerKind.RESTART]
    record = believed(S.BACKOFF, next_restart_at=NOW + 7)
    taken_over(record, dead())
    assert NOW + 7 == record.timers[TimerKind.RESTART]


def test_nothing_starts_before_all_were_looked_at() -> None:
    """`web` waits for two; one is believed to be ready but has died."""
    machine = make_supervision()
    specs = [
        make_spec("web", {"a": "ready", "b": "ready"}),
        make_spec("a", ready=NOTIFY),
        make_spec("b", ready=NOTIFY),
    ]
    for spec in specs:
        record = Record(spec)
        record.wanted, record.run, record.spawned_at = True, "r9", 1
        record.status = S.WAITING if spec.name == "web" else S.STARTING
        machine.add(spec, record)
    known = {"web": None, "a": facts(ready=True), "b": dead(0)}
    reconcile_all(machine, known, NOW)
    assert {"web": S.WAITING, "a": S.RUNNING, "b": S.BACKOFF} == statuses(machine)
    assert [] == take(machine, Spawn)


def test_an_interrupted_shutdown_goes_on_in_order() -> None:
    """What is unwanted ends after what depends on it."""
    machine = make_supervision()
    for spec in (make_spec("db"), make_spec("web", {"db": "ready"})):
        record = Record(spec)
        record.status, record.run, record.spawned_at = S.RUNNING, "r9", 1
        machine.add(spec, record)
    reconcile_all(machine, {"db": facts(), "web": facts()}, NOW)
    assert {"db": S.RUNNING, "web": S.STOPPING} == statuses(machine)


def test_afresh_keeps_identity_and_the_hand() -> None:
    """A life that is over is forgotten, but not who stopped it nor what is done."""
    record = believed(S.FAILED, by_hand=True, completed=True, restarts=4)
    before = record.id
    start_afresh(record)
    assert (before, True, True) == (record.id, record.by_hand, record.completed)
    assert (S.CREATED, 0, None, False) == (
        record.status,
        record.restarts,
        record.run,
        record.wanted,
    )


def test_a_blob_carries_all_but_what_the_keeper_knows() -> None:
    """Every field comes back, except pid, timers and what is learnt anew."""
    record = believed(
        S.STOPPING,
        by_hand=True,
        readiness=Readiness(30 * SECOND, immediate=True).on(Begun(1)),
        restarts=3,
        retry=RestartState(2, (5, 6)),
        exit=ExitInfo(None, 9, oom=True),
        failure=FailureReason.OOM,
        reason="oom: out of memory",
        completed=True,
        first_try_failed=True,
        stopping=Stopping(StopPhase.KILLING, 9, main_gone=True, killed=True),
        goal=End(FailureReason.NOT_READY, "not ready", permanent=True),
        relaunch=True,
        main_told=True,
        next_restart_at=8,
        started_at=1.5,
        status_text="busy",
    )
    blob = json.loads(json.dumps(record.to_blob()))
    read = Record.from_blob(record.spec, blob)
    forgotten = {
        "healthy",
        "pid",
        "reloading",
        "reloads",
        "signalled_at",
        "timers",
        "waits_for",
    }
    for field in set(Record.__slots__) - forgotten:
        assert getattr(record, field) == getattr(read, field), field


def test_a_blob_that_is_none_is_refused() -> None:
    """What is cut short or of another shape raises one of the named errors."""
    spec = make_spec("web")
    blob = json.loads(json.dumps(believed(S.STOPPING).to_blob()))
    for key, wrong in [
        ("status", "asleep"),
        ("stopping", ["asked"]),
        ("attempts", None),
        ("goal", 7),
    ]:
        with pytest.raises((KeyError, TypeError, ValueError)):
            Record.from_blob(spec, {**blob, key: wrong})
    for key in blob:
        cut = {other: value for other, value in blob.items() if other != key}
        with pytest.raises(KeyError):
            Record.from_blob(spec, cut)
