"""What locking would cost, compared with what it did cost."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.mlock import MlockUnsupportedError, forecast
from duende.mlock.forecast import judge, parse_maps

from .child import linux, run

MIB = 1024 * 1024


@linux
@pytest.mark.real
@pytest.mark.usefixtures("capability")
def test_the_forecast_comes_true() -> None:
    """What is locked afterwards is what was said, within a twentieth."""
    told = run("""
said = mlock.forecast(); mlock.lock_all()
tell(said=said.locked_now, locked=vm("VmLck"), resident=said.resident_now,
     held=vm("VmRSS"), fits=said.fits, capable=said.has_capability)
""")
    assert told["locked"] == pytest.approx(told["said"], rel=0.05)
    assert told["held"] == pytest.approx(told["resident"], rel=0.1)
    assert told["capable"] is True


@linux
@pytest.mark.real
@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize("settings", ["", "mlock.limit_thread_memory()"])
def test_the_forecast_of_threads_comes_true(settings: str) -> None:
    """Each thread takes what was said and not more, with settings and without."""
    told = run(
        """
import threading
SETTINGS
said = mlock.forecast(threads=4); mlock.lock_all(); before = vm("VmLck")
done, ready = threading.Event(), threading.Barrier(5)
def work():
    kept = [bytes(100) for _ in range(100)]
    ready.wait(); done.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
ready.wait()
tell(said=4 * said.locked_per_thread, grown=vm("VmLck") - before)
done.set()
for thread in threads: thread.join()
""".replace("SETTINGS", settings)
    )
    # At most what was said; a little comes for Python's own objects.
    assert told["said"] / 3 <= told["grown"] <= told["said"] + 2 * MIB


@linux
@pytest.mark.real
def test_a_limit_that_is_too_small_is_foretold() -> None:
    """What does not fit is said with both numbers, and then really fails."""
    told = run("""
limit(2 * 2**20); drop()
said = mlock.forecast(threads=2)
status = mlock.lock_with_config(mlock.MlockConfig(required=False))
tell(fits=said.fits, reasons=said.reasons, limit=said.limit,
     room=said.threads_that_fit, locked=status.is_locked())
""")
    assert (told["fits"], told["locked"]) == (False, False)
    assert told["limit"] == 2 * MIB
    assert told["room"] == 0
    assert str(2 * MIB) in told["reasons"][0]


@given(
    now=st.integers(0, 2**40),
    each=st.integers(0, 2**30),
    threads=st.integers(0, 1000),
    most=st.none() | st.integers(0, 2**41),
    memory=st.none() | st.integers(0, 2**41),
)
def test_what_fits(
    now: int, each: int, threads: int, most: int | None, memory: int | None
) -> None:
    """So many threads fit as are said to, and not one more."""

    def ask(count: int) -> bool:
        return judge(
            locked_now=now,
            locked_per_thread=each,
            resident_now=now,
            resident_per_thread=each,
            threads=count,
            limit=most,
            has_capability=False,
            memory=memory,
        ).fits

    said = judge(
        locked_now=now,
        locked_per_thread=each,
        resident_now=now,
        resident_per_thread=each,
        threads=threads,
        limit=most,
        has_capability=False,
        memory=memory,
    )
    if said.threads_that_fit is None:
        assert said.fits
    elif each and ask(0):
        assert ask(said.threads_that_fit)
        assert not ask(said.threads_that_fit + 1)
    else:
        assert said.threads_that_fit == 0 or said.fits


def test_maps_are_added_up() -> None:
    """What is reserved is mapped, and not accessible; the kernel's own is neither."""
    text = (
        "1000-3000 r-xp 00000000 fd:00 1 /usr/bin/x y\n"
        "3000-4000 ---p 00000000 00:00 0\n"
        "5000-6000 rw-p 00000000 00:00 0 [heap]\n"
        "7000-9000 r--p 00000000 00:00 0 [vvar]\n"
    )
    assert parse_maps(text) == (0x4000, 0x3000)


def test_elsewhere_there_is_no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, not made up."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MlockUnsupportedError, match="darwin"):
        forecast()
