"""Whose process is it: trees, left-overs, orphans, and killing all of them."""

from __future__ import annotations

import os
import signal

import pytest

from duende.core.keeper_client import KeeperRefused

from .helpers import (
    Project,
    is_alive,
    processes_with,
    wait_until,
    zombies_of,
)

pytestmark = pytest.mark.real

ESCAPE = """
import os, sys, time
def escape():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if {clean}:
                os.execve("/bin/sleep", ["sleep", "60"], {{}})
            time.sleep(60)
        os._exit(0)
    os.wait()
for _ in range(3):
    escape()
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("ready", flush=True)
time.sleep({stay})
"""


@pytest.mark.parametrize("clean", [False, True], ids=["marked", "empty environment"])
def test_the_whole_tree_is_found_and_killed(project: Project, clean: bool) -> None:
    """Children that double-forked, left the session and cleared their env are ours."""
    main = project.python("one", ESCAPE.format(clean=clean, stay=60))["pid"]

    def tree() -> list[int]:
        pids: list[int] = project.request("tree", name="one")["pids"]
        return pids if len(pids) == 5 else []

    pids = wait_until(tree, "the whole tree")
    assert pids[0] == main
    reply = project.request("signal", name="one", sig=signal.SIGKILL, scope="tree")
    assert reply["count"] == 5
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the tree")
    exited = project.wait("exit", "one")
    assert exited["signal"] == 9
    wait_until(lambda: not zombies_of(project.pid), "the end of the zombies")


def test_what_is_left_is_told_and_then_its_end(project: Project) -> None:
    """`exit` lists what still lives; `empty` follows when that is gone."""
    project.python("one", ESCAPE.format(clean=False, stay=0))
    exited = project.wait("exit", "one")
    assert exited["code"] == 0
    assert len(exited["left"]) == 4
    assert set(exited["left"]) == set(processes_with(project.mark))
    with pytest.raises(KeeperRefused) as refused:
        project.shell("one", "exit 0")
    assert refused.value.reason == "busy"
    project.request("signal", name="one", sig=signal.SIGTERM, scope="rest")
    project.wait("empty", "one")
    project.shell("one", "exit 0")
    assert project.wait("exit", "one")["left"] == []


def test_rest_spares_the_main_process(project: Project) -> None:
    """The scope `rest` is everything but the main process."""
    main = project.shell("one", "sleep 60 & sleep 61 & wait; wait; sleep 60")["pid"]
    wait_until(lambda: len(project.request("tree", name="one")["pids"]) == 3, "tree")
    reply = project.request("signal", name="one", sig=signal.SIGKILL, scope="rest")
    assert reply["count"] == 2
    assert is_alive(main)


def test_no_daemon_is_killed_for_another(project: Project) -> None:
    """Killing one tree leaves the escaped processes of another alone."""
    for name in ("one", "two"):
        project.python(name, ESCAPE.format(clean=False, stay=60))
    wait_until(lambda: len(processes_with(project.mark)) == 10, "both trees")
    project.request("signal", name="one", sig=signal.SIGKILL, scope="tree")
    project.wait("exit", "one")
    wait_until(lambda: len(processes_with(project.mark)) == 5, "one tree to be left")
    assert len(project.request("tree", name="two")["pids"]) == 5


def test_a_growing_tree_is_killed(project: Project) -> None:
    """What forks while it is listed is killed all the same."""
    # A token allows one birth, so that there are never more than 300; then all
    # sleep, and end by themselves long after this test has failed.
    script = """
import os, time
tokens, filled = os.pipe2(os.O_NONBLOCK)
os.write(filled, b"x" * 300)
try:
    while os.read(tokens, 1):
        if os.fork() == 0:
            os.setsid()
        time.sleep(0.01)
except BlockingIOError:
    time.sleep(60)
"""
    project.python("bomb", script)
    wait_until(lambda: len(processes_with(project.mark)) > 10, "some forks")
    project.request("signal", name="bomb", sig=signal.SIGKILL, scope="tree")
    project.wait("exit", "bomb")
    wait_until(lambda: not processes_with(project.mark), "the end of the bomb")


def test_a_thousand_orphans_leave_no_zombie(project: Project) -> None:
    """Everything that is re-parented to the keeper is waited for."""
    script = "for i in $(seq 1000); do (setsid true &) ; done; exit 5"
    project.shell("one", script)
    assert project.wait("exit", "one")["code"] == 5
    wait_until(lambda: not processes_with(project.mark), "the end of the orphans")
    wait_until(lambda: not zombies_of(project.pid), "the end of the zombies")


def test_an_orphan_of_nobody_is_shown_and_ends_with_the_keeper(
    project: Project,
) -> None:
    """What no slot can claim is reported, spared, and killed at `exit`."""
    script = (
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open("/dev/null", 2)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.setsid()
        time.sleep(0.5)
        os.execve("/bin/sleep", ["sleep", "61"], {"STRANGER": "%s"})
    os._exit(0)
os.wait()
"""
        % project.mark
    )
    # The keeper sees neither tree nor run id: the daemon's own is of another run.
    project.python("one", script, env={"DUENDE_RUN_ID": "another"})
    project.wait("exit", "one")
    strangers = wait_until(
        lambda: [
            pid for pid in processes_with(f"STRANGER={project.mark}") if is_alive(pid)
        ],
        "the stranger",
    )
    wait_until(
        lambda: (
            project.connect().peek().attached["orphans"]
            or project.request("tree", name="one")["pids"]
        ),
        "the stranger to be noticed",
    )
    for slot in project.connect().peek().slots:
        if slot["left"]:
            project.request("signal", name="one", sig=9, scope="tree")
            project.wait("empty", "one")
    project.request("exit")
    os.waitpid(project.pid, 0)
    project.pid = 0
    assert not any(map(is_alive, strangers))


@pytest.mark.parametrize(
    "leave",
    [
        "env -i sleep 60 > /dev/null 2>&1 &",
        "setsid env -i sleep 60 &",
        "setsid sleep 60 > /dev/null 2>&1 &",
    ],
    ids=["session", "output", "run id"],
)
def test_one_mark_is_enough_to_be_recognised(project: Project, leave: str) -> None:
    """Who keeps only its session, its output or its run id is still of its daemon."""
    project.shell("other", "sleep 60")
    # It must have become what it is to be, or it is recognised as what it was.
    settled = ' while [ "$(cat /proc/$!/comm)" != sleep ]; do :; done'
    project.shell("one", leave + settled)
    exited = project.wait("exit", "one")
    assert len(exited["left"]) == 1
    project.request("signal", name="one", sig=signal.SIGKILL, scope="tree")
    project.wait("empty", "one")
    assert not is_alive(exited["left"][0])
