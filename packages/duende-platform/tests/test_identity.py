"""Who a process is."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.platform import (
    PlatformInfoError,
    ProcessGone,
    ProcessIdentity,
    boot_id,
    identity,
    process_start_time,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="pidfds and /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of our own that does nothing until its stdin is closed."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=-1) as p:
        try:
            yield p
        finally:
            p.kill()


@given(
    name=st.binary(max_size=40),
    start=st.integers(0, 2**64 - 1),
    tail=st.integers(0, 30),
)
def test_parse_counts_from_the_last_parenthesis(
    name: bytes, start: int, tail: int
) -> None:
    """A program may be called `) R 1 2`, and its start time is still found."""
    before = b" ".join([b"S", *[b"-1"] * 18])
    after = b" 7" * tail
    stat = b"42 (%b) %b %d%b\n" % (name, before, start, after)
    assert start == identity.parse_start_time(stat)


@given(st.binary())
def test_parse_says_no_in_one_way(stat: bytes) -> None:
    """Whatever comes in, the answer is a number or a ValueError."""
    try:
        assert identity.parse_start_time(stat) >= 0
    except ValueError:
        pass


@linux
def test_boot_id_is_a_uuid() -> None:
    """The boot has an id, and it is the same each time."""
    first = boot_id()
    assert first is not None
    assert str(uuid.UUID(first)) == first
    assert first == boot_id()


@linux
def test_no_boot_id(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Without /proc the message says where to look."""
    monkeypatch.setattr(identity, "BOOT_ID", str(tmp_path / "none"))
    with pytest.raises(PlatformInfoError, match="is /proc mounted") as caught:
        boot_id()
    assert errno.ENOENT == caught.value.errno


@linux
def test_start_times_agree_with_the_kernel(child: subprocess.Popen[bytes]) -> None:
    """A child began after us, and psutil and we mean the same moment."""
    assert process_start_time(os.getpid()) <= process_start_time(child.pid)
    since_boot = process_start_time(child.pid) / os.sysconf("SC_CLK_TCK")
    ours = process_start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")
    theirs = identity._start_time(child.pid) - identity._start_time(os.getpid())
    assert abs((since_boot - ours) - theirs / 1_000_000) < 0.1


@pytest.mark.parametrize("pid", [0, -1])
def test_what_is_no_pid(pid: int) -> None:
    """0 and negative numbers mean groups to kill(2), and nothing to us."""
    with pytest.raises(ProcessGone):
        process_start_time(pid)


def test_a_process_is_itself() -> None:
    """This process exists and is the same whoever asks."""
    me = ProcessIdentity.of(os.getpid())
    assert me == ProcessIdentity.of(os.getpid())
    assert me.exists()


def test_two_processes_differ(child: subprocess.Popen[bytes]) -> None:
    """Another process is another identity."""
    assert not ProcessIdentity.of(child.pid).is_same(ProcessIdentity.of(os.getpid()))


def test_an_ended_process(child: subprocess.Popen[bytes]) -> None:
    """A zombie still exists; when it is reaped, nothing does."""
    who = ProcessIdentity.of(child.pid)
    child.kill()
    child.wait()
    assert not who.exists()
    with pytest.raises(ProcessGone):
        ProcessIdentity.of(child.pid)
    with pytest.raises(ProcessGone):
        identity._start_time(child.pid)


@linux
@pytest.mark.parametrize(
    "change",
    [
        lambda who: dataclasses.replace(who, start=who.start + 1),
        lambda who: dataclasses.replace(who, boot=str(uuid.uuid4())),
        lambda who: dataclasses.replace(who, inode=(who.inode or 0) + 1),
    ],
    ids=["later", "other-boot", "same-tick"],
)
def test_a_reused_pid_is_seen_and_not_signalled(
    child: subprocess.Popen[bytes], change: Callable[[ProcessIdentity], ProcessIdentity]
) -> None:
    """A stranger who has the pid now, or after a reboot, gets no signal."""
    who = ProcessIdentity.of(child.pid)
    stranger = change(who)
    if who.inode is None and stranger.inode is not None:
        pytest.skip("the inode of a pidfd says nothing before Linux 6.9")
    assert not stranger.exists()
    with pytest.raises(ProcessGone, match="another process"):
        stranger.send_signal(signal.SIGKILL)
    assert child.poll() is None
    assert who.exists()


@linux
def test_the_right_one_is_signalled(child: subprocess.Popen[bytes]) -> None:
    """A signal reaches the process that is meant."""
    ProcessIdentity.of(child.pid).send_signal(signal.SIGUSR1)
    assert -signal.SIGUSR1 == child.wait(10)


@linux
def test_signal_after_the_end(child: subprocess.Popen[bytes]) -> None:
    """A process that was reaped can't be signalled, and the error says it is gone."""
    who = ProcessIdentity.of(child.pid)
    child.kill()
    child.wait()
    with pytest.raises(ProcessGone):
        who.send_signal(signal.SIGTERM)


@linux
def test_no_fd_is_leaked(child: subprocess.Popen[bytes]) -> None:
    """Neither success nor refusal leaves a pidfd open."""
    who = ProcessIdentity.of(child.pid)
    before = os.listdir("/proc/self/fd")
    who.send_signal(0)
    with pytest.raises(ProcessGone):
        dataclasses.replace(who, start=who.start + 1).open_pidfd()
    assert before == os.listdir("/proc/self/fd")


def test_what_is_unknown_does_not_divide() -> None:
    """Knowledge that one side lacks is no difference, a different value is."""
    full = ProcessIdentity(1, 2, "boot", 3)
    assert full.is_same(ProcessIdentity(1, 2))
    assert not full.is_same(ProcessIdentity(1, 2, "boot", 4))
    assert not full.is_same(ProcessIdentity(1, 2, "other", None))


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no pidfds, the weaker identity works and signalling says no."""
    monkeypatch.setattr(sys, "platform", "darwin")
    me = ProcessIdentity.of(os.getpid())
    assert (me.boot, me.inode) == (None, None)
    assert me.exists()
    with pytest.raises(PlatformInfoError, match="darwin") as caught:
        me.send_signal(signal.SIGTERM)
    assert errno.ENOTSUP == caught.value.errno


def test_errors_survive_pickling() -> None:
    """An error that crosses to another process is the same error."""
    for error in (PlatformInfoError(1, "no", "file"), ProcessGone(3, "gone")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(error), error.args) == (type(copy), copy.args)
