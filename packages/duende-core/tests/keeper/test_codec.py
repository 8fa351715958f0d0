"""The JSON codec below `json`, and the splitting of lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.keeper import dumps, loads, parse_stat
from duende.core.keeper_client import KeeperLost, split_lines

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_it_agrees_with_the_standard_library(value: Any) -> None:
    """Both directions give what `json` gives."""
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value)) == value


@given(st.text())
def test_it_refuses_what_the_standard_library_refuses(text: str) -> None:
    """What is no JSON is a ValueError, never anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)  # NaN is JSON to `json`, not to us

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(ValueError):
            loads(text)
    else:
        assert loads(text) == expected


@pytest.mark.parametrize("text", ["[" * 200_000, "NaN", '{"a": Infinity}', "", "1 2"])
def test_hostile_text_is_a_value_error(text: str) -> None:
    """Deep nesting and constants that are no JSON are refused."""
    with pytest.raises(ValueError):
        loads(text)


def test_undecodable_bytes_survive() -> None:
    """What surrogateescape made of a byte goes through unchanged."""
    text = b"/tmp/\xff".decode("utf-8", "surrogateescape")
    assert loads(dumps(text)) == text


@given(st.lists(st.dictionaries(st.text(), st.integers())), st.integers(0, 200))
def test_lines_split_anywhere(values: list[dict[str, int]], cut: int) -> None:
    """However the stream is cut, the same lines come out."""
    data = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    first, rest = split_lines(data[:cut])
    second, rest = split_lines(rest + data[cut:])
    assert first + second == values
    assert rest == b""


def test_a_line_that_is_no_json_is_a_lost_keeper() -> None:
    """Nothing sensible can follow it."""
    with pytest.raises(KeeperLost):
        split_lines(b"{oops\n")


def test_a_process_name_can_hold_anything() -> None:
    """/proc/PID/stat is parsed from the last parenthesis."""
    tail = " ".join(str(number) for number in range(1, 52))
    status = parse_stat(f"7 (a) R 1 ) S {tail}".encode())
    assert status is not None
    assert (status.state, status.parent, status.session, status.start) == (
        "S",
        1,
        3,
        19,
    )


@given(st.binary())
def test_no_bytes_break_the_stat_parser(data: bytes) -> None:
    """Whatever is in the file, it gives a value or None."""
    parse_stat(data)
