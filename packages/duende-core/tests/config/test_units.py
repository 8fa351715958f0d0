"""Durations, sizes and CPU shares as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.units import (
    LARGEST,
    LONGEST,
    format_cpu,
    format_duration,
    format_size,
    parse_cpu,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("1d", 86_400.0),
        ("2w", 1_209_600.0),
        ("0s", 0.0),
        (" 5 s ", 5.0),
        ("90", 90.0),
        ("0.5", 0.5),
        (3, 3.0),
        (0.25, 0.25),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    """Every documented way to write a duration is read."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no duration"),
        ("s", "is no duration"),
        ("1.5.2s", "is no duration"),
        ("1s2", "is no duration"),
        ("-1s", "is no duration"),
        ("1e3s", "unknown unit 'e'"),
        ("10 sek", "unknown unit 'sek'"),
        ("5M", "is no duration"),
        ("١s", "is no duration"),
        (-1, "can't be -1"),
        (float("nan"), "can't be nan"),
        (float("inf"), "hundred years"),
        (10**400, "hundred years"),
        ("9" * 400 + "s", "hundred years"),
        (True, "not a boolean"),
        (None, "not NoneType"),
    ],
)
def test_no_durations(text: str, message: str) -> None:
    """What is no duration is refused with a message that says why."""
    with pytest.raises(ValueError, match=message):
        parse_duration(text)


@given(st.integers(0, int(LONGEST)), st.integers(0, 999_999))
def test_durations_survive_formatting(seconds: int, microseconds: int) -> None:
    """What format_duration writes is read back as the same microsecond."""
    duration = seconds + microseconds / 1_000_000
    if duration > LONGEST:
        return
    assert round(parse_duration(format_duration(duration)) * 1e6) == round(
        duration * 1e6
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.0105, "10.5ms"),
        (0.00001, "10us"),
        (1.5, "1.5s"),
        (60, "1m"),
        (5400, "1h30m"),
        (90_061.5, "1d1h1m1.5s"),
    ],
)
def test_formatted_durations(seconds: float, text: str) -> None:
    """Durations are shown as a person would write them."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * 1024**2),
        ("10MB", 10_000_000),
        ("0B", 0),
        ("1024", 1024),
        ("1.5GiB", 3 * 2**29),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1 KiB", 1024),
        (4096, 4096),
        (str(LARGEST), LARGEST),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    """Every documented way to write a size is read, a bare number as bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no size"),
        ("MiB", "is no size"),
        ("-1B", "is no size"),
        (-1, "can't be negative"),
        ("10mb", "did you mean 'MB'"),
        ("10M", "did you mean 'MB'"),
        ("10 gib", "did you mean 'GiB'"),
        ("10 XB", "unknown unit 'XB'"),
        (1.5, "not float"),
        (True, "not a boolean"),
        (2**63, "too large"),
    ],
)
def test_no_sizes(text: str, message: str) -> None:
    """What is no size is refused with a message that says why."""
    with pytest.raises(ValueError, match=message):
        parse_size(text)


@given(st.integers(0, LARGEST))
def test_sizes_survive_formatting(size: int) -> None:
    """format_size loses not a byte."""
    assert parse_size(format_size(size)) == size


def test_formatted_sizes() -> None:
    """A size is shown in the largest unit that leaves no rest."""
    assert [format_size(size) for size in (0, 1000, 1024, 3 * 2**29)] == [
        "0B",
        "1000B",
        "1KiB",
        "1536MiB",
    ]


@given(st.integers(1, 100_000))
def test_cpu_shares_survive_formatting(percent: int) -> None:
    """A share of a core is read back as it was written."""
    assert parse_cpu(format_cpu(percent / 100)) == percent / 100


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "write '150%'"),
        (2, "write '200%'"),
        ("150", "write '150%'"),
        ("half", "is no CPU share"),
        ("-5%", "is no CPU share"),
        (-1, "is no CPU share"),
        (True, "not a boolean"),
        ("9" * 400 + "%", "too large"),
    ],
)
def test_no_cpu_shares(value: str, message: str) -> None:
    """A bare number is refused with a hint, and so is what is no share."""
    with pytest.raises(ValueError, match=message):
        parse_cpu(value)


@given(st.text(max_size=20))
def test_parsers_only_raise_value_errors(text: str) -> None:
    """No text makes a parser fail in any other way than by refusing it."""
    for parse in (parse_duration, parse_size, parse_cpu):
        try:
            assert parse(text) >= 0
        except ValueError as err:
            assert str(err)
