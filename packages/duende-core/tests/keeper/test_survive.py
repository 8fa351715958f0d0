"""kill -9: of the control plane, of the keeper, of a keeper in the middle of a start."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duende.core.errors import AlreadyRunning
from duende.core.keeper_client import (
    KeeperLost,
    KeeperRefused,
    keeper_is_alive,
    keeper_program,
    start_keeper,
)

from .helpers import DEADLINE, Project, is_alive, processes_with, wait_until

pytestmark = pytest.mark.real


def test_a_lost_control_plane_changes_nothing(project: Project) -> None:
    """Its successor finds the same processes and the exits that were meanwhile."""
    lives = project.shell("lives", "sleep 60")["pid"]
    project.shell("ends", "read x < $WAIT; exit 7", env={"WAIT": _fifo(project)})
    project.connection.close()
    _release(project)
    wait_until(lambda: not project.connect_and_peek()["ends"]["alive"], "the exit")
    project.attach()
    slots = {slot["name"]: slot for slot in project.snapshot.slots}
    assert slots["lives"]["pid"] == lives
    assert slots["lives"]["alive"]
    assert slots["ends"]["exit"]["code"] == 7
    assert project.snapshot.attached["epoch"] == 2


def _fifo(project: Project) -> str:
    path = project.state.parent / "gate"
    if not path.exists():
        os.mkfifo(path)
    return str(path)


def _release(project: Project) -> None:
    with open(_fifo(project), "w") as gate:
        gate.write("\n")


def test_the_newer_control_plane_wins(project: Project) -> None:
    """The older connection is closed, and can do nothing any more."""
    older = project.connection
    project.attach()
    with pytest.raises(KeeperLost):
        older.request("put", name="", blob=1)
    project.shell("one", "exit 0")
    project.wait("exit", "one")


def test_a_lost_keeper_starts_nothing_twice(project: Project) -> None:
    """The next one finds the same processes, and learns true exit codes."""
    pids = {
        name: project.shell(
            name, f"read x < $WAIT; exit {code}", env={"WAIT": _fifo(project)}
        )["pid"]
        for name, code in (("a", 5), ("b", 6))
    }
    project.request("put", name="a", blob={"restarts": 3}, sync=True)
    project.kill_keeper()
    assert all(map(is_alive, pids.values()))
    project.start()
    slots = {slot["name"]: slot for slot in project.snapshot.slots}
    assert {name: slot["pid"] for name, slot in slots.items()} == pids
    assert all(slot["alive"] for slot in slots.values())
    assert slots["a"]["kill_scope"] == "session"
    assert slots["a"]["blob"] == {"restarts": 3}
    os.kill(pids["a"], signal.SIGTERM)
    assert project.wait("exit", "a")["signal"] == 15
    project.shell("a", "sleep 60")
    assert project.connect_and_peek()["a"]["kill_scope"] == "subreaper"
    _release(project)
    assert project.wait("exit", "b")["code"] == 6


def test_an_exit_that_nobody_saw_is_unknown(project: Project) -> None:
    """What ended while there was no keeper has an unknown exit, not a guessed one."""
    pid = project.shell("one", "sleep 60")["pid"]
    project.kill_keeper()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the end")
    project.start()
    wait_until(
        lambda: not project.connect_and_peek()["one"]["alive"], "the end to be seen"
    )
    found = project.connect_and_peek()["one"]["exit"]
    # A zombie that nobody waited for yet still has its true status.
    assert found["unknown"] or found["signal"] == 9
    assert found["code"] is None


def test_the_tree_of_a_survivor_is_killed_with_it(project: Project) -> None:
    """Escaped processes of a daemon of an earlier keeper are found by their marks."""
    script = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.wait()
time.sleep(60)
"""
    project.python("one", script)
    wait_until(lambda: len(processes_with(project.mark)) == 3, "the tree")
    project.kill_keeper()
    project.start()
    assert len(project.request("tree", name="one")["pids"]) == 3
    project.request("signal", name="one", sig=15, scope="main")
    exited = project.wait("exit", "one")
    assert len(exited["left"]) == 2
    project.request("signal", name="one", sig=9, scope="tree")
    project.wait("empty", "one")
    assert processes_with(project.mark) == []


def test_a_process_that_was_never_written_down_is_found(project: Project) -> None:
    """A kill between the start and the record of the pid starts nothing twice."""
    started = project.shell("one", "sleep 60", run="marked")
    project.kill_keeper()
    journal = project.state / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"t":"pid"' not in line))
    project.start()
    slot = project.connect_and_peek()["one"]
    assert (slot["alive"], slot["pid"], slot["run"]) == (True, started["pid"], "marked")


def test_an_intent_that_came_to_nothing_is_told(project: Project) -> None:
    """A start that the keeper's death prevented is a failed start."""
    started = project.shell("one", "sleep 60", run="marked")
    project.kill_keeper()
    os.kill(started["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(started["pid"]), "the end")
    journal = project.state / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"t":"pid"' not in line))
    project.start()
    slot = project.connect_and_peek()["one"]
    assert not slot["alive"]
    assert slot["failed"] is not None


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "other"}, {"pidns": 1}])
def test_a_stranger_with_the_old_pid_is_left_alone(
    project: Project, change: dict[str, object]
) -> None:
    """Pid alone proves nothing: boot, namespace and start time must be the same."""
    from duende.core.keeper import decode_journal, encode_record

    pid = project.shell("one", "sleep 60", env={"DUENDE_RUN_ID": "x"})["pid"]
    project.request("put", name="", blob=1)
    project.kill_keeper()
    journal = project.state / "journal"
    records = list(decode_journal(journal.read_bytes()))
    for record in records:
        if record["t"] in ("intent", "pid"):
            record.update({k: v for k, v in change.items() if k in record})
    journal.write_bytes(b"".join(map(encode_record, records)))
    project.start()
    slot = project.connect_and_peek()["one"]
    assert not slot["alive"]
    if "start" not in change:
        project.request("signal", name="one", sig=9, scope="tree")
        assert is_alive(pid)


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 5000, b'{"t":"slot"}\n', b"\xff" * 100, b"{" * 100_000]
)
def test_no_journal_keeps_a_keeper_from_starting(
    folders: Project, garbage: bytes
) -> None:
    """Whatever is in the file, it starts, and works."""
    folders.state.mkdir(mode=0o700)
    (folders.state / "journal").write_bytes(garbage)
    folders.start()
    folders.shell("one", "exit 4")
    assert folders.wait("exit", "one")["code"] == 4


def test_sequence_numbers_never_go_back(project: Project) -> None:
    """Events are numbered on across keepers, and epochs too."""
    project.shell("one", "exit 0")
    last = project.wait("exit", "one")["seq"]
    project.kill_keeper()
    project.start()
    assert project.snapshot.attached["epoch"] == 2
    assert project.snapshot.attached["seq"] >= last
    assert project.shell("one", "exit 0")["seq"] > last


def test_twenty_racing_starters_make_one_keeper(folders: Project) -> None:
    """Exactly one wins; the others say who did."""
    script = (
        "import sys, json\n"
        "from duende.core.keeper_client import start_keeper\n"
        "from duende.core.errors import AlreadyRunning\n"
        "sys.stdin.read(1)\n"
        "try: print(start_keeper(*sys.argv[1:3]))\n"
        "except AlreadyRunning as err: print('no', err)\n"
    )
    arguments = [sys.executable, "-c", script, str(folders.state), str(folders.runtime)]
    racers = [
        subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(20)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("x")
        racer.stdin.flush()
    said = [racer.communicate(timeout=DEADLINE)[0].strip() for racer in racers]
    winners = [text for text in said if text.isdigit()]
    alive = keeper_is_alive(folders.state)
    assert alive is not None
    try:
        assert winners == [str(alive)]
        assert len([text for text in said if f"pid {alive}" in text]) == 19
    finally:
        os.kill(alive, signal.SIGKILL)
        wait_until(lambda: not is_alive(alive), "the end of the keeper")


def test_a_second_keeper_is_refused_and_the_first_unharmed(project: Project) -> None:
    """The lock is what counts, and it says who has it."""
    with pytest.raises(AlreadyRunning, match=str(project.pid)):
        start_keeper(project.state, project.runtime)
    assert keeper_is_alive(project.state) == project.pid
    project.shell("one", "exit 0")


def test_signals_do_not_end_the_keeper(project: Project) -> None:
    """INT, TERM, HUP, QUIT and PIPE are ignored."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGPIPE,
    ):
        os.kill(project.pid, number)
    project.shell("one", "exit 0")
    assert project.wait("exit", "one")["code"] == 0


def test_it_is_in_a_session_of_its_own_with_nothing_of_ours(project: Project) -> None:
    """No terminal, no folder, no fd of the starter is kept."""
    assert os.getsid(project.pid) == project.pid
    assert os.readlink(f"/proc/{project.pid}/cwd") == "/"
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in _fds(os.getpid())}
    theirs = {os.readlink(f"/proc/{project.pid}/fd/{fd}") for fd in _fds(project.pid)}
    shared = {name for name in ours & theirs if "anon_inode" not in name}
    assert shared <= {"/dev/null"}


def _fds(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        found.append(fd)
    return found


def test_the_death_of_the_owner_ends_everything(folders: Project) -> None:
    """An embedded keeper stops its daemons, then itself, and leaves no folder."""
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folders.start(owner=owner.pid)
    assert folders.snapshot.attached["embedded"]
    polite = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    folders.shell("polite", polite)
    folders.python(
        "stubborn",
        "import signal, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)",
        stop_timeout=0.3,
    )
    wait_until(lambda: folders.log_text("stubborn"), "the stubborn one")
    owner.kill()
    owner.communicate()
    os.waitpid(folders.pid, 0)
    folders.pid = 0
    assert processes_with(folders.mark) == []
    assert not folders.state.exists()
    assert not folders.runtime.exists()
    assert not folders.state.parent.exists()


def test_the_control_plane_is_started_again(project: Project) -> None:
    """A dead control plane is started again; without `argv` it is not."""
    counter = project.state.parent / "count"
    script = f"echo x >> {counter}; echo said; exit 1"
    project.request("control", argv=["/bin/sh", "-c", script], env={"PATH": "/bin"})
    died = project.wait("control")
    assert (died["code"], died["delay"]) == (1, 1.0)
    wait_until(lambda: counter.read_text() == "x\nx\n", "the second start")
    project.wait("control", delay=2.0)
    project.request("control", argv=None, env=None)
    assert "said" in (project.state / "supervisor.log").read_text()


def test_an_exit_is_refused_while_a_daemon_lives(project: Project) -> None:
    """`exit` ends no daemon; when none lives it ends the keeper and its sockets."""
    project.shell("one", "sleep 60")
    with pytest.raises(KeeperRefused):
        project.request("exit")
    project.request("signal", name="one", sig=9, scope="tree")
    if project.wait("exit", "one")["left"]:
        project.wait("empty", "one")
    project.request("exit")
    os.waitpid(project.pid, 0)
    project.pid = 0
    assert not (project.state / "keeper.sock").exists()
    assert keeper_is_alive(project.state) is None


def test_requests_that_make_no_sense_are_answered(project: Project) -> None:
    """Every request gets its one answer, and the keeper goes on."""
    sock = project.connect().detach()[0]
    sock.settimeout(DEADLINE)
    for line in (
        b"{}",
        b"[]",
        b"nonsense",
        b'{"id":1,"op":"nope"}',
        b'{"id":2,"op":"spawn"}',
    ):
        sock.sendall(line + b"\n")
    sock.sendall(b'{"id":3,"op":"peek"}\n')
    answers: list[dict[str, Any]] = []
    stream = sock.makefile("r")
    while not answers or answers[-1].get("re") != 3:
        answers.append(json.loads(stream.readline()))
    assert [line["error"] for line in answers if line.get("re") in (1, 2)] == [
        "not attached",
        "not attached",
    ]
    stream.close()
    assert project.connect().peek().slots == ()


def test_an_endless_line_is_cut_off(project: Project) -> None:
    """A client that sends more than a mebibyte without a line end is closed."""
    sock = project.connect().detach()[0]
    sock.settimeout(DEADLINE)
    with pytest.raises(OSError):
        for _ in range(200):
            sock.sendall(b"x" * 100_000)
    assert project.connect().peek().slots == ()


def test_a_deep_state_folder_has_a_socket(tmp_path: Path) -> None:
    """A path longer than a socket's may be is no obstacle."""
    project = Project(tmp_path / ("d" * 120))
    try:
        project.start()
        project.shell("one", "exit 0")
    finally:
        project.close()


def test_the_bytecode_is_used_when_it_is_current() -> None:
    """The keeper is started from bytecode: compiling costs more than running."""
    assert keeper_program().endswith(".pyc")


def test_the_journal_is_rewritten_when_it_is_long(project: Project) -> None:
    """It does not grow without end, and the last of each thing is in it."""
    text = "x" * 50_000
    for number in range(100):
        project.connection.send(
            {"op": "put", "name": f"d{number % 3}", "blob": [number, text]}
        )
    project.request("flush", names=[])
    assert (project.state / "journal").stat().st_size < 2_000_000
    project.kill_keeper()
    project.start()
    blobs = {slot["name"]: slot["blob"][0] for slot in project.snapshot.slots}
    assert blobs == {"d0": 99, "d1": 97, "d2": 98}


def test_what_a_dead_daemon_left_is_known_to_the_next_keeper(project: Project) -> None:
    """Left-overs of a run that ended under an earlier keeper keep the slot busy."""
    project.shell("one", "setsid sleep 60 &")
    left = project.wait("exit", "one")["left"]
    project.kill_keeper()
    project.start()
    assert project.snapshot.slots[0]["left"] == left
    with pytest.raises(KeeperRefused):
        project.shell("one", "exit 0")
    project.request("signal", name="one", sig=signal.SIGKILL, scope="tree")
    project.wait("empty", "one")
    project.shell("one", "exit 0")


def test_daemons_get_the_limit_that_the_keeper_was_started_with(
    folders: Project,
) -> None:
    """The keeper raises its own soft limit of open files, never theirs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        folders.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(folders.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    for name, watchdog in (("quick", None), ("forked", 1)):
        folders.shell(name, "ulimit -Sn; ulimit -Hn", watchdog=watchdog)
        folders.wait("exit", name)
        assert folders.log_text(name).split() == ["200", str(hard)]
