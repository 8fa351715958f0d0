"""P11 and `up` itself: whoever of us is killed, the world stays as it is."""

from __future__ import annotations

import os
import signal

import pytest

from .project import Project, child, until
from .world import lives, marked

pytestmark = [pytest.mark.e2e, pytest.mark.real]

FILE = (
    f"[daemon.a]\ncommand = {child('counting')}\n"
    'restart = { policy = "always", backoff = { initial = "0s" } }\n'
    f"[daemon.b]\ncommand = {child('gate', 5)}\nrestart = 'never'\n"
    '[daemon.c]\ncommand = "sleep 1000"\n'
)


def world(project: Project) -> dict[str, object]:
    """This is what has to stay the same."""
    return {
        name: (row["pid"], row["restarts"], row["state"])
        for name, row in project.rows().items()
    }


def crash_once(project: Project, name: str) -> None:
    """This gives a daemon a restart to be remembered."""
    pid = project.pid(name)
    os.kill(pid, signal.SIGKILL)
    project.comes_back(name, pid)


def test_p11_background_supervisor_comes_back_by_itself(project: Project) -> None:
    """Same pids, same counts, the true exit code of what ended in between."""
    project.write(FILE)
    project.up()
    crash_once(project, "a")
    before = world(project)
    assert 1 == project.row("a")["restarts"]
    old = project.control_pid()
    os.kill(old, signal.SIGKILL)
    (project.root / "end").touch()
    pid_b = before.pop("b")[0]  # type: ignore[index]
    until(lambda: not lives(pid_b), "b has ended without a supervisor")
    project.answers_again(old)
    row = project.is_in("b", "failed")
    assert {"code": 5} == row["exit"]
    after = world(project)
    del after["b"]
    assert before == after
    ids = [event["seq"] for event in project.events()]
    assert sorted(set(ids)) == ids


def test_p11_without_a_supervisor_ps_and_logs_still_tell(project: Project) -> None:
    """With the keeper alone, reading verbs answer from its records, with a warning."""
    project.write(FILE)
    with project.foreground() as process:
        project.is_in("a", "running")
        pid = project.pid("a")
        process.kill()
        process.wait()
        shown = project.ok("ps", "-o", "json")
        assert "warning" in shown.err
        found = {row["name"]: row for row in shown.json()["daemons"]}
        assert (pid, "running") == (found["a"]["pid"], found["a"]["state"])
        assert "line 00000000" in project.ok("logs", "a").out
        # `down` takes over first.
        project.ok("down")
        assert not lives(pid)


def test_p11_next_foreground_up_takes_over(project: Project) -> None:
    """A foreground `up` that is killed leaves its daemons; the next one has them back."""
    project.write(FILE)
    with project.foreground() as first:
        project.is_in("c", "running")
        crash_once(project, "a")
        before = world(project)
        first.kill()
        first.wait()
    (project.root / "end").touch()
    pid_b = before.pop("b")[0]  # type: ignore[index]
    until(lambda: not lives(pid_b), "b has ended without a supervisor")
    with project.foreground() as second:
        row = project.is_in("b", "failed")
        assert {"code": 5} == row["exit"]
        after = world(project)
        del after["b"]
        assert before == after
        second.send_signal(signal.SIGTERM)
        assert 0 == second.wait(timeout=30)
    assert [] == project.leftovers()


def test_p11_kill_of_the_keeper(project: Project) -> None:
    """Survivors are adopted, nothing runs twice, nobody gets SIGPIPE, exits are true."""
    project.write(FILE)
    project.up()
    crash_once(project, "a")
    before = world(project)
    old = project.kill_keeper()
    until(lambda: project.run("up", "-d").code == 0, "up works again")
    assert old != project.keeper_pid()
    until(lambda: world(project) == before, "the world is as before")
    names = [
        p.command for p in marked(project.mark, project.root) if "child.py" in p.command
    ]
    assert 2 == len(names), names
    count = len(project.log("a"))
    until(lambda: len(project.log("a")) > count + 20, "a still writes")
    (project.root / "end").touch()
    row = project.is_in("b", "failed")
    assert row["exit"] in ({"code": 5}, {"unknown": True})


def test_p11_kill_of_both(project: Project) -> None:
    """Keeper and supervisor die at once: the next `up -d` has the same daemons."""
    project.write(FILE)
    project.up()
    before = world(project)
    keeper, plane = project.keeper_pid(), project.control_pid()
    for pid in (keeper, plane):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(keeper) and not lives(plane), "both are dead")
    project.up()
    until(lambda: world(project) == before, "the world is as before")


@pytest.mark.slow
def test_p11_kills_at_many_moments(project: Project) -> None:
    """A supervisor that is killed while it works leaves nothing undone or doubled."""
    project.write(
        f"[daemon.a]\ncommand = {child('hold', 'lock')}\n"
        'restart = { policy = "always", backoff = { initial = "0s" } }\n'
    )
    project.up()
    for moment in range(5):
        old = project.control_pid()
        asked = project.start("restart", "a")
        for _ in range(moment):
            project.row("a")
        try:
            os.kill(old, signal.SIGKILL)
        except ProcessLookupError:
            pass
        asked.communicate(timeout=30)
        project.up()
        project.is_in("a", "running")
    assert not (project.root / "lock.double").exists()
    assert 1 == len(
        [p for p in marked(project.mark, project.root) if "child.py hold" in p.command]
    )


def test_up_in_the_foreground_stops_in_order(project: Project) -> None:
    """SIGINT stops dependents first; the exit code is 0 and nothing is left."""
    project.write(
        '[daemon.db]\ncommand = "sleep 1000"\n'
        '[daemon.web]\ncommand = "sleep 1000"\ndepends_on = ["db"]\n'
    )
    with project.foreground() as process:
        project.is_in("web", "running")
        events = project.state / "events.jsonl"
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(timeout=30)
    text = events.read_text().splitlines()
    exits = [line for line in text if '"type":"exit"' in line]
    assert ["web", "db"] == [
        "web" if '"daemon":"web"' in line else "db" for line in exits
    ]
    assert [] == project.leftovers()


def test_up_in_the_foreground_kills_at_the_second_interrupt(project: Project) -> None:
    """A second SIGINT doesn't wait for a stubborn daemon's timeout."""
    project.write(
        f"[daemon.a]\ncommand = {child('stubborn')}\nready = 'notify'\n"
        'stop = { timeout = "10m" }\n'
    )
    with project.foreground() as process:
        project.is_in("a", "running")
        process.send_signal(signal.SIGINT)
        project.is_in("a", "stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 1, 130)
    assert [] == project.leftovers()


def test_up_again_is_refused_in_the_foreground_and_waits_in_the_background(
    project: Project,
) -> None:
    """A second foreground `up` says so, 1; the first is unharmed; `up -d` is content."""
    project.write('[daemon.a]\ncommand = "sleep 1000"\n')
    with project.foreground() as process:
        project.is_in("a", "running")
        pid = project.pid("a")
        second = project.run("up")
        assert 1 == second.code
        assert "running already" in second.err
        project.up()
        assert process.poll() is None
        assert pid == project.pid("a")
        project.file.write_text(project.file.read_text() + "\n# changed\n")
        changed = project.run("up", "-d")
        assert 1 == changed.code
        assert "duende apply" in changed.err
        assert pid == project.pid("a")


def test_up_d_detaches_wholly(project: Project) -> None:
    """What runs in the background has its own session, and none of the caller's fds."""
    project.write('[daemon.a]\ncommand = "sleep 1000"\n')
    # `run` waits for the end of its pipes: it would not return if anybody kept them.
    project.up()
    caller = os.getsid(0)
    pids = [project.keeper_pid(), project.control_pid(), project.pid("a")]
    assert caller not in [os.getsid(pid) for pid in pids]
    assert 3 == len({os.getsid(pid) for pid in pids})
