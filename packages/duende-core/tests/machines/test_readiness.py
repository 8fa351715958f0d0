"""The readiness of one start: its table, and any sequence of events."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duende.core.machines.readiness import (
    Begun,
    DeadlinePassed,
    Held,
    Passed,
    Readiness,
    ReadinessEvent,
    ReadinessPhase,
    Released,
)

TIMEOUT = 30
EVENTS: dict[str, ReadinessEvent] = {
    "begun": Begun(100),
    "passed": Passed(),
    "early": DeadlinePassed(49),
    "late": DeadlinePassed(50),
    "held": Held(),
    "released": Released(100),
}

# Every phase with a deadline has it at 50; a new one is at 100 + TIMEOUT.
WRITTEN = """
phase    begun   passed early late    held released
pending  probing ready  -     -       held probing
probing  probing ready  -     overdue held probing
held     probing ready  -     -       -    probing
ready    -       -      -     -       -    -
overdue  -       -      -     -       -    -
"""

_ROWS = [line.split() for line in WRITTEN.strip().splitlines()]
CELLS = [
    (ReadinessPhase(row[0]), event, cell)
    for row in _ROWS[1:]
    for event, cell in zip(_ROWS[0][1:], row[1:], strict=True)
]


def test_every_pair_is_written() -> None:
    """Each phase has a cell for each kind of event."""
    assert {cell[0] for cell in CELLS} == set(ReadinessPhase)
    kinds = {type(event) for event in EVENTS.values()}
    assert kinds == set(get_args(ReadinessEvent))


@pytest.mark.parametrize(("phase", "event", "cell"), CELLS)
def test_cell(phase: ReadinessPhase, event: str, cell: str) -> None:
    """The next phase is the written one, and a deadline runs only while probing."""
    deadline = 50 if phase is ReadinessPhase.PROBING else None
    before = Readiness(TIMEOUT, phase=phase, deadline=deadline)
    after = before.on(EVENTS[event])
    if cell == "-":
        assert before == after
    else:
        assert ReadinessPhase(cell) is after.phase
        probing = after.phase is ReadinessPhase.PROBING
        assert (100 + TIMEOUT if probing else None) == after.deadline


def test_without_a_check_it_is_ready_when_it_begins() -> None:
    """The kind `started` needs no check and has no deadline."""
    assert Readiness(TIMEOUT, immediate=True).on(Begun(1)).is_ready


class Way(RuleBasedStateMachine):
    """One start against a model of its deadline."""

    @initialize(timeout=st.integers(1, 20))
    def begin(self, timeout: int) -> None:
        self.now = 0
        self.timeout = timeout
        self.machine = Readiness(timeout)
        self.deadline: int | None = None
        self.final: ReadinessPhase | None = None

    def _feed(self, event: ReadinessEvent) -> None:
        self.machine = self.machine.on(event)

    @rule(passed=st.integers(0, 30))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule(released=st.booleans())
    def begins(self, released: bool) -> None:
        self._feed(Released(self.now) if released else Begun(self.now))
        self.deadline = self.now + self.timeout

    @rule()
    def passes(self) -> None:
        self._feed(Passed())
        self.final = self.final or ReadinessPhase.READY

    @rule()
    def is_held(self) -> None:
        self._feed(Held())
        self.deadline = None

    @rule()
    def timer(self) -> None:
        self._feed(DeadlinePassed(self.now))
        if self.deadline is not None and self.now >= self.deadline:
            self.final = self.final or ReadinessPhase.OVERDUE

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "machine"):
            return
        if self.final is not None:
            assert self.machine.phase is self.final
            assert self.machine.deadline is None
        else:
            assert self.machine.deadline == self.deadline


TestWay = Way.TestCase
TestWay.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
