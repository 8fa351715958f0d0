"""Single buffers in RAM: pages, and the count of who shares them."""

from __future__ import annotations

import errno

import pytest

from .child import linux, run

pytestmark = [linux, pytest.mark.real]

MIB = 1024 * 1024


@pytest.mark.parametrize("kind", ["bytearray(2**20)", "mmap.mmap(-1, 2**20)"])
def test_a_buffer_is_locked_and_unlocked(kind: str) -> None:
    """Its pages and no more; it also works within the limit of an ordinary user."""
    told = run(
        """
import mmap
limit(4 * 2**20); drop()
secret = KIND
held = mlock.lock_range(secret)
inside = vm("VmLck")
mlock.unlock_range(secret)
tell(inside=inside, after=vm("VmLck"), locked=held.is_locked)
""".replace("KIND", kind)
    )
    assert MIB <= told["inside"] <= MIB + 8192
    assert (told["after"], told["locked"]) == (0, False)


def test_onfault_locks_what_is_touched() -> None:
    """All of it counts, and only what is touched takes memory (mlock2)."""
    told = run("""
import mmap
limit(4 * 2**20); drop()
area = mmap.mmap(-1, 2**20); resident = vm("VmRSS")
with mlock.lock_range(area, onfault=True):
    tell(locked=vm("VmLck"), resident=vm("VmRSS") - resident)
""")
    assert told["locked"] == MIB
    assert told["resident"] < MIB // 2


def test_buffers_in_one_page_are_counted() -> None:
    """The page stays locked until the last of them is unlocked."""
    told = run("""
import mmap
area = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
first, second = area[:100], area[200:300]
one, two, again = (mlock.lock_range(each) for each in (first, second, first))
counts = [vm("VmLck")]
for held in (one, two, two, again):
    held.unlock(); counts.append(vm("VmLck") // mmap.PAGESIZE)
tell(counts=counts[1:])
""")
    assert told["counts"] == [1, 1, 1, 0]


def test_a_locked_bytearray_does_not_move() -> None:
    """Growing would copy the secret to pages that aren't locked: it is refused."""
    told = run("""
secret = bytearray(100)
with mlock.lock_range(secret):
    try:
        secret.extend(bytes(10_000))
    except BufferError as error:
        tell(refused=True)
secret.extend(bytes(10_000))
tell(length=len(secret))
""")
    assert told == {"refused": True, "length": 10_100}


@pytest.mark.parametrize(
    ("buffer", "text"),
    [
        ("b'constant'", "read-only; use a bytearray"),
        ("bytearray()", "empty"),
        ("memoryview(bytearray(100))[::2]", "not contiguous"),
    ],
)
def test_buffers_that_cannot_be_locked(buffer: str, text: str) -> None:
    """One clear error, before the kernel is asked."""
    told = run(
        """
try:
    mlock.lock_range(BUFFER)
except mlock.MlockInvalidError as error:
    tell(errno=error.errno, text=str(error))
""".replace("BUFFER", buffer)
    )
    assert told["errno"] == errno.EINVAL
    assert text in told["text"]


def test_unlocking_what_is_not_locked() -> None:
    """It is said, and nothing else is unlocked."""
    told = run("""
held = mlock.lock_range(bytearray(2**20))
try:
    mlock.unlock_range(bytearray(10))
except mlock.MlockInvalidError as error:
    tell(text=str(error), locked=vm("VmLck"))
""")
    assert "isn't locked" in told["text"]
    assert told["locked"] >= MIB


def test_more_than_the_limit() -> None:
    """The limit is named, and the buffer can still be used and resized."""
    told = run("""
limit(65536); drop()
secret = bytearray(2**20)
try:
    mlock.lock_range(secret)
except mlock.MlockLimitError as error:
    tell(errno=error.errno, text=str(error))
secret.extend(b"x")
tell(kernel=vm("VmLck"))
""")
    assert told["errno"] == errno.ENOMEM
    assert "65536 bytes" in told["text"]
    assert told["kernel"] == 0


def test_a_prefaulted_stack_has_the_size() -> None:
    """It is mapped before it is needed; another thread, or too much, is refused."""
    told = run("""
import threading
before = vm("VmStk"); now = mlock.prefault_stack(2**20)
caught = []
def attempt(size):
    try:
        mlock.prefault_stack(size)
    except mlock.MlockInvalidError as error:
        caught.append(str(error))
thread = threading.Thread(target=attempt, args=(2**20,)); thread.start(); thread.join()
resource.setrlimit(resource.RLIMIT_STACK, (8 * 2**20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
attempt(7 * 2**20)
tell(before=before, now=now, kernel=vm("VmStk"), caught=caught)
""")
    assert told["before"] < MIB <= told["now"] <= told["kernel"]
    assert "main thread" in told["caught"][0]
    assert "RLIMIT_STACK" in told["caught"][1]


@pytest.mark.parametrize("settings", ["arenas=0", "stack_size=5"])
def test_thread_settings_that_make_no_sense(settings: str) -> None:
    """One clear error."""
    told = run(f"""
try:
    mlock.limit_thread_memory({settings})
except mlock.MlockInvalidError as error:
    tell(text=str(error))
""")
    assert "at least" in told["text"]
