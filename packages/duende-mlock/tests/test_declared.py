"""What a configuration declares, done: each case in a process of its own."""

from __future__ import annotations

import errno

import pytest

from .child import linux, run

pytestmark = [linux, pytest.mark.real]

LOCK = """
try:
    status = mlock.lock_as_declared(%r)
    tell(state=status and status.state, errno=status and status.failure_errno,
         reason=status and status.reason, hint=status and status.hint)
except (OSError, ValueError) as error:
    tell(raised=type(error).__name__, text=str(error))
tell(kernel=vm("VmLck"))
"""


@pytest.mark.usefixtures("capability")
def test_it_locks_when_declared() -> None:
    """true and "required" lock everything; false and nothing leave it."""
    for declared in (True, "true", "required"):
        told = run(LOCK % declared)
        assert (told["state"], told["hint"]) == ("locked", "")
        assert told["kernel"] > 0
    for refused in (False, None, "false"):
        told = run(LOCK % refused)
        assert (told["state"], told["kernel"]) == (None, 0)


@pytest.mark.usefixtures("capability")
def test_threads_of_a_locked_process_are_small() -> None:
    """Each holds its stack of 1 MiB, not one of 8 and an arena of 64 MiB."""
    told = run("""
import threading
mlock.lock_as_declared(True)
before, stop = vm("VmLck"), threading.Event()
threads = [threading.Thread(target=lambda: (bytearray(2**20), stop.wait()))
           for _ in range(8)]
for thread in threads: thread.start()
tell(grown=(vm("VmLck") - before) // 8)
stop.set()
""")
    assert told["grown"] < 3 * 2**20


def test_true_locks_nothing_under_a_limit() -> None:
    """The process goes on unlocked, and the status says why and what to do."""
    told = run("drop(); limit(65536)" + LOCK % True)
    assert (told["state"], told["errno"]) == ("failed", errno.ENOMEM)
    assert "65536 bytes" in told["reason"]
    assert "diagnose" in told["hint"]
    assert told["kernel"] == 0


@pytest.mark.usefixtures("capability")
def test_required_locks_within_a_limit() -> None:
    """It says what the limit is, as allocations beyond it will fail.

    That the capability is not seen stands for a limit that is large enough: such a
    one can't be set everywhere.
    """
    unseen = "import duende.mlock.declared as it; it.has_ipc_lock = lambda: False;"
    told = run(unseen + "limit(65536)" + LOCK % "required")
    assert told["state"] == "locked"
    assert "65536 bytes" in told["hint"]
    assert told["kernel"] > 0


def test_required_raises_where_the_limit_is_too_small() -> None:
    """The error has the class of its cause; nothing is locked by half."""
    told = run("drop(); limit(65536)" + LOCK % "required")
    assert (told["raised"], told["kernel"]) == ("MlockLimitError", 0)


def test_the_variable_wins() -> None:
    """DUENDE_MLOCK is asked before what was declared; nonsense in it is an error."""
    assert run(LOCK % "required", DUENDE_MLOCK="off")["kernel"] == 0
    told = run("drop(); limit(65536)" + LOCK % False, DUENDE_MLOCK="required")
    assert told["raised"] == "MlockLimitError"
    told = run(LOCK % False, DUENDE_MLOCK="yes")
    assert told["raised"] == "ValueError"
    assert "DUENDE_MLOCK is 'yes'" in told["text"]
