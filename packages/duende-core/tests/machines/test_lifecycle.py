"""The table of a daemon's life, cell by cell."""

from __future__ import annotations

import pytest

from duende.core.errors import InvalidState
from duende.core.machines.lifecycle import ILLEGAL, TABLE, Trigger, next_status
from duende.core.types import DaemonStatus

# Columns: hold launch ready pause resume resume-unready halt rest fail retry.
# "-" changes nothing, "!" is illegal.
WRITTEN = """
created   waiting starting !       !      !       !        !        stopped failed !
waiting   -       starting !       !      !       !        !        stopped failed !
starting  waiting -        running paused -       -        stopping stopped failed backoff
running   waiting starting -       paused -       -        stopping stopped failed backoff
paused    waiting starting -       -      running starting stopping stopped failed backoff
stopping  waiting starting -       -      -       -        -        stopped failed backoff
stopped   waiting starting !       !      !       !        !        -       !      !
failed    waiting starting !       !      !       !        !        stopped -      !
backoff   waiting starting !       !      !       !        !        stopped failed -
"""

CELLS = [
    (DaemonStatus(row[0]), trigger, cell)
    for row in map(str.split, WRITTEN.strip().splitlines())
    for trigger, cell in zip(Trigger, row[1:], strict=True)
]


def test_every_pair_is_written() -> None:
    """Each status has a cell for each trigger, in the code as in this test."""
    pairs = [(status, trigger) for status in DaemonStatus for trigger in Trigger]
    assert sorted(map(str, pairs)) == sorted(str(cell[:2]) for cell in CELLS)
    assert {status: set(row) for status, row in TABLE.items()} == {
        status: set(Trigger) for status in DaemonStatus
    }


@pytest.mark.parametrize(("status", "trigger", "cell"), CELLS)
def test_cell(status: DaemonStatus, trigger: Trigger, cell: str) -> None:
    """The next status is the written one; what is illegal raises and says what."""
    if cell == "!":
        assert TABLE[status][trigger] is ILLEGAL
        with pytest.raises(InvalidState, match=f"{status.value} can't {trigger.value}"):
            next_status(status, trigger)
    else:
        expected = status if cell == "-" else DaemonStatus(cell)
        assert expected is next_status(status, trigger)


def test_whatever_lives_can_be_stopped() -> None:
    """Stopping is reachable from every status, in two steps at most (P6)."""
    for status in DaemonStatus:
        trigger = Trigger.HALT if status.has_process else Trigger.REST
        after = next_status(status, trigger)
        assert after in (DaemonStatus.STOPPING, DaemonStatus.STOPPED)
        assert next_status(after, Trigger.REST) is DaemonStatus.STOPPED
