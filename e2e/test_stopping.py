"""P5, P6, P7: a stop is bounded, works in every state, and is not undone by a policy."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .project import Project, child, until
from .world import lives, read_process, tree_of

pytestmark = [pytest.mark.e2e, pytest.mark.real]

BOUND = 10.0
"""Seconds for a stop whose own timeout is half a second: far from never."""

NEVER = '["/bin/false"]'


def write_stubborn(project: Project) -> None:
    """This is a daemon that has to be killed, half a second after it was asked."""
    project.write(
        f"[daemon.a]\ncommand = {child('stubborn')}\nready = 'notify'\n"
        'stop = { timeout = "0.5s" }\n'
    )


def assert_stops(project: Project, name: str = "a") -> None:
    """This stops a daemon, in time, successfully, and nothing of it is left."""
    row = project.row(name)
    family = tree_of(row["pid"]) if row["pid"] else []
    result = project.ok("stop", name)
    assert result.seconds < BOUND
    assert "stopped" == project.row(name)["state"]
    assert [] == [each for each in family if lives(each.pid)]


def test_p5_who_ignores_the_signal_is_killed(project: Project) -> None:
    """A stop of a daemon that ignores TERM ends it in time, and says how."""
    write_stubborn(project)
    project.up()
    assert_stops(project)
    assert {"signal": "SIGKILL"} == project.row("a")["exit"]


def test_p5_children_that_ignore_the_signal_are_killed(project: Project) -> None:
    """A main process that goes politely doesn't save its stubborn children."""
    script = """sh -c 'trap "" TERM; while :; do sleep 1000; done' & wait"""
    project.write(
        f"[daemon.a]\ncommand = {json.dumps(['/bin/sh', '-c', script])}\n"
        'stop = { timeout = "0.5s" }\n'
    )
    project.up()
    until(lambda: len(tree_of(project.pid("a"))) >= 3, "its children run")
    assert_stops(project)


def test_p5_who_is_stopped_is_ended(project: Project) -> None:
    """A daemon that somebody stopped with SIGSTOP can still be ended."""
    write_stubborn(project)
    project.up()
    os.kill(project.pid("a"), signal.SIGSTOP)
    project.is_in("a", "paused")
    assert_stops(project)


def test_p5_who_is_paused_stops_politely(project: Project) -> None:
    """A paused daemon is continued, so that it can end by its own means."""
    project.write(
        "[daemon.a]\ncommand = ['/bin/sh', '-c', "
        "'''trap \"echo bye; exit 0\" TERM; while :; do sleep 0.05; done''']\n"
    )
    project.up()
    project.ok("pause", "a")
    assert_stops(project)
    assert ["bye"] == project.log("a")
    assert {"code": 0} == project.row("a")["exit"]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """This freezes a process by a cgroup of its own (cgroup v2)."""
    for top in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (top / "cgroup.procs").exists() and (top / "cgroup.controllers").exists():
            break
    else:
        pytest.skip("there is no cgroup v2 here")
    group = top / f"duende-e2e-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as err:
        pytest.skip(f"no cgroup can be made here: {err}")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.freeze").write_text("1")
        until(
            lambda: "frozen 1" in (group / "cgroup.events").read_text(), "it is frozen"
        )
        yield
    finally:
        (group / "cgroup.freeze").write_text("0")
        until(lambda: not (group / "cgroup.procs").read_text(), "the cgroup is empty")
        group.rmdir()


def test_p5_who_is_frozen_is_ended(project: Project) -> None:
    """A frozen daemon can't react to anything but SIGKILL, and gets it in time."""
    project.write('[daemon.a]\ncommand = "sleep 1000"\nstop = { timeout = "0.5s" }\n')
    project.up()
    pid = project.pid("a")
    with frozen(pid):
        assert_stops(project)


def test_p5_who_is_traced_is_ended(project: Project) -> None:
    """A daemon that a debugger holds still ends."""
    write_stubborn(project)
    project.up()
    tracer = (
        "import ctypes, os, sys, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "pid = int(sys.argv[1])\n"
        "if libc.ptrace(16, pid, None, None): sys.exit(9)\n"  # PTRACE_ATTACH
        "os.waitpid(pid, 0)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pid = project.pid("a")
    with subprocess.Popen(
        ["python3", "-c", tracer, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as debugger:
        try:
            assert debugger.stdout is not None
            if debugger.stdout.readline() != "held\n":
                pytest.skip("ptrace is not allowed here")
            result = project.run("stop", "--no-wait", "a")
            assert 0 == result.code
            until(
                lambda: (p := read_process(pid)) is None or p.state in "ZX",
                "the traced daemon is dead",
                BOUND,
            )
        finally:
            debugger.kill()
    project.is_in("a", "stopped")


def test_p5_down_is_bounded(project: Project) -> None:
    """`down` ends stubborn, stopped and healthy daemons alike, in time."""
    write_stubborn(project)
    with project.file.open("a") as stream:
        stream.write(
            f"[daemon.b]\ncommand = {child('stubborn')}\nready = 'notify'\n"
            'depends_on = ["a"]\nstop = { timeout = "0.5s" }\n'
            '[daemon.c]\ncommand = "sleep 1000"\n'
        )
    project.up()
    os.kill(project.pid("b"), signal.SIGSTOP)
    result = project.ok("down")
    assert result.seconds < BOUND


IN_EVERY_STATE = f"""
[daemon.waiting]
command = "sleep 1000"
depends_on = ["starting"]
[daemon.starting]
command = "sleep 1000"
ready = {{ exec = ["/bin/false"], timeout = "10m" }}
[daemon.running]
command = "sleep 1000"
[daemon.paused]
command = "sleep 1000"
[daemon.backoff]
command = {NEVER}
restart = {{ backoff = {{ initial = "60s" }} }}
[daemon.failed]
command = {NEVER}
restart = "never"
[daemon.stopped]
command = "true"
oneshot = true
[daemon.created]
command = "sleep 1000"
enabled = false
[daemon.other]
command = "sleep 1000"
"""
STATES = "waiting starting running paused backoff failed stopped created".split()


def test_p6_stop_works_in_every_state(project: Project) -> None:
    """Whatever a daemon is doing, a stop succeeds, and it is stopped then."""
    project.write(IN_EVERY_STATE)
    starter = project.start("up", "-d")  # it waits for what never becomes ready
    project.is_in("paused", "running")
    project.ok("pause", "paused")
    for state in STATES:
        project.is_in(state, state)
    kept = project.pid("other")
    for state in STATES:
        assert_stops(project, state)
    assert ("running", kept) == (project.row("other")["state"], project.pid("other"))
    starter.communicate(timeout=30)


def test_p6_stop_during_a_stop(project: Project) -> None:
    """Several stops at once all end well."""
    write_stubborn(project)
    project.up()
    stops = [project.start("stop", "a") for _ in range(3)]
    for each in stops:
        _, err = each.communicate(timeout=BOUND)
        assert 0 == each.returncode, err
    assert "stopped" == project.row("a")["state"]


def test_p6_stop_while_the_supervisor_is_new(project: Project) -> None:
    """A stop right after a crash of the supervisor is kept."""
    write_stubborn(project)
    project.up()
    old = project.kill_control_plane()
    project.answers_again(old)
    assert_stops(project)


def assert_stays_stopped(project: Project, name: str, seconds: str) -> None:
    """This watches a daemon for longer than its restart would have taken."""
    result = project.run("wait", "--for", "running", "--timeout", seconds, name)
    assert 124 == result.code, result
    assert "stopped" == project.row(name)["state"]


def test_p7_stop_during_backoff_is_final(project: Project) -> None:
    """A daemon that is stopped while it waits to be restarted is not restarted."""
    project.write(
        f"[daemon.a]\ncommand = {child('fail', 'times', 1)}\n"
        'restart = { policy = "always", backoff = { initial = "0.5s", jitter = 0.0 } }\n'
    )
    project.run("up", "-d")
    project.is_in("a", "backoff")
    project.ok("stop", "a")
    starts = (project.root / "times").read_text()
    assert_stays_stopped(project, "a", "2s")
    assert starts == (project.root / "times").read_text()


@pytest.mark.parametrize("policy", ["always", "on-failure", "unless-stopped"])
def test_p7_no_policy_undoes_a_stop(project: Project, policy: str) -> None:
    """Also one that ends by SIGKILL stays stopped, until it is started by hand."""
    write_stubborn(project)
    with project.file.open("a") as stream:
        stream.write(
            f'restart = {{ policy = "{policy}", backoff = {{ initial = "0s" }} }}\n'
        )
    project.up()
    project.ok("stop", "a")
    assert_stays_stopped(project, "a", "0.5s")
    project.ok("start", "a")
    assert "running" == project.row("a")["state"]


def test_p7_intent_outlives_the_supervisor_and_the_keeper(project: Project) -> None:
    """What was stopped by hand stays so, whoever dies."""
    project.write(
        '[daemon.a]\ncommand = "sleep 1000"\nrestart = "always"\n'
        '[daemon.b]\ncommand = "sleep 1000"\nrestart = "always"\n'
    )
    project.up()
    project.ok("stop", "a")
    kept = project.pid("b")
    project.answers_again(project.kill_control_plane())
    assert "stopped" == project.row("a")["state"]
    project.kill_keeper()
    until(lambda: project.run("up", "-d").code == 0, "up works again")
    assert_stays_stopped(project, "a", "0.5s")
    assert kept == project.pid("b")
    result = project.ok("up", "-d")
    assert "a stays stopped" in result.err
    project.ok("up", "-d", "a")
    assert "running" == project.row("a")["state"]


def test_p7_stop_at_the_limit(project: Project) -> None:
    """A daemon that has been given up can be stopped, and then started afresh."""
    project.write(
        f"[daemon.a]\ncommand = {child('fail', 'times', 1)}\n"
        'restart = { max_retries = 1, backoff = { initial = "0s" } }\n'
    )
    project.run("up", "-d")
    project.is_in("a", "failed")
    assert_stops(project)
    before = len((project.root / "times").read_text().splitlines())
    project.run("start", "a")
    project.is_in("a", "failed")
    assert before + 2 == len((project.root / "times").read_text().splitlines())
