"""P9: ready means ready, and a readiness that never comes blocks nothing for ever."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from .project import Project, child, until

pytestmark = [pytest.mark.e2e, pytest.mark.real]


def test_p9_slow(project: Project) -> None:
    """Who depends on a slow one is started when that is ready, and not before."""
    project.write(
        f"[daemon.db]\ncommand = {child('late', 'signpost')}\nready = 'notify'\n"
        f"[daemon.web]\ncommand = {child('hold', 'web')}\ndepends_on = ['db']\n"
    )
    starter = project.start("up", "-d")
    project.is_in("db", "starting")
    row = project.is_in("web", "waiting")
    assert "db" in row["reason"]
    assert not (project.root / "web.starts").exists()
    assert starter.poll() is None
    (project.root / "signpost").touch()
    out, err = starter.communicate(timeout=30)
    assert 0 == starter.returncode, err
    assert project.row("db")["ready"]
    assert project.row("web")["ready"]
    order = [
        (event["daemon"], event["to"])
        for event in project.events(kind="state")
        if event["to"] in ("running", "starting")
    ]
    assert order.index(("db", "running")) < order.index(("web", "starting"))


def test_p9_never(project: Project) -> None:
    """It is given up in time; what depends on it isn't started, all else is."""
    project.write(
        f"[daemon.db]\ncommand = {child('late', 'signpost')}\n"
        'ready = { notify = true, timeout = "0.5s" }\nrestart = "never"\n'
        f"[daemon.web]\ncommand = {child('hold', 'web')}\ndepends_on = ['db']\n"
        f"[daemon.other]\ncommand = {child('hold', 'other')}\n"
    )
    result = project.run("up", "-d", timeout=30)
    assert 1 == result.code
    assert "db" in result.err
    assert "not ready within 0.5 s" in result.err
    assert "failed" == project.row("db")["state"]
    assert "running" == project.row("other")["state"]
    assert not (project.root / "web.starts").exists()
    assert 1 == project.run("wait", "--for", "ready", "--timeout", "5s", "db").code


def test_p9_never_is_a_failure_that_is_retried(project: Project) -> None:
    """A missed deadline counts for the restart policy, and a later start may do it."""
    project.write(
        f"[daemon.db]\ncommand = {child('late', 'signpost')}\n"
        'ready = { notify = true, timeout = "0.3s" }\n'
        'restart = { backoff = { initial = "0.05s" } }\n'
    )
    result = project.run("up", "-d", timeout=30)
    assert 1 == result.code
    until(lambda: project.row("db").get("restarts", 0) >= 2, "it was tried again")
    (project.root / "signpost").touch()
    project.ok("wait", "--for", "ready", "--timeout", "20s", "db")


def test_p9_flapping(project: Project) -> None:
    """A check that passes once makes ready once; that it fails later starts nothing anew."""
    project.write(
        f"[daemon.a]\ncommand = {child('listen', 'a.sock')}\nready = 'unix:a.sock'\n"
        f"[daemon.b]\ncommand = {child('hold', 'b')}\ndepends_on = ['a']\n"
    )
    starter = project.start("up", "-d")
    project.is_in("a", "starting")
    assert "starting" == project.row("a")["state"]
    for number in range(3):
        (project.root / "open").touch()
        until(lambda: (project.root / "a.sock").exists(), "it listens")
        if not number:
            project.ok("wait", "--for", "ready", "--timeout", "20s", "a", "b")
        (project.root / "open").unlink()
        until(lambda: not (project.root / "a.sock").exists(), "it has closed")
    starter.communicate(timeout=30)
    assert 0 == starter.returncode
    assert project.row("a")["ready"]
    assert 1 == len((project.root / "b.starts").read_text().splitlines())
    assert 1 == len([e for e in project.events("a", "state") if e["to"] == "running"])


def test_p9_exit_0_before_ready(project: Project) -> None:
    """Success is no readiness: it counts as a failure, and dependents aren't started."""
    project.write(
        '[daemon.a]\ncommand = "true"\nready = { exec = ["false"] }\nrestart = "never"\n'
        f"[daemon.b]\ncommand = {child('hold', 'b')}\ndepends_on = ['a']\n"
    )
    result = project.run("up", "-d", timeout=30)
    assert 1 == result.code
    row = project.is_in("a", "failed")
    assert {"code": 0} == row["exit"]
    assert "before it was ready" in row["reason"]
    assert not (project.root / "b.starts").exists()


def test_p9_nobody_else_can_say_ready(project: Project) -> None:
    """READY=1 from a process outside of the daemon's tree is not believed."""
    project.write(
        f"[daemon.a]\ncommand = {child('late', 'signpost')}\nready = 'notify'\n"
        f"[daemon.b]\ncommand = {child('late', 'signpost.b')}\nready = 'notify'\n"
    )
    starter = project.start("up", "-d")
    project.is_in("a", "starting")
    project.is_in("b", "starting")
    pid = until(lambda: project.row("a")["pid"], "it has a process")
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    [path] = [each[14:] for each in environment if each.startswith(b"NOTIFY_SOCKET=")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", path)
    # The keeper handles datagrams in order of arrival per turn: b's real one is later.
    (project.root / "signpost.b").touch()
    project.ok("wait", "--for", "ready", "--timeout", "20s", "b")
    assert not project.row("a")["ready"]
    (project.root / "signpost").touch()
    project.ok("wait", "--for", "ready", "--timeout", "20s", "a")
    starter.communicate(timeout=30)


def test_p9_a_restart_has_to_become_ready_again(project: Project) -> None:
    """Readiness belongs to a run: a crash takes it away until the next one has it."""
    project.write(
        f"[daemon.a]\ncommand = {child('late', 'signpost')}\nready = 'notify'\n"
        'restart = { backoff = { initial = "0s" } }\n'
    )
    (project.root / "signpost").touch()
    project.up()
    pid = project.pid("a")
    (project.root / "signpost").unlink()
    os.kill(pid, signal.SIGKILL)
    until(lambda: project.row("a").get("pid") not in (pid, None), "it runs again")
    row = project.row("a")
    assert ("starting", False) == (row["state"], row["ready"])
    (project.root / "signpost").touch()
    project.comes_back("a", pid)
