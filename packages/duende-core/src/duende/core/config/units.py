"""Durations, sizes and CPU shares: from the text of a file or flag, and back.

Pure. A duration is text such as `"250ms"`, `"1.5s"`, `"2m"` or `"1h30m"`, and in
Python seconds (float); a bare number is seconds. A size is text such as
`"512MiB"` or `"10MB"`, and in Python bytes (int); a bare number is bytes. A CPU
share is text such as `"150%"` of one core, and in Python a factor (1.5); a bare
number is refused, since half of the readers take `1` for one core and the other
half for one per cent.
"""

from __future__ import annotations

import math
import re

__all__ = (
    "format_cpu",
    "format_duration",
    "format_size",
    "parse_cpu",
    "parse_duration",
    "parse_size",
)

LONGEST = 36_500 * 86_400.0
"""A hundred years in seconds; what is longer is written by leaving the key out."""

LARGEST = 2**63 - 1
"""The largest size in bytes, off_t's."""

_DURATION_UNITS = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_SIZE_UNITS = {"": 1, "B": 1, "kB": 1000} | {
    letter + suffix: base**power
    for power, letter in enumerate("KMGTPE", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION_PART = re.compile(rf"\s*({_NUMBER})\s*([a-zµ]+)\s*", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)
_PERCENT = re.compile(rf"({_NUMBER})\s*%", re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)

DURATION_PATTERN = (
    r"^\s*(\d+(\.\d+)?\s*(us|µs|ms|sec|s|min|m|h|d|w)\s*)+$|^\s*\d+(\.\d+)?\s*$"
)
SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*(B|kB|[KMGTPE]i?B)?\s*$"
CPU_PATTERN = r"^\s*\d+(\.\d+)?\s*%\s*$"


def parse_duration(value: str | int | float) -> float:
    """This reads a duration and returns seconds.

    Raises:
        ValueError: It is none; the message says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"expected a duration such as '1.5s', not {_kind(value)}")
    if isinstance(value, str):
        seconds = _duration_of_text(value)
    else:
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"a duration can't be {value!r}; write such as '1.5s'")
    if seconds > LONGEST:
        raise ValueError(
            f"{value!r} is more than a hundred years; leave it out for no limit"
        )
    return seconds


def _duration_of_text(text: str) -> float:
    if _BARE.fullmatch(text.strip()):
        return float(text)
    seconds = 0.0
    end = 0
    while end < len(text):
        part = _DURATION_PART.match(text, end)
        if part is None:
            break
        number, unit = part.groups()
        if unit not in _DURATION_UNITS:
            raise ValueError(
                f"unknown unit {unit!r} in the duration {text!r}; "
                "write us, ms, s, m, h, d or w"
            )
        seconds += float(number) * _DURATION_UNITS[unit]
        end = part.end()
    if not end or end < len(text):
        raise ValueError(f"{text!r} is no duration; write such as '1.5s' or '1h30m'")
    return seconds


def parse_size(value: str | int) -> int:
    """This reads a size and returns bytes.

    Raises:
        ValueError: It is none; the message says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"expected a size such as '512MiB', not {_kind(value)}")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(
                f"{value!r} is no size; write such as '512MiB', '10MB' or '0B'"
            )
        number, unit = match.groups()
        if unit not in _SIZE_UNITS:
            raise ValueError(_unknown_size_unit(value, unit))
        whole, _, fraction = number.partition(".")
        # In integers, since a float is exact up to 2**53 only.
        size = int(whole) * _SIZE_UNITS[unit]
        if fraction:
            size += int(fraction) * _SIZE_UNITS[unit] // 10 ** len(fraction)
    if size < 0:
        raise ValueError(f"a size can't be negative, as {value!r} is")
    if size > LARGEST:
        raise ValueError(f"{value!r} is too large; leave it out for no limit")
    return size


def _unknown_size_unit(text: str, unit: str) -> str:
    known = {name.lower(): name for name in _SIZE_UNITS if name != "kB"}
    lowered = unit.lower()
    meant = known.get(lowered) or known.get(lowered + "b")
    hint = f"did you mean {meant!r}?" if meant else "write B, kB, KiB, MB, MiB, GiB …"
    return f"unknown unit {unit!r} in the size {text!r}; {hint}"


def parse_cpu(value: str | int | float) -> float:
    """This reads a CPU share (`"150%"`) and returns a factor of one core (1.5).

    Raises:
        ValueError: It is none, or a number without `%`.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"expected a CPU share such as '150%', not {_kind(value)}")
    text = value.strip() if isinstance(value, str) else repr(value)
    match = _PERCENT.fullmatch(text)
    if match is not None:
        share = float(match[1]) / 100
        if math.isinf(share):
            raise ValueError("the CPU share is too large; leave it out for no limit")
        return share
    if _BARE.fullmatch(text):
        number = float(text)
        meant = f"{number:g}%" if number >= 10 else f"{number * 100:g}%"
        raise ValueError(
            f"a bare number ({text}) could be cores or per cent; "
            f"write {meant!r} (100% is one core)"
        )
    raise ValueError(f"{value!r} is no CPU share; write such as '150%'")


def format_duration(seconds: float) -> str:
    """This writes seconds as `1h30m`, `1.5s` or `250ms`, exact to a microsecond."""
    microseconds = round(seconds * 1_000_000)
    if microseconds == 0:
        return "0s"
    if microseconds < 1000:
        return f"{microseconds}us"
    if microseconds < 1_000_000:
        return _decimal(microseconds, 1000) + "ms"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        count, microseconds = divmod(microseconds, length * 1_000_000)
        if count:
            parts.append(f"{count}{unit}")
    if microseconds:
        parts.append(_decimal(microseconds, 1_000_000) + "s")
    return "".join(parts)


def format_size(size: int) -> str:
    """This writes bytes exactly, in the largest binary unit that leaves no rest."""
    for power, letter in reversed(list(enumerate("KMGTPE", 1))):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{letter}iB"
    return f"{size}B"


def format_cpu(share: float) -> str:
    """This writes a factor of one core as per cent."""
    return f"{share * 100:.10g}%"


def _decimal(count: int, unit: int) -> str:
    whole, rest = divmod(count, unit)
    digits = len(str(unit)) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


def _kind(value: object) -> str:
    return "a boolean" if isinstance(value, bool) else f"{type(value).__name__}"
