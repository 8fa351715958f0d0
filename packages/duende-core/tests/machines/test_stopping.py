"""The stop ladder: its table, and any sequence of events."""

from __future__ import annotations

from typing import get_args

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from duende.core.machines.stopping import (
    STUCK_AFTER,
    Ended,
    Force,
    MainGone,
    MainHeld,
    Overdue,
    SendSignal,
    StopEffect,
    StopEvent,
    StopPhase,
    Stopping,
    Stuck,
    TreeEmpty,
    begin_stop,
    begin_sweep,
    take_over_stop,
)

TERM = SendSignal("SIGTERM", "main")
SWEEP = (SendSignal("SIGTERM", "rest"), SendSignal("SIGCONT", "rest"))
CONTINUE = (SendSignal("SIGCONT", "tree"),)
KILL = (SendSignal("SIGKILL", "tree"),)

EVENTS: dict[str, StopEvent] = {
    "gone": MainGone(0),
    "gone-left": MainGone(2),
    "held": MainHeld(),
    "empty": TreeEmpty(),
    "overdue": Overdue(100),
    "force": Force(100),
}
EFFECTS: dict[str, tuple[StopEffect, ...]] = {
    "": (),
    "ended": (Ended(False),),
    "ended-killed": (Ended(True),),
    "sweep": SWEEP,
    "continue": CONTINUE,
    "kill": KILL,
    "stuck": (Stuck(),),
}

# Next phase, and after the slash the effects. "-" changes no phase.
WRITTEN = """
phase    gone              gone-left      held       empty             overdue      force
asked    done/ended        sweeping/sweep -/continue done/ended        killing/kill killing/kill
sweeping done/ended        -              -          done/ended        killing/kill killing/kill
killing  done/ended-killed -              -          done/ended-killed stuck/stuck  -/kill
stuck    done/ended-killed -              -          done/ended-killed -            killing/kill
done     -                 -              -          -                 -            -
"""

_ROWS = [line.split() for line in WRITTEN.strip().splitlines()]
CELLS = [
    (StopPhase(row[0]), event, cell)
    for row in _ROWS[1:]
    for event, cell in zip(_ROWS[0][1:], row[1:], strict=True)
]


def test_every_pair_is_written() -> None:
    """Each phase has a cell for each kind of event."""
    assert {cell[0] for cell in CELLS} == set(StopPhase)
    kinds = {type(event) for event in EVENTS.values()}
    assert kinds == set(get_args(StopEvent))


@pytest.mark.parametrize(("phase", "event", "cell"), CELLS)
def test_cell(phase: StopPhase, event: str, cell: str) -> None:
    """The next phase and the effects are the written ones."""
    killed = phase in (StopPhase.KILLING, StopPhase.STUCK)
    waits = phase not in (StopPhase.STUCK, StopPhase.DONE)
    before = Stopping(phase, 50 if waits else None, main_gone=False, killed=killed)
    after, effects = before.on(EVENTS[event])
    following, _, effect = cell.partition("/")
    assert (phase if following == "-" else StopPhase(following)) is after.phase
    assert EFFECTS[effect] == effects
    ends = event in ("gone", "gone-left", "empty") and phase is not StopPhase.DONE
    assert ends == after.main_gone
    if after.phase in (StopPhase.DONE, StopPhase.STUCK):
        assert after.deadline is None
    elif effect == "kill":
        assert 100 + STUCK_AFTER == after.deadline
    else:
        assert before.deadline == after.deadline


def test_a_frozen_tree_is_continued() -> None:
    """What was stopped by SIGSTOP gets its signal and then SIGCONT (signal(7))."""
    _, effects = begin_stop("SIGTERM", now=0, timeout=9, frozen=True)
    assert (TERM, *CONTINUE) == effects


def test_what_stops_itself_is_continued_once() -> None:
    """A process that stops itself again and again is not answered each time."""
    stopping, _ = begin_stop("SIGTERM", now=0, timeout=9, frozen=False)
    stopping, first = stopping.on(MainHeld())
    stopping, second = stopping.on(MainHeld())
    assert (CONTINUE, ()) == (first, second)


def test_a_take_over_does_not_begin_the_time_again() -> None:
    """The signal is sent again, but the deadline stays."""
    before, _ = begin_stop("SIGINT", now=0, timeout=9, frozen=False)
    after, effects = take_over_stop(
        before, "SIGINT", now=5, timeout=9, main_gone=False, frozen=False
    )
    assert (before, (SendSignal("SIGINT", "main"),)) == (after, effects)


def test_a_take_over_of_a_sweep() -> None:
    """Where the main process has ended the rest is swept, within the same time."""
    before, _ = begin_sweep(now=0, timeout=9)
    after, effects = take_over_stop(
        before, "SIGINT", now=5, timeout=9, main_gone=True, frozen=False
    )
    assert (before, SWEEP) == (after, effects)


def test_a_take_over_kills_what_was_killed() -> None:
    """What had SIGKILL gets it again, and is stuck after the same time."""
    before = Stopping(StopPhase.STUCK, None, main_gone=True, killed=True)
    after, effects = take_over_stop(
        before, "SIGTERM", now=5, timeout=9, main_gone=True, frozen=False
    )
    assert KILL == effects
    assert (StopPhase.KILLING, 5 + STUCK_AFTER) == (after.phase, after.deadline)


def test_a_take_over_without_memory_begins_anew() -> None:
    """Without a stop to go on with, one begins."""
    after, effects = take_over_stop(
        None, "SIGTERM", now=5, timeout=9, main_gone=False, frozen=True
    )
    assert begin_stop("SIGTERM", now=5, timeout=9, frozen=True) == (after, effects)


class Ladder(RuleBasedStateMachine):
    """A tree of processes that may do anything, against the ladder."""

    @initialize(
        timeout=st.integers(1, 20),
        left=st.integers(0, 3),
        frozen=st.booleans(),
        swept=st.booleans(),
        immortal=st.booleans(),
    )
    def begin(
        self, timeout: int, left: int, frozen: bool, swept: bool, immortal: bool
    ) -> None:
        self.now, self.began, self.timeout = 0, 0, timeout
        self.main, self.left = not swept, max(left, int(swept))
        self.immortal = immortal
        self.killed_at: int | None = None
        self.rest_told = False
        self.log: list[StopEffect] = []
        if swept:
            self._take(*begin_sweep(now=0, timeout=timeout))
        else:
            self._take(*begin_stop("SIGTERM", now=0, timeout=timeout, frozen=frozen))

    def _take(self, machine: Stopping, effects: tuple[StopEffect, ...]) -> None:
        self.machine = machine
        for effect in effects:
            self.log.append(effect)
            if effect == KILL[0] and self.killed_at is None:
                self.killed_at = self.now
        self.rest_told = self.rest_told or effects[:2] == SWEEP

    def _feed(self, event: StopEvent) -> None:
        self._take(*self.machine.on(event))

    @rule(passed=st.integers(0, 10))
    def time_passes(self, passed: int) -> None:
        self.now += passed
        self._timers()

    @rule()
    def long_time_passes(self) -> None:
        self.now += STUCK_AFTER
        self._timers()

    def _timers(self) -> None:
        deadline = self.machine.deadline
        if deadline is not None and self.now >= deadline:
            self._feed(Overdue(self.now))

    @precondition(lambda self: self.main)
    @rule()
    def main_ends(self) -> None:
        self.main = False
        self._feed(MainGone(self.left))

    @precondition(lambda self: not self.main and self.left)
    @rule()
    def rest_ends(self) -> None:
        self.left = 0
        self._feed(TreeEmpty())

    @precondition(lambda self: self.main)
    @rule()
    def main_is_stopped(self) -> None:
        self._feed(MainHeld())

    @rule()
    def force(self) -> None:
        self._feed(Force(self.now))

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "machine"):
            return
        machine = self.machine
        gone = not self.main and not self.left
        assert gone == (machine.phase is StopPhase.DONE)
        assert self.log.count(Ended(True)) + self.log.count(Ended(False)) == gone
        # SIGKILL comes at the deadline at the latest, and never unasked before.
        overdue = self.now >= self.began + self.timeout
        assert gone or not overdue or self.killed_at is not None
        assert machine.killed == (self.killed_at is not None)
        waits = machine.phase not in (StopPhase.DONE, StopPhase.STUCK)
        assert waits == (machine.deadline is not None)
        if not self.main and not gone and self.killed_at is None:
            assert self.rest_told

    def teardown(self) -> None:
        """Whatever happened, two deadlines later it is over or called stuck (P5)."""
        if not hasattr(self, "machine"):
            return
        for _ in range(2):
            self.now = max(self.now, self.machine.deadline or 0)
            self._timers()
        assert self.machine.phase in (StopPhase.DONE, StopPhase.STUCK)
        before = self.machine
        self._feed(Overdue(self.now))
        assert before == self.machine
        assert attrs.asdict(before)


TestLadder = Ladder.TestCase
TestLadder.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
