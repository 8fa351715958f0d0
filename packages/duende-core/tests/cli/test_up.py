"""`duende up` with a real keeper and real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..control.fakes import until
from .test_command import duende, environment

pytestmark = pytest.mark.real

TWO = """
[daemon.one]
command = "sleep 1000"
restart = "unless-stopped"

[daemon.two]
command = "sleep 1000"
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with two daemons, of which nothing is left behind."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "duende.toml").write_text(TWO)
    yield tmp_path
    duende(tmp_path, "down", "--timeout", "1s")


def states(folder: Path) -> dict[str, str]:
    """This is the state of each daemon."""
    done = duende(folder, "ps", "-o", "json")
    rows = json.loads(done.stdout)["daemons"] if done.returncode == 0 else []
    return {row["name"]: row["state"] for row in rows}


def are(folder: Path, **expected: str) -> Callable[[], bool]:
    """This asks whether the daemons are in these states."""
    return lambda: expected == states(folder)


def test_up_does_not_wait_for_what_stays_stopped_by_hand(project: Path) -> None:
    """After down, unless-stopped keeps its intent: it is named, not waited for."""
    assert 0 == duende(project, "up", "-d").returncode
    assert 0 == duende(project, "stop", "one").returncode
    assert 0 == duende(project, "down").returncode
    done = duende(project, "up", "-d")
    assert 0 == done.returncode
    assert "one stays stopped" in done.stderr
    assert "running" == states(project)["two"]
    assert 0 == duende(project, "up", "-d", "one").returncode
    assert {"one": "running", "two": "running"} == states(project)


def test_up_starts_what_was_never_started(project: Path) -> None:
    """A second up without names starts the rest of the project."""
    assert 0 == duende(project, "up", "-d", "one").returncode
    assert {"one": "running", "two": "created"} == states(project)
    assert 0 == duende(project, "up", "-d").returncode
    assert {"one": "running", "two": "running"} == states(project)


def test_a_hang_up_without_a_terminal_stops_nothing(project: Path) -> None:
    """SIGHUP means the file where there was no terminal that could be gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "duende.core", "up"],
        cwd=project,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        until(are(project, one="running", two="running"))
        os.kill(process.pid, signal.SIGHUP)
        assert any("SIGHUP" in line for line in process.stderr)
        assert {"one": "running", "two": "running"} == states(project)
        assert process.poll() is None
    finally:
        process.terminate()
        process.stderr.close()
        assert 0 == process.wait(30)


def supervisor_pid(folder: Path) -> int:
    """This is the pid of the control plane."""
    done = duende(folder, "ps", "-o", "json")
    pid: int = json.loads(done.stdout)["supervisor"]["pid"]
    return pid


def test_a_verb_waits_for_the_supervisor_that_its_keeper_starts(project: Path) -> None:
    """In -d a dead supervisor is back at once, and a command in between finds it."""
    assert 0 == duende(project, "up", "-d").returncode
    os.kill(supervisor_pid(project), signal.SIGKILL)
    done = duende(project, "restart", "two")
    assert (0, "two: restarted\n") == (done.returncode, done.stderr)
    done = duende(project, "restart", "two", "--no-wait")
    assert (0, "two: restart was asked for\n") == (done.returncode, done.stderr)


def test_daemons_without_a_supervisor_are_not_nothing(project: Path) -> None:
    """After kill -9 of a foreground up a command is refused with 1, not with 69."""
    process = subprocess.Popen(
        [sys.executable, "-m", "duende.core", "up"],
        cwd=project,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(are(project, one="running", two="running"))
    finally:
        process.kill()
        process.wait(30)
    done = duende(project, "restart", "two")
    assert 1 == done.returncode
    assert "up -d" in done.stderr
    assert 0 == duende(project, "down").returncode
    assert 69 == duende(project, "restart", "two").returncode
