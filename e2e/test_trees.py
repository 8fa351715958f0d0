"""P1, P2: what a daemon started ends with it, and nothing is left unwaited for."""

from __future__ import annotations

import os
import signal

import pytest

from .project import Project, child, until
from .world import lives, marked, zombies_of

pytestmark = [pytest.mark.e2e, pytest.mark.real]

KINDS = ("plain", "setsid", "double", "bare")


def members(project: Project, name: str) -> dict[str, int]:
    """This reads who the tree says it is."""
    lines = (project.root / name).read_text().splitlines()
    return {kind: int(pid) for kind, pid in map(str.split, lines)}


def write_tree(project: Project, *kinds: str) -> None:
    """This is a daemon with children that try to get away, and one beside it."""
    project.write(
        f"[daemon.a]\ncommand = {child('tree', 'a.pids', *kinds)}\n"
        'ready = "notify"\nstop = { timeout = "5s" }\n'
        'restart = { policy = "always", backoff = { initial = "0s" } }\n'
        f"[daemon.b]\ncommand = {child('tree', 'b.pids', *kinds)}\nready = 'notify'\n"
    )


def test_p1_stop_ends_the_whole_tree(project: Project) -> None:
    """Forked, setsid and double-forked children end with their daemon, no other's."""
    write_tree(project, *KINDS)
    project.up()
    mine, others = members(project, "a.pids"), members(project, "b.pids")
    assert {*KINDS, "main"} == mine.keys()
    assert all(lives(pid) for pid in mine.values())
    project.ok("stop", "a")
    assert {} == {kind: pid for kind, pid in mine.items() if lives(pid)}
    assert all(lives(pid) for pid in others.values())
    project.ok("down")
    assert {} == {kind: pid for kind, pid in others.items() if lives(pid)}


def test_p1_crash_ends_the_whole_tree(project: Project) -> None:
    """What a killed daemon leaves behind is gone before it is started again."""
    write_tree(project, *KINDS)
    project.up()
    mine, others = members(project, "a.pids"), members(project, "b.pids")
    (project.root / "a.pids").unlink()
    os.kill(mine["main"], signal.SIGKILL)
    project.comes_back("a", mine["main"])
    assert {} == {kind: pid for kind, pid in mine.items() if lives(pid)}
    again = members(project, "a.pids")
    assert all(lives(pid) for pid in again.values())
    assert all(lives(pid) for pid in others.values())


def test_p1_survivors_of_the_keeper_end_too(project: Project) -> None:
    """A tree that an earlier keeper started ends as one, escapees included."""
    write_tree(project, "plain", "setsid", "double")
    project.up()
    mine = members(project, "a.pids")
    project.kill_keeper()
    project.run("up", "-d")
    until(lambda: project.row("a").get("state") == "running", "a was taken over")
    assert mine["main"] == project.pid("a")
    project.ok("stop", "a")
    assert {} == {kind: pid for kind, pid in mine.items() if lives(pid)}


def test_p1_what_nobody_can_claim_is_ended_at_the_latest_with_the_keeper(
    project: Project,
) -> None:
    """A process without a trace of its origin doesn't outlive the project."""
    write_tree(project, "mute")
    project.up()
    mine, others = members(project, "a.pids"), members(project, "b.pids")
    project.ok("stop", "a")
    assert lives(others["mute"])
    project.ok("down")
    assert not lives(mine["mute"])
    assert [] == marked(project.mark, project.root)


def test_p1_ps_says_which_kill_scope_is_in_force(project: Project) -> None:
    """The table of daemons names the means by which a tree is found."""
    write_tree(project, "plain")
    project.up()
    assert "subreaper" == project.row("a")["kill_scope"]


def test_p1_a_daemon_that_goes_to_the_background_is_told_of(project: Project) -> None:
    """A main process that ends with 0 and leaves others behind is failed, with a hint."""
    project.write(
        "[daemon.a]\n"
        """command = ["/bin/sh", "-c", "sleep 1000 & exit 0"]\n"""
        'restart = "always"\n'
    )
    project.run("up", "-d")
    row = project.is_in("a", "failed")
    assert "foreground" in row["reason"]
    until(
        lambda: (
            not [p for p in marked(project.mark, project.root) if "1000" in p.command]
        ),
        "what it left behind is gone",
    )


@pytest.mark.slow
def test_p2_no_zombie(project: Project) -> None:
    """Thousands of orphans are all waited for."""
    project.write(
        f"[daemon.a]\ncommand = {child('orphans', 3000)}\n"
        'ready = { notify = true, timeout = "60s" }\n'
    )
    project.up()
    keeper = project.keeper_pid()
    until(lambda: not zombies_of(keeper), "the keeper waited for all", seconds=5.0)
    assert [project.pid("a")] == [
        each.pid
        for each in marked(project.mark, project.root)
        if "child.py" in each.command
    ]
