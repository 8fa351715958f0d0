"""Processes that were left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import pytest

from duende.core.errors import NotSupported
from duende.test import Leftover, LeftoverGuard, LeftoversFound

pytest_plugins = ("pytester",)
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper"),
]

_ESCAPE = """
import os, sys
if os.fork() == 0:
    os.setsid()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp("sleep", ["sleep", "12321"])
    print(pid, flush=True)
    os._exit(0)
os.wait()
"""


def _escaped() -> int:
    """Leave a `sleep` behind that forked twice and began its own session."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ESCAPE],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    return int(done.stdout)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_left() -> None:
    """A test that cleans up is left alone."""
    with LeftoverGuard():
        subprocess.run(["true"], check=True, timeout=30)


def test_a_double_fork_is_found_named_and_killed() -> None:
    """What hides behind a double fork and a new session is found all the same."""
    with pytest.raises(LeftoversFound, match="sleep 12321") as caught:
        with LeftoverGuard(grace=0):
            pid = _escaped()
    assert [pid] == [leftover.pid for leftover in caught.value.leftovers]
    assert not _lives(pid)


def test_grace_is_given() -> None:
    """What is ending anyway may end, and is no finding."""
    with LeftoverGuard(grace=10):
        pid = _escaped()
        os.kill(pid, signal.SIGTERM)
    assert not _lives(pid)


def test_what_was_there_before_is_not_ours() -> None:
    """A process older than the guard is neither a finding nor touched."""
    with subprocess.Popen(["sleep", "12321"]) as older:
        try:
            with LeftoverGuard(grace=0) as guard:
                assert () == guard.leftovers()
            assert older.poll() is None
        finally:
            older.kill()


def test_a_stopped_process_is_killed_too() -> None:
    """A process that is stopped can't hold up the end."""
    with pytest.raises(LeftoversFound):
        with LeftoverGuard(grace=0):
            pid = _escaped()
            os.kill(pid, signal.SIGSTOP)
    assert not _lives(pid)


def test_a_failing_test_keeps_its_reason() -> None:
    """The test's own error is what is shown, and the process is still killed."""
    with pytest.raises(ZeroDivisionError):
        with LeftoverGuard(grace=0):
            pid = _escaped()
            _ = 1 / 0
    assert not _lives(pid)


def test_the_fixture_fails_the_test_that_leaks_alone(
    pytester: pytest.Pytester,
) -> None:
    """In a run of three, the test that leaks is an error and its neighbours pass."""
    pytester.makepyfile(
        """
        import subprocess

        def test_before(duende_no_leftovers):
            pass

        def test_leaks(duende_no_leftovers):
            subprocess.run(["sh", "-c", "sleep 12321 >/dev/null 2>&1 &"], check=True)

        def test_after(duende_no_leftovers):
            assert duende_no_leftovers.leftovers() == ()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*processes were left behind*", "*sleep 12321*"])


def test_the_plugin_is_lazy(pytester: pytest.Pytester) -> None:
    """A pytest that merely has the plug-in installed imports nothing heavy for it."""
    pytester.makepyfile(
        """
        import sys

        def test_lazy():
            loaded = [name for name in sys.modules if name.startswith("duende.")]
            assert loaded == ["duende.test", "duende.test.plugin"]
            assert "duende.core" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_error_survives_pickling() -> None:
    """pytest-xdist and friends get the same error, with what was found."""
    one = Leftover(pid=1, parent=0, start=2, state="S", command="init")
    copy = pickle.loads(pickle.dumps(LeftoversFound((one,))))
    assert (one,) == copy.leftovers
    assert "pid 1, child of 0: init" in str(copy)


def test_other_platforms_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't work it says so, instead of finding nothing."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotSupported, match="darwin"):
        with LeftoverGuard():
            pass
