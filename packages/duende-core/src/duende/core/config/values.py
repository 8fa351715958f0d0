"""What single values may be: validators and converters of the model's fields.

Pure. A validator raises ValueError whose text begins with the field's name;
`config.load` shows it behind the path to the key. Validators carry what a JSON
Schema can say of them in `schema`.
"""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

import attrs

__all__ = (
    "NAME_PATTERN",
    "Choice",
    "Range",
    "check_address",
    "check_entry",
    "check_environment",
    "check_name",
    "check_pattern",
    "check_path",
    "check_texts",
    "check_url",
    "is_name",
    "nearest",
    "signal_number",
    "signal_text",
)

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a daemon, a group and a project may be called (contract, section 3)."""

MAX_STRING: Final = 131_072
"""The longest single argument or NAME=VALUE of execve with its NUL, in bytes
(MAX_ARG_STRLEN, execve(2)); more is refused with E2BIG."""

_REAL_TIME = re.compile(r"(?:(RTMIN)(?=\+)|(RTMAX)(?=-))([+-][0-9]{1,2})")
_ENTRY = re.compile(r"(?P<place>[^:]+):(?P<attribute>[^:]+)")


def is_name(text: str) -> bool:
    """This says whether a daemon, group or project may have this name."""
    return NAME_PATTERN.fullmatch(text) is not None


def nearest(text: str, known: Iterable[str]) -> str:
    """This renders `; did you mean 'x'?`, or nothing when nothing is near."""
    closest = _closest(text, known)
    return f"; did you mean {closest!r}?" if closest else ""


def _closest(text: str, known: Iterable[str]) -> str | None:
    # Imported here since it is needed for mistakes only.
    import difflib

    close = difflib.get_close_matches(text, list(known), 1, 0.6)
    return close[0] if close else None


@final
@attrs.frozen(kw_only=True)
class Range:
    """This lets numbers in a range through, and None ("not set")."""

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    hint: str = ""

    def __call__(
        self, _: object, attribute: attrs.Attribute[Any], value: float | None
    ) -> None:
        """This refuses a value outside; the text begins with the field's name."""
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{attribute.name} must be a number, not {value!r}")
        if self.above is not None and not value > self.above:
            self._refuse(attribute, f"more than {self.above:g}", value)
        if self.minimum is not None and not value >= self.minimum:
            self._refuse(attribute, f"at least {self.minimum:g}", value)
        if self.maximum is not None and not value <= self.maximum:
            self._refuse(attribute, f"at most {self.maximum:g}", value)
        if value != value or value in (float("inf"), float("-inf")):
            self._refuse(attribute, "finite", value)

    def _refuse(
        self, attribute: attrs.Attribute[Any], bound: str, value: float
    ) -> None:
        hint = f"; {self.hint}" if self.hint else ""
        raise ValueError(f"{attribute.name} must be {bound}, not {value:g}{hint}")

    @property
    def schema(self) -> dict[str, object]:
        """The bounds in the words of JSON Schema."""
        bounds = {
            "minimum": self.minimum,
            "exclusiveMinimum": self.above,
            "maximum": self.maximum,
        }
        return {word: bound for word, bound in bounds.items() if bound is not None}


@final
@attrs.frozen
class Choice:
    """This lets a fixed set of texts through."""

    choices: tuple[str, ...]

    def __call__(
        self, _: object, attribute: attrs.Attribute[Any], value: object
    ) -> None:
        """This refuses another value; the text begins with the field's name."""
        if value not in self.choices:
            known = ", ".join(map(repr, self.choices))
            raise ValueError(
                f"{attribute.name} must be one of {known}, not {value!r}"
                + nearest(str(value), self.choices)
            )

    @property
    def schema(self) -> dict[str, object]:
        """The choices in the words of JSON Schema."""
        return {"enum": list(self.choices)}


def check_name(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """This refuses what can't be a name; None and "" are "not set"."""
    if value and not is_name(value):
        raise ValueError(
            f"{attribute.name} can't be {value!r}; use 1 to 63 of a-z, 0-9, '-' and "
            "'_', beginning with a letter or digit"
        )


def check_texts(
    _: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None
) -> None:
    """This refuses an empty command, and NUL bytes, which execve can't take."""
    if value is None:
        return
    if not value or not value[0]:
        raise ValueError(f"{attribute.name} is empty; name a program to run")
    for text in value:
        _check_argument(attribute.name, text)


def check_path(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """This refuses an empty path and one with a NUL byte."""
    if value is None:
        return
    if not value:
        raise ValueError(f"{attribute.name} is empty; leave the key out instead")
    if "\0" in value:
        raise ValueError(f"{attribute.name} has a NUL character in it")


def _check_argument(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a list of texts; {text!r} is none")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character in it, which no program can get")
    # A character is at least a byte, so most texts need no encoding to be judged.
    if len(text) * 4 >= MAX_STRING and len(os.fsencode(text)) >= MAX_STRING:
        raise ValueError(
            f"{name} has an argument of {len(os.fsencode(text))} bytes; "
            f"the kernel takes {MAX_STRING - 1} (execve(2)); pass a file instead"
        )


def check_environment(
    _: object, attribute: attrs.Attribute[Any], value: Mapping[str, str]
) -> None:
    """This refuses variables that execve can't take. Values are never shown."""
    for name, text in value.items():
        problem = variable_problem(name, text)
        if problem:
            raise ValueError(f"{attribute.name} {problem}")


def variable_problem(name: str, text: str) -> str | None:
    """This says what is wrong with an environment variable, or None.

    The value is not in the message, since it may be a secret.
    """
    if not name or "=" in name or "\0" in name:
        return f"can't have a variable named {name!r}; '=' and NUL are not allowed"
    if "\0" in text:
        return f"has a NUL character in the value of {name}, which no program can get"
    if (len(name) + len(text)) * 4 >= MAX_STRING:
        length = len(os.fsencode(name)) + len(os.fsencode(text)) + 2
        if length > MAX_STRING:
            return (
                f"has {length} bytes in {name}; the kernel takes {MAX_STRING} "
                "(execve(2)); pass a file instead"
            )
    return None


def check_pattern(
    _: object, attribute: attrs.Attribute[Any], value: str | None
) -> None:
    """This refuses what is no regular expression."""
    if value is None:
        return
    if not value:
        raise ValueError(f"{attribute.name} is empty, so every line would match")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as err:
        raise ValueError(
            f"{attribute.name} is no regular expression: {err} in {value!r}"
        ) from err


def check_url(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """This refuses what is no URL of http or https."""
    if value is None:
        return
    from urllib.parse import urlsplit

    problem = "write 'http://host:port/path'"
    try:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https"):
            problem = "it begins with neither http:// nor https://"
        elif not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
            problem = "write 'http://host:port/path'"
        elif parts.port != 0:
            return
    except ValueError as err:
        problem = str(err)
    raise ValueError(f"{attribute.name} is no URL: {value!r}; {problem}")


def check_address(
    _: object, attribute: attrs.Attribute[Any], value: str | None
) -> None:
    """This refuses what is no `host:port` (IPv6: `[::1]:80`)."""
    if value is None:
        return
    host, _colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not host.strip("[]")
        or (":" in host and not bracketed)
        or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536)
    ):
        raise ValueError(
            f"{attribute.name} must be 'host:port' with a port from 1 to 65535, "
            f"such as '127.0.0.1:8000' or '[::1]:8000', not {value!r}"
        )


def check_entry(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """This refuses what is neither `package.module:Class` nor `path/file.py:Class`."""
    if value is None:
        return
    match = _ENTRY.fullmatch(value)
    if match is not None and "\0" not in value:
        place, attribute_path = match["place"], match["attribute"]
        is_module = all(part.isidentifier() for part in place.split("."))
        if all(part.isidentifier() for part in attribute_path.split(".")) and (
            place.endswith(".py") or is_module
        ):
            return
    raise ValueError(
        f"{attribute.name} must be 'package.module:Class' or 'path/file.py:Class', "
        f"not {value!r}"
    )


def signal_text(value: str | int | signal.Signals) -> str:
    """This normalises `TERM`, `SIGTERM`, `15` or a member to `SIGTERM`.

    Real-time signals without a name of their own become `SIGRTMIN+1`.

    Raises:
        ValueError: There is no such signal.
    """
    number = signal_number(value)
    try:
        return signal.Signals(number).name
    except ValueError:
        first = signal.Signals.__members__["SIGRTMIN"]
        return f"SIGRTMIN+{number - first}"


def signal_number(value: str | int | signal.Signals) -> int:
    """This gives the number of a signal written in any way `signal_text` reads.

    Raises:
        ValueError: There is no such signal.
    """
    name = ""
    if isinstance(value, bool):
        number = 0
    elif isinstance(value, int):
        number = int(value)
    else:
        name = value.strip().upper().removeprefix("SIG")
        real_time = _REAL_TIME.fullmatch(name)
        if real_time is not None:
            number = _real_time(real_time[1] or real_time[2], int(real_time[3]))
        elif name.isascii() and name.isdigit():
            number = int(name[:5])
        else:
            number = int(signal.Signals.__members__.get("SIG" + name, 0))
    if number not in _valid_signals():
        # Without SIG, which would make all of them look alike.
        names = [each.removeprefix("SIG") for each in signal.Signals.__members__]
        closest = _closest(name, names)
        hint = f"did you mean 'SIG{closest}'?" if closest else "write 'SIGTERM' or so"
        raise ValueError(f"{value!r} is not a signal; {hint}")
    return number


def _real_time(name: str, offset: int) -> int:
    members = signal.Signals.__members__
    if "SIGRTMIN" not in members:
        return 0
    number = members["SIG" + name] + offset
    return number if members["SIGRTMIN"] <= number <= members["SIGRTMAX"] else 0


@functools.cache
def _valid_signals() -> frozenset[int]:
    return frozenset(int(number) for number in signal.valid_signals())


Validator = Callable[[Any, "attrs.Attribute[Any]", Any], object]
