"""How each field of the model is written in a file: its parser and its JSON Schema.

Pure. One table for both, so that what `duende schema` says is what `load_project`
does. Parsers are strict: nothing is converted that the contract doesn't name, so
`"5"` is no number and `1` is no boolean.
"""

from __future__ import annotations

import datetime
import enum
import signal
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import attrs

from duende.core.config.command import split_command
from duende.core.config.model import (
    Dependency,
    DependencyState,
    OnRestart,
    ReadyConfig,
    ready_table,
)
from duende.core.config.source import KeyPath
from duende.core.config.units import (
    CPU_PATTERN,
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_cpu,
    parse_duration,
    parse_size,
)
from duende.core.config.values import nearest, signal_text, variable_problem
from duende.core.types import BackoffConfig

__all__ = ("FORMS", "Form", "Problems", "dependency_table", "form_of", "shown")

Schema = dict[str, Any]
Parser = Callable[[Any], Any]


class Problems(ValueError):
    """Several things are wrong inside one value: the path to each, and what."""

    def __init__(self, found: list[tuple[KeyPath, str]]) -> None:
        super().__init__(found)
        self.found = found


@final
@attrs.frozen
class Form:
    """This is a way to write a value; `nested` is the attrs class of a table."""

    parse: Parser
    schema: Schema
    nested: type[Any] | None = None


def shown(value: object) -> str:
    """This shows a value of a file in a message, with its kind and not too long."""
    kinds = {dict: "a table", list: "a list", bool: "the boolean "}
    kind = kinds.get(type(value), "")
    if isinstance(value, (dict, list)):
        return kind
    if isinstance(value, bool):
        return f"{kind}{str(value).lower()}"
    if not isinstance(value, (str, int, float)):
        return f"{value}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text in quotes, not {shown(value)}")
    if "\0" in value:
        raise ValueError("has a NUL character in it")
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, not {shown(value)}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{shown(value)} is too large") from None


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, not {shown(value)}")
    return value


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, not {shown(value)}")
    return value


def _ready_table(value: object) -> dict[str, Any]:
    # A right text is a table by now; a wrong one says what it could have been.
    return ready_table(value) if isinstance(value, str) else _table(value)


def _each(value: object, what: str, parse: Parser) -> tuple[Any, ...]:
    """This parses a list, and reports the problems of all its elements."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list of {what}, not {shown(value)}")
    parsed = []
    found: list[tuple[KeyPath, str]] = []
    for index, element in enumerate(value):
        try:
            parsed.append(parse(element))
        except (ValueError, TypeError) as err:
            found.append(((index,), str(err)))
    if found:
        raise Problems(found)
    return tuple(parsed)


def _texts(value: object) -> tuple[str, ...]:
    return _each(value, "texts", _text)


def _codes(value: object) -> tuple[int, ...]:
    return _each(value, "whole numbers", _integer)


def _command(value: object) -> tuple[str, ...]:
    return split_command(_text(value)) if isinstance(value, str) else _texts(value)


def _signal(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"expected a signal such as 'SIGTERM', not {shown(value)}")
    return signal_text(value)


def _account(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"expected a name or a number, not {shown(value)}")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"can't be negative, as {value} is")
    return _text(str(value))


def _umask(value: object) -> int:
    text = value if isinstance(value, str) and len(value) < 10 else ""
    if not text or set(text) - set("01234567") or int(text, 8) > 0o777:
        hint = " in quotes" if isinstance(value, int) else ""
        raise ValueError(
            f"expected octal digits{hint} such as '022', not {shown(value)}"
        )
    return int(text, 8)


def _lock_memory(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value != "required":
        raise ValueError(f"expected true, false or 'required', not {shown(value)}")
    return "required"


def _variables(value: object) -> dict[str, str]:
    variables = {}
    found: list[tuple[KeyPath, str]] = []
    for name, given in _table(value).items():
        if isinstance(given, bool):
            text = "true" if given else "false"
        elif isinstance(given, (str, int, float)):
            text = str(given)
        else:
            # The value is not shown: it may be a secret.
            found.append(((name,), "expected text, a number or a boolean"))
            continue
        problem = variable_problem(name, text)
        if problem is not None:
            found.append(((name,), problem))
        variables[name] = text
    if found:
        raise Problems(found)
    return variables


def _inherited(value: object) -> tuple[str, ...] | bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list):
        raise TypeError(f"expected a list of names, true or false, not {shown(value)}")
    return _texts(value)


def _plain(value: object) -> Any:
    """This makes settings JSON: dates and times become their ISO 8601 text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return value


def _settings(value: object) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(_table(value))
    return plain


def _enum_parser(kind: type[enum.Enum]) -> Parser:
    values = [member.value for member in kind]

    def parse(value: object) -> enum.Enum:
        if value not in values:
            known = ", ".join(map(repr, values))
            near = nearest(value, values) if isinstance(value, str) else ""
            raise ValueError(f"{shown(value)} is not one of {known}{near}")
        return kind(value)

    return parse


def dependency_table(value: object) -> Mapping[str, object]:
    """This turns each way to write `depends_on` into a table of tables, unchecked.

    Raises:
        TypeError: It is neither a list nor a table.
        Problems: Elements of the list are no texts.
    """
    if isinstance(value, list):
        return {name: {} for name in _texts(value)}
    if not isinstance(value, dict):
        raise TypeError(
            f"expected a list of names or a table such as {{ db = 'ready' }}, "
            f"not {shown(value)}"
        )
    return {
        name: {"until": edge} if isinstance(edge, str) else edge
        for name, edge in value.items()
    }


_EDGE_PARSERS: Final[dict[str, Parser]] = {
    "until": _enum_parser(DependencyState),
    "on_restart": _enum_parser(OnRestart),
}


def _dependencies(value: object) -> dict[str, Dependency]:
    edges = {}
    found: list[tuple[KeyPath, str]] = []
    for name, table in dependency_table(value).items():
        if not isinstance(table, dict):
            expected = "'ready' or a table such as { until = 'ready' }"
            found.append(((name,), f"expected {expected}, not {shown(table)}"))
            continue
        arguments = {}
        for key, given in table.items():
            parse = _EDGE_PARSERS.get(key)
            if parse is None:
                near = nearest(key, _EDGE_PARSERS)
                found.append(((name, key), f"unknown key{near}"))
                continue
            try:
                arguments[key] = parse(given)
            except (ValueError, TypeError) as err:
                found.append(((name, key), str(err)))
        if len(arguments) == len(table):
            edges[name] = Dependency(**arguments)
    if found:
        raise Problems(found)
    return edges


_STATE_SCHEMA: Final[Schema] = {"enum": [state.value for state in DependencyState]}
_EDGE_SCHEMA: Final[Schema] = {
    "anyOf": [
        _STATE_SCHEMA,
        {
            "type": "object",
            "properties": {
                "until": {**_STATE_SCHEMA, "default": "ready"},
                "on_restart": {
                    "enum": [choice.value for choice in OnRestart],
                    "default": "ignore",
                },
            },
            "additionalProperties": False,
        },
    ]
}
_SIGNAL_NAMES: Final = "|".join(
    sorted(name.removeprefix("SIG") for name in signal.Signals.__members__)
)
_SIGNAL_SCHEMA: Final[Schema] = {
    "anyOf": [
        {
            "type": "string",
            "pattern": rf"^(SIG)?({_SIGNAL_NAMES}|RTMIN\+\d+|RTMAX-\d+)$|^\d+$",
        },
        {"type": "integer", "minimum": 1},
    ]
}
_TEXTS_SCHEMA: Final[Schema] = {"type": "array", "items": {"type": "string"}}
_ARGV_SCHEMA: Final[Schema] = {**_TEXTS_SCHEMA, "minItems": 1}

FORMS: Final[dict[str, Form]] = {
    "duration": Form(
        parse_duration,
        {
            "anyOf": [
                {"type": "string", "pattern": DURATION_PATTERN},
                {"type": "number", "minimum": 0},
            ]
        },
    ),
    "size": Form(
        parse_size,
        {
            "anyOf": [
                {"type": "string", "pattern": SIZE_PATTERN},
                {"type": "integer", "minimum": 0},
            ]
        },
    ),
    "cpu": Form(parse_cpu, {"type": "string", "pattern": CPU_PATTERN}),
    "signal": Form(_signal, _SIGNAL_SCHEMA),
    "argv": Form(_texts, _ARGV_SCHEMA),
    "texts": Form(_texts, _TEXTS_SCHEMA),
    "command": Form(
        _command, {"anyOf": [{"type": "string", "minLength": 1}, _ARGV_SCHEMA]}
    ),
    "account": Form(
        _account,
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer"}]},
    ),
    "codes": Form(
        _codes,
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    ),
    "umask": Form(_umask, {"type": "string", "pattern": "^0*[0-7]{1,3}$"}),
    "lock-memory": Form(_lock_memory, {"enum": [False, True, "required"]}),
    "settings": Form(_settings, {"type": "object"}),
    "env": Form(
        _variables,
        {
            "type": "object",
            "propertyNames": {"pattern": "^[^=]+$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
    ),
    "depends-on": Form(
        _dependencies,
        {
            "anyOf": [
                _TEXTS_SCHEMA,
                {"type": "object", "additionalProperties": _EDGE_SCHEMA},
            ]
        },
    ),
    "inherit-env": Form(_inherited, {"anyOf": [_TEXTS_SCHEMA, {"type": "boolean"}]}),
}
"""The forms that the model's fields name in their metadata."""

_PLAIN: Final[dict[object, Form]] = {
    str: Form(_text, {"type": "string"}),
    int: Form(_integer, {"type": "integer"}),
    float: Form(_number, {"type": "number"}),
    bool: Form(_boolean, {"type": "boolean"}),
}

_BACKOFF_FORMS: Final = {
    "initial": "duration",
    "max": "duration",
    "reset_after": "duration",
}
"""The durations of BackoffConfig, which belongs to `types` and knows no files."""


def form_of(owner: type[Any], field: attrs.Attribute[Any]) -> Form:
    """This gives the form of a field: what its metadata names, or its type's own."""
    name = field.metadata.get("form")
    if owner is BackoffConfig:
        name = _BACKOFF_FORMS.get(field.name)
    if name is not None and name in FORMS:
        return FORMS[name]
    kind = _without_none(typing.get_type_hints(owner)[field.name])
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_form(kind)
    if isinstance(kind, type) and attrs.has(kind):
        parse = _ready_table if kind is ReadyConfig else _table
        return Form(parse, {"$ref": f"#/$defs/{kind.__name__}"}, kind)
    raise AssertionError(f"{owner.__name__}.{field.name} has no form in a file")


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (each for each in typing.get_args(kind) if each is not type(None))
    return kind


def _enum_form(kind: type[enum.Enum]) -> Form:
    return Form(_enum_parser(kind), {"enum": [member.value for member in kind]})
