"""The notify sockets: who is heard, what is remembered, and what does no harm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from .helpers import Project, is_alive, wait_until

pytestmark = pytest.mark.real

SENDER = """
import array, os, select, socket, sys, time
def notify(text, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sock.sendmsg([text.encode()], rights if fds else [], 0, os.environ["NOTIFY_SOCKET"])
"""


def test_ready_and_status_are_told_and_remembered(project: Project) -> None:
    """The control plane hears it, and one that attaches later sees it."""
    script = SENDER + 'notify("READY=1\\nSTATUS=all is well"); time.sleep(60)'
    pid = project.python("one", script)["pid"]
    event = project.wait("notify", "one")
    assert (event["pid"], event["text"]) == (pid, "READY=1\nSTATUS=all is well")
    slot = project.connect().peek().slots[0]
    assert (slot["ready"], slot["status_text"]) == (True, "all is well")


def test_last_words_come_before_the_exit(project: Project) -> None:
    """What was sent just before the end is told before the end."""
    project.python("one", SENDER + 'notify("STOPPING=1"); os._exit(3)')
    while True:
        project.events += project.connection.receive_lines()
        kinds = [event["ev"] for event in project.events if "ev" in event]
        if "exit" in kinds:
            break
    assert kinds == ["notify", "exit"]


def test_a_child_of_the_daemon_may_speak(project: Project) -> None:
    """Every process of the tree is heard, also one that left the session."""
    script = (
        SENDER
        + """
if os.fork() == 0:
    os.setsid()
    notify("READY=1")
    time.sleep(60)
time.sleep(60)
"""
    )
    pid = project.python("one", script)["pid"]
    assert project.wait("notify", "one")["pid"] != pid


def test_a_stranger_is_not_heard(project: Project) -> None:
    """A process outside the tree, of the same user, changes nothing."""
    # The socket is a queue: when the daemon's own word is heard, the lie sent before
    # it was handled too.
    script = (
        SENDER
        + """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(os.environ["NOTIFY_SOCKET"], flush=True)
signal.sigwait({signal.SIGUSR1})
notify("STATUS=mine")
time.sleep(60)
"""
    )
    pid = project.python("one", script)["pid"]
    address = wait_until(lambda: project.log_text("one").strip(), "the address")
    env = {**os.environ, "NOTIFY_SOCKET": address}
    lie = SENDER + 'notify("READY=1"); print("sent", flush=True); time.sleep(60)'
    with subprocess.Popen(
        [sys.executable, "-c", lie], env=env, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"sent\n"
        os.kill(pid, signal.SIGUSR1)
        heard = project.wait("notify", "one")
        stranger.kill()
    slot = project.connect_and_peek()["one"]
    assert (heard["text"], slot["ready"]) == ("STATUS=mine", False)


def test_the_barrier_waits_for_what_was_sent_before(project: Project) -> None:
    """The fd of BARRIER=1 is closed, and only after earlier messages were handled."""
    script = (
        SENDER
        + """
notify("STATUS=first")
reading, writing = os.pipe()
notify("BARRIER=1", [writing])
os.close(writing)
poller = select.poll()
poller.register(reading, 0)
print("closed" if poller.poll(10_000) else "open", flush=True)
time.sleep(60)
"""
    )
    project.python("one", script)
    wait_until(lambda: project.log_text("one"), "the report")
    assert project.log_text("one") == "closed\n"
    assert project.wait("notify", "one")["text"] == "STATUS=first"


def test_hostile_datagrams_do_no_harm(project: Project) -> None:
    """Too long, full of fds, not UTF-8, a flood: the socket is drained, nothing leaks."""
    before = len(os.listdir(f"/proc/{project.pid}/fd"))
    script = (
        SENDER
        + """
notify("X=" + "y" * 10_000)
null = os.open("/dev/null", os.O_RDWR)
for _ in range(20):
    notify("FDSTORE=1", [null] * 200)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"STATUS=\\xff\\xfe\\0", os.environ["NOTIFY_SOCKET"])
for number in range(5000):
    notify("WATCHDOG=1")
notify("MAINPID=1")
notify("MAINPID=-5")
notify("MAINPID=99999999999999999999")
notify("READY=1")
time.sleep(60)
"""
    )
    pid = project.python("one", script)["pid"]
    wait_until(lambda: project.connect_and_peek()["one"]["ready"], "READY")
    slot = project.connect_and_peek()["one"]
    assert slot["pid"] == pid
    # FIFO, notify socket, log, index file and folder, log folder: no other.
    after = len(os.listdir(f"/proc/{project.pid}/fd"))
    assert after <= before + 8


def test_a_new_main_process_of_the_tree_is_followed(project: Project) -> None:
    """After MAINPID= the exit of that process is the daemon's."""
    script = (
        SENDER
        + """
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(60)
    os._exit(0)
notify(f"MAINPID={child}\\nREADY=1")
os._exit(0)
"""
    )
    project.python("one", script)
    new = project.wait("main", "one")["pid"]
    assert project.connect_and_peek()["one"]["pid"] == new
    os.kill(new, signal.SIGTERM)
    exited = project.wait("exit", "one")
    assert (exited["pid"], exited["signal"]) == (new, 15)


def test_a_stranger_cannot_be_made_the_main_process(project: Project) -> None:
    """MAINPID= of a process outside the tree is ignored."""
    other = project.shell("other", "sleep 60")["pid"]
    script = SENDER + f'notify("MAINPID={other}"); notify("READY=1"); time.sleep(60)'
    pid = project.python("one", script)["pid"]
    project.wait("notify", "one", text="READY=1")
    assert project.connect_and_peek()["one"]["pid"] == pid
    assert is_alive(other)


def test_a_runtime_folder_too_deep_for_sockets(folders: Project) -> None:
    """Then the sockets are in a private folder with a short name."""
    folders.runtime = folders.runtime / ("x" * 100)
    folders.start()
    folders.python("one", SENDER + 'notify("READY=1"); time.sleep(60)')
    assert folders.wait("notify", "one")["text"] == "READY=1"


SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sets user ids")
@pytest.mark.skipif(SYSTEM_PYTHON is None, reason="needs a python3 for all users")
def test_a_daemon_of_another_user_is_heard(project: Project) -> None:
    """Its socket and its FIFO belong to it, whatever folder they are in."""
    assert SYSTEM_PYTHON is not None
    for folder in (project.runtime, *project.runtime.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = SENDER + 'notify("READY=1"); print("out", file=open("/dev/stdout", "w"))'
    argv = [SYSTEM_PYTHON, "-I", "-S", "-c", script]
    project.spawn("one", argv, uid=1234, gid=1234)
    assert project.wait("notify", "one")["text"] == "READY=1"
    assert project.wait("exit", "one")["code"] == 0
    assert project.log_text("one") == "out\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sets user ids")
@pytest.mark.skipif(SYSTEM_PYTHON is None, reason="needs a python3 for all users")
def test_a_runtime_folder_closed_to_the_daemons_user(project: Project) -> None:
    """Under root's own XDG_RUNTIME_DIR another user gets a socket that it can reach."""
    assert SYSTEM_PYTHON is not None
    project.runtime.parent.chmod(0o700)
    script = SENDER + 'notify("READY=1"); time.sleep(60)'
    argv = [SYSTEM_PYTHON, "-I", "-S", "-c", script]
    project.spawn("one", argv, uid=1234, gid=1234)
    assert project.wait("notify", "one")["text"] == "READY=1"
    project.python("two", script)
    assert project.wait("notify", "two")["text"] == "READY=1"
    assert os.listdir(project.runtime / "notify") == ["two"]
