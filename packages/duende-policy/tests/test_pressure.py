"""How much time is lost to waiting."""

from __future__ import annotations

import pathlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.policy import (
    PolicyError,
    Pressure,
    PressureUnavailable,
    Stall,
    parse_pressure,
    read_pressure,
)

_share = st.integers(0, 100_00).map(lambda hundredths: hundredths / 100)
_stall = st.builds(
    Stall, avg10=_share, avg60=_share, avg300=_share, total=st.integers(0, 2**64 - 1)
)


def _render(kind: str, stall: Stall) -> str:
    """Write a line as the kernel does (kernel/sched/psi.c, psi_show)."""
    averages = f"avg10={stall.avg10:.2f} avg60={stall.avg60:.2f}"
    return f"{kind} {averages} avg300={stall.avg300:.2f} total={stall.total}\n"


@given(some=_stall, full=st.none() | _stall)
def test_round_trip(some: Stall, full: Stall | None) -> None:
    """What the kernel writes is read back, with and without `full`."""
    text = _render("some", some) + ("" if full is None else _render("full", full))
    assert Pressure(some=some, full=full) == parse_pressure(text)


@given(st.text())
def test_parse_says_no_in_one_way(text: str) -> None:
    """Whatever comes in, the answer is a value or a ValueError."""
    try:
        parse_pressure(text)
    except ValueError:
        pass


def test_what_a_later_kernel_adds_is_skipped() -> None:
    """A new line and a new key harm nobody."""
    text = "some avg5=1 avg10=0.00 avg60=0.00 avg300=0.00 total=7\nmost total=1\n"
    assert 7 == parse_pressure(text).some.total


@pytest.mark.parametrize(
    "text",
    [
        "",
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0",
        "some avg10=0.00 avg60=0.00 total=0",
        "some avg10=x avg60=0.00 avg300=0.00 total=0",
        "some avg10=nan avg60=0.00 avg300=0.00 total=0",
        "some avg10=101 avg60=0.00 avg300=0.00 total=0",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=-1",
    ],
)
def test_parse_refuses(text: str) -> None:
    """A figure that is missing or impossible is an error, never a zero."""
    with pytest.raises(ValueError):
        parse_pressure(text)


@pytest.mark.parametrize("resource", ["cpu", "memory", "io"])
def test_this_machine(resource: str) -> None:
    """The real file is read where there is one; else the error says what is missing."""
    if pathlib.Path("/proc/pressure", resource).exists():
        try:
            assert read_pressure(resource).some.total >= 0
        except PressureUnavailable as error:
            assert "psi=1" in str(error)
    else:
        with pytest.raises(PressureUnavailable, match="CONFIG_PSI"):
            read_pressure(resource)


def test_a_cgroup(tmp_path: pathlib.Path) -> None:
    """A cgroup's own file is read, not the machine's."""
    stall = Stall(avg10=1.5, avg60=0.25, avg300=0, total=12)
    (tmp_path / "memory.pressure").write_text(_render("some", stall))
    assert Pressure(some=stall) == read_pressure("memory", tmp_path)


def test_an_unreadable_answer(tmp_path: pathlib.Path) -> None:
    """A file that says nonsense is unavailable pressure, named with its path."""
    (tmp_path / "io.pressure").write_bytes(b"\xff")
    with pytest.raises(PressureUnavailable, match=r"io\.pressure"):
        read_pressure("io", tmp_path)


def test_no_such_resource() -> None:
    """A resource that has no pressure is refused before anything is opened."""
    with pytest.raises(ValueError, match="cpu, memory or io"):
        read_pressure("../stat")


def test_errors_survive_pickling() -> None:
    """An error that crosses to another process is the same error."""
    for kind in (PolicyError, PressureUnavailable):
        copy = pickle.loads(pickle.dumps(kind("what", "hint")))
        assert (kind, "what; hint") == (type(copy), str(copy))
    assert "alone" == str(PolicyError("alone"))
