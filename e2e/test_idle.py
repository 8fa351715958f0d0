"""P15: fifty daemons that do nothing cost nothing."""

from __future__ import annotations

import select

import pytest

from .project import Project
from .world import Effort, effort_of

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.slow]


def test_p15_idle_costs_nothing(project: Project) -> None:
    """Neither keeper nor supervisor is on a CPU even once in five seconds."""
    project.write('[daemon.idle]\ncommand = "sleep 1000"\ninstances = 50\n')
    project.up()
    project.ok("wait", "--for", "ready", "--timeout", "20s", "idle")
    pids = {"keeper": project.keeper_pid(), "supervisor": project.control_pid()}

    def efforts() -> dict[str, Effort]:
        return {who: effort_of(pid) for who, pid in pids.items()}

    # The start has after-effects for a while (stability timers of 10 s are the last):
    # the promise is about what is idle, so a quiet window has to come, and stay.
    quiet = 0
    before = efforts()
    changes = []
    for _ in range(8):
        select.select([], [], [], 2.5)
        after = efforts()
        changes += [(who, before[who], after[who]) for who in pids if before != after]
        quiet = quiet + 1 if before == after else 0
        if quiet == 2:
            break
        before = after
    assert 2 == quiet, changes[-4:]
    assert 50 == sum(row["state"] == "running" for row in project.rows().values())
