"""The texts of /proc."""

from __future__ import annotations

import os
import sys

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.observe import parse_proc_stat

_linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@given(
    pid=st.integers(1, 2**22),
    name=st.binary(max_size=15),
    state=st.sampled_from("RSDTtZXIP"),
    numbers=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=21, max_size=60),
)
def test_every_field_is_where_proc_5_says(
    pid: int, name: bytes, state: str, numbers: list[int]
) -> None:
    """Whatever a program is called, each number is read from its own place."""
    rest = " ".join(map(str, numbers)).encode()
    found = parse_proc_stat(b"%d (%b) %b %b\n" % (pid, name, state.encode(), rest))
    # Numbered as in proc(5): the pid is 1, the name 2, the state 3.
    field = dict(enumerate(numbers, 4))
    assert (pid, state) == (found.pid, found.state)
    assert name == found.name.encode("utf-8", "surrogateescape")
    assert (field[4], field[5], field[6]) == (found.parent, found.group, found.session)
    assert (field[10], field[12]) == (found.minor_faults, found.major_faults)
    assert (field[14], field[15]) == (found.user_ticks, found.system_ticks)
    assert (field[16], field[17]) == (found.child_user_ticks, found.child_system_ticks)
    assert (field[19], field[20]) == (found.nice, found.threads)
    assert (field[22], field[23]) == (found.start_time, found.virtual_bytes)
    assert field[24] == found.resident_pages


@given(st.binary())
def test_parse_says_no_in_one_way(stat: bytes) -> None:
    """Whatever comes in, the answer is a value or a ValueError."""
    try:
        parse_proc_stat(stat)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "stat",
    [
        b"",
        b"1 (init) S 0 1",
        b"1 (init) S" + b" x" * 21,
        b"one (init) S" + b" 0" * 21,
        b"1 init S" + b" 0" * 21,
        b"1 (init) SS" + b" 0" * 21,
        b"1 (init) \xff" + b" 0" * 21,
    ],
)
def test_parse_refuses(stat: bytes) -> None:
    """A text that is cut short or something else is refused whole."""
    with pytest.raises(ValueError, match="not a /proc/PID/stat"):
        parse_proc_stat(stat)


@_linux
def test_this_process() -> None:
    """The kernel's own text of this process agrees with what psutil reads."""
    with open("/proc/self/stat", "rb") as file:
        found = parse_proc_stat(file.read())
    me = psutil.Process()
    assert (os.getpid(), os.getppid()) == (found.pid, found.parent)
    assert (os.getpgrp(), os.getsid(0)) == (found.group, found.session)
    assert me.nice() == found.nice
    assert "R" == found.state
    assert found.virtual_bytes > found.resident_pages > 0
