"""Locking the whole process: each case in a process of its own, the kernel the judge."""

from __future__ import annotations

import errno

import pytest

from .child import linux, run

pytestmark = [linux, pytest.mark.real]

MIB = 1024 * 1024


@pytest.mark.usefixtures("capability")
def test_lock_all_holds_everything() -> None:
    """The status, the module and /proc name the same number, and none of it is 0."""
    told = run("""
status = mlock.lock_all()
tell(state=status.state, bytes=status.bytes_locked, module=mlock.locked_bytes(),
     kernel=vm("VmLck"), size=vm("VmSize"), flags=status.flags,
     yes=[status.is_locked(), mlock.is_locked()], errno=status.failure_errno)
""")
    assert told["state"] == "locked"
    assert told["bytes"] > 0.9 * told["size"] > MIB
    assert abs(told["module"] - told["kernel"]) < MIB
    assert told["yes"] == [True, True]
    assert (told["flags"], told["errno"]) == (["current", "future"], None)


@pytest.mark.usefixtures("capability")
def test_what_is_mapped_later_is_locked_too() -> None:
    """`future` reaches a buffer that comes after; without it the buffer stays free."""
    code = """
mlock.lock_with_config(mlock.MlockConfig(future=%s))
before = vm("VmLck"); kept = bytearray(32 * 2**20); tell(grown=vm("VmLck") - before)
"""
    assert run(code % True)["grown"] >= 32 * MIB
    assert run(code % False)["grown"] < 4 * MIB


@pytest.mark.usefixtures("capability")
def test_future_alone_locks_nothing_yet() -> None:
    """It is in force, and the count stays 0 until something is mapped."""
    told = run("""
status = mlock.lock_with_config(mlock.MlockConfig(current=False))
first = mlock.is_locked(); kept = bytearray(8 * 2**20)
tell(asked=status.is_locked(), bytes=status.bytes_locked, first=first,
     then=mlock.locked_bytes())
""")
    assert (told["asked"], told["bytes"], told["first"]) == (True, 0, False)
    assert told["then"] >= 8 * MIB


@pytest.mark.usefixtures("capability")
def test_onfault_takes_no_memory_that_is_not_touched() -> None:
    """A large mapping is locked at once, and resident only where it was touched."""
    code = """
import mmap
mlock.lock_with_config(mlock.MlockConfig(onfault=%s))
locked, resident = vm("VmLck"), vm("VmRSS")
kept = mmap.mmap(-1, 64 * 2**20)
tell(locked=vm("VmLck") - locked, resident=vm("VmRSS") - resident)
"""
    lazy, eager = run(code % True), run(code % False)
    assert lazy["locked"] >= 64 * MIB
    assert lazy["resident"] < 8 * MIB
    assert eager["resident"] >= 60 * MIB


@pytest.mark.usefixtures("capability")
def test_unlock_all_unlocks() -> None:
    """Nothing is locked after it, nor is what comes later."""
    told = run("""
mlock.lock_all(); held = vm("VmLck"); mlock.unlock_all(); kept = bytearray(8 * 2**20)
tell(held=held, after=vm("VmLck"), module=mlock.is_locked())
""")
    assert told["held"] > 0
    assert (told["after"], told["module"]) == (0, False)


@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_lock_survives_neither_fork_nor_exec(way: str) -> None:
    """A forked child, and a program executed, begin unlocked."""
    told = run(
        """
import subprocess
mlock.lock_all()
if sys.argv[-1:] and WAY == "fork":
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(vm("VmLck")).encode()); os._exit(0)
    os.wait(); child = int(os.read(reading, 99))
else:
    child = int(subprocess.run(["grep", "VmLck", "/proc/self/status"],
        capture_output=True, text=True, check=True).stdout.split()[1])
tell(child=child, parent=vm("VmLck"))
""".replace("WAY", repr(way))
    )
    assert told["child"] == 0
    assert told["parent"] > 0


@pytest.mark.usefixtures("capability")
def test_a_forked_child_can_lock_for_itself() -> None:
    """The record of what is in force is not inherited either."""
    told = run("""
mlock.lock_all()
reading, writing = os.pipe()
if os.fork() == 0:
    with mlock.memory_locked():
        inside = vm("VmLck")
    os.write(writing, f"{inside} {vm('VmLck')}".encode()); os._exit(0)
os.wait(); inside, after = map(int, os.read(reading, 99).split())
tell(inside=inside, after=after, parent=vm("VmLck"))
""")
    assert told["inside"] > 0
    assert told["after"] == 0
    assert told["parent"] > 0


def test_no_capability_and_no_limit_is_a_permission() -> None:
    """EPERM, with what to do."""
    told = run("""
limit(0); drop()
try:
    mlock.lock_all()
except mlock.MlockPermissionError as error:
    tell(errno=error.errno, text=str(error), oserror=isinstance(error, OSError),
         own=isinstance(error, PermissionError))
tell(kernel=vm("VmLck"))
""")
    assert told["errno"] == errno.EPERM
    assert (told["oserror"], told["own"], told["kernel"]) == (True, True, 0)
    assert "RLIMIT_MEMLOCK is 0 bytes" in told["text"]
    assert "python -m duende.mlock diagnose" in told["text"]


def test_a_small_limit_is_the_limit() -> None:
    """ENOMEM, told apart from a machine without memory, with the numbers."""
    told = run("""
limit(65536); drop()
try:
    mlock.lock_all()
except mlock.MlockLimitError as error:
    tell(errno=error.errno, text=str(error))
tell(kernel=vm("VmLck"))
""")
    assert told["errno"] == errno.ENOMEM
    assert "65536 bytes" in told["text"]
    assert told["kernel"] == 0


@pytest.mark.parametrize(("soft", "number"), [(0, errno.EPERM), (65536, errno.ENOMEM)])
def test_not_required_does_not_raise(soft: int, number: int) -> None:
    """The status tells the errno, why, and what to do."""
    told = run(
        f"limit({soft}); drop()"
        """
status = mlock.lock_with_config(mlock.MlockConfig(required=False))
tell(state=status.state, yes=status.is_locked(), errno=status.failure_errno,
     bytes=status.bytes_locked, reason=status.reason, hint=status.hint)
"""
    )
    assert (told["state"], told["yes"], told["bytes"]) == ("failed", False, 0)
    assert told["errno"] == number
    assert "RLIMIT_MEMLOCK" in told["reason"]
    assert "diagnose" in told["hint"]


def test_at_the_limit_later_allocations_fail_and_unlocking_mends_it() -> None:
    """Under `future` a buffer, a mapping and a thread each fail in Python's own way."""
    told = run("""
import mmap, threading
limit(2 * 2**20); drop()
mlock.lock_with_config(mlock.MlockConfig(current=False))
def attempt(what):
    try:
        what()
    except (MemoryError, OSError, RuntimeError) as error:
        return type(error).__name__, getattr(error, "errno", None)
found = [attempt(lambda: bytearray(8 * 2**20)), attempt(lambda: mmap.mmap(-1, 8 * 2**20)),
         attempt(lambda: threading.Thread(target=print).start())]
mlock.unlock_all()
tell(found=found, after=attempt(lambda: bytearray(8 * 2**20)))
""")
    assert told["found"] == [
        ["MemoryError", None],
        ["BlockingIOError", errno.EAGAIN],
        ["RuntimeError", None],
    ]
    assert told["after"] is None


@pytest.mark.parametrize(
    "config",
    ["current=False, future=False", "current=False, future=False, onfault=True"],
)
def test_what_has_no_meaning_is_refused_before_the_kernel_is_asked(
    config: str,
) -> None:
    """No flag, and ONFAULT alone: no system call is made for them."""
    told = run(
        """
from duende.mlock import _system
calls = []
_system.lock_all = lambda flags: calls.append(flags) or 0
try:
    mlock.lock_with_config(mlock.MlockConfig(CONFIG))
except mlock.MlockInvalidError as error:
    tell(errno=error.errno)
status = mlock.lock_with_config(mlock.MlockConfig(CONFIG, required=False))
tell(state=status.state, number=status.failure_errno, calls=calls)
""".replace("CONFIG", config)
    )
    assert told["errno"] == told["number"] == errno.EINVAL
    assert (told["state"], told["calls"]) == ("failed", [])


def test_a_kernel_that_only_says_so_is_not_believed() -> None:
    """Success without anything locked (a sandbox that pretends) is a failure."""
    told = run("""
from duende.mlock import _system
_system.lock_all = lambda flags: 0
try:
    mlock.lock_all()
except mlock.MlockUnsupportedError as error:
    tell(text=str(error))
status = mlock.lock_with_config(mlock.MlockConfig(required=False))
tell(state=status.state)
""")
    assert "VmLck is 0" in told["text"]
    assert told["state"] == "unsupported"


@pytest.mark.usefixtures("capability")
def test_a_block_holds_and_gives_back() -> None:
    """`memory_locked` restores what was before, nested or not."""
    told = run("""
seen = []
with mlock.memory_locked() as status:
    seen.append(vm("VmLck") > 0)
    with mlock.memory_locked(mlock.MlockConfig(future=False)):
        pass
    before = vm("VmLck"); kept = bytearray(8 * 2**20)
    seen.append(vm("VmLck") - before >= 8 * 2**20)
seen.append(vm("VmLck") > 0)
mlock.lock_all()
with mlock.memory_locked():
    pass
seen.append(vm("VmLck") > 0)
tell(seen=seen)
""")
    assert told["seen"] == [True, True, False, True]


@pytest.mark.usefixtures("capability")
def test_a_block_leaves_what_others_locked() -> None:
    """A range that was locked before is so after it."""
    told = run("""
held = mlock.lock_range(bytearray(2**20))
with mlock.memory_locked():
    pass
tell(after=vm("VmLck"))
""")
    assert told["after"] >= MIB


@pytest.mark.usefixtures("capability")
def test_sixteen_threads_and_what_limits_do() -> None:
    """Threads of a locked process reserve a lot; with limits set first, far less."""
    code = """
import threading
SETTINGS
mlock.lock_all()
before, done = vm("VmLck"), threading.Event()
ready = threading.Barrier(17)
def work():
    kept = [bytes(100) for _ in range(1000)]
    ready.wait(); done.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
ready.wait()
tell(grown=vm("VmLck") - before)
done.set()
for thread in threads: thread.join()
"""
    plain = run(code.replace("SETTINGS", ""))["grown"]
    tight = run(code.replace("SETTINGS", "mlock.limit_thread_memory()"))["grown"]
    assert plain > 16 * 8 * MIB
    assert tight < plain / 8
