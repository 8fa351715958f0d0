"""P3, P4: nothing is started twice, and a stranger is never signalled."""

from __future__ import annotations

import binascii
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .project import Project, child, until
from .world import lives, marked, read_process

pytestmark = [pytest.mark.e2e, pytest.mark.real]


def holders(project: Project) -> list[int]:
    """These are the processes of the daemon that live now."""
    return [
        each.pid
        for each in marked(project.mark, project.root)
        if "child.py hold" in each.command and each.state != "Z"
    ]


def write_holder(project: Project) -> None:
    """This is a daemon that notices when it runs twice."""
    project.write(
        f"[daemon.a]\ncommand = {child('hold', 'lock')}\n"
        'restart = { policy = "always", backoff = { initial = "10ms", max = "50ms" } }\n'
    )


def assert_never_double(project: Project) -> None:
    """This fails if ever two of it ran at the same time."""
    doubles = project.root / "lock.double"
    assert not doubles.exists(), doubles.read_text()


@pytest.mark.slow
def test_p3_twenty_racing_starters(project: Project) -> None:
    """Twenty `up -d` at once make one keeper, one supervisor, one daemon; all succeed."""
    write_holder(project)
    starters = [project.start("up", "-d") for _ in range(20)]
    ends = [(each.communicate(timeout=60), each.returncode) for each in starters]
    assert [0] * 20 == [code for _, code in ends], ends
    assert_never_double(project)
    assert 1 == len(holders(project))
    assert 1 == len((project.root / "lock.starts").read_text().splitlines())
    commands = [each.command for each in marked(project.mark, project.root)]
    assert 1 == sum("keeper" in text and "--state" in text for text in commands)
    assert 1 == sum("duende.core.control.plane" in text for text in commands)


@pytest.mark.slow
def test_p3_storm_of_commands(project: Project) -> None:
    """Start, stop and restart from many sides leave exactly one, and never two."""
    write_holder(project)
    project.up()
    storm = random.Random(7)
    for _ in range(3):
        verbs = [
            storm.choice(["start", "stop", "restart", "restart"]) for _ in range(8)
        ]
        running = [project.start(verb, "a") for verb in verbs]
        for each in running:
            each.communicate(timeout=60)
    project.ok("start", "a")
    assert [project.pid("a")] == holders(project)
    assert_never_double(project)


@pytest.mark.slow
def test_p3_keeper_killed_at_any_time(project: Project) -> None:
    """However a keeper dies between a fork and its record, nothing runs twice."""
    write_holder(project)
    project.up()
    storm = random.Random(11)
    for _ in range(6):
        running = [project.start("restart", "--no-wait", "a") for _ in range(2)]
        # Somewhere in the middle of what these do: a busy wait of a random length.
        for _ in range(storm.randrange(40)):
            project.row("a")
        try:
            os.kill(project.keeper_pid(), signal.SIGKILL)
        except ProcessLookupError:
            pass
        for each in running:
            each.communicate(timeout=60)
        until(lambda: project.run("up", "-d").code == 0, "up works again")
        project.is_in("a", "running")
        assert [project.pid("a")] == holders(project)
    assert_never_double(project)


def forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """This rewrites a journal's records, with right checksums."""
    lines = []
    for line in path.read_bytes().splitlines():
        record = json.loads(line)
        record.pop("crc")
        change(record)
        for inner in record.values():
            if isinstance(inner, dict):
                change(inner)
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        lines.append(body + b',"crc":"%08x"}\n' % binascii.crc32(body))
    path.write_bytes(b"".join(lines))


def kill_everything(project: Project) -> None:
    """This is a power cut: nobody has time to notice the others' end."""
    pids = [project.control_pid(), project.keeper_pid(), project.pid("a")]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    until(lambda: not any(map(lives, pids)), "all are dead")
    assert [] == marked(project.mark, project.root)


def stale_project(project: Project) -> int:
    """This runs a daemon, cuts the power, and returns the pid that was recorded."""
    write_holder(project)
    project.up()
    pid = project.pid("a")
    kill_everything(project)
    return pid


def test_p4_a_reused_pid_is_a_stranger(project: Project) -> None:
    """After a crash, whoever has the recorded pid by now is left alone."""
    old = stale_project(project)
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        try:

            def move(record: dict[str, Any]) -> None:
                if record.get("pid") == old:
                    record["pid"] = stranger.pid

            forge(project.state / "journal", move)
            project.up()
            assert stranger.pid != project.pid("a")
            assert [project.pid("a")] == holders(project)
            project.ok("stop", "a")
            project.ok("down")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_p4_after_a_reboot_nothing_recorded_lives(project: Project) -> None:
    """A pid and start time of an earlier boot mean nobody, even if both fit."""
    old = stale_project(project)
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        try:
            found = read_process(stranger.pid)
            assert found is not None

            def reboot(record: dict[str, Any]) -> None:
                if record.get("pid") == old:
                    record["pid"], record["start"] = stranger.pid, found.start
                    record["ino"] = None
                if "boot" in record:
                    record["boot"] = "11111111-2222-3333-4444-555555555555"

            forge(project.state / "journal", reboot)
            project.up()
            assert stranger.pid != project.pid("a")
            project.ok("down")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_p4_a_journal_of_garbage_harms_nobody(project: Project) -> None:
    """Whatever is in the journal, a start works and finds nothing alive."""
    stale_project(project)
    journal = project.state / "journal"
    data = bytearray(journal.read_bytes())
    storm = random.Random(3)
    for _ in range(200):
        data[storm.randrange(len(data))] = storm.randrange(256)
    journal.write_bytes(
        bytes(data[: len(data) // 2]) + b"\0" * 4096 + b'{"t":"slot"}\n'
    )
    project.up()
    assert [project.pid("a")] == holders(project)
