"""The JSON Schema of duende.toml (Draft 2020-12), for editors and `duende schema`.

Generated from the model and from `config.forms`, which `load_project` uses as well.
What needs the whole file to judge, such as a cycle, no schema can say.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs

from duende.core.config.forms import FORMS, Schema, form_of
from duende.core.config.load import TABLES
from duende.core.config.model import (
    KINDS,
    HealthConfig,
    ReadyConfig,
    ReloadConfig,
    SupervisorConfig,
)
from duende.core.config.units import format_duration, format_size
from duende.core.config.values import (
    NAME_PATTERN,
    check_address,
    check_entry,
    check_name,
    check_url,
)
from duende.core.types import RestartPolicy

__all__ = ("json_schema",)

_NAME: Schema = {"pattern": f"^{NAME_PATTERN.pattern}$"}
_SHORT_READY = r"^(notify$|https?://.|tcp://.+:[0-9]+$|unix:.)"
_ZERO_REFUSED = "[1-9]"
_PATTERNS: dict[object, str] = {
    check_entry: r"^[^:]+:[^:]+$",
    check_url: r"^https?://.",
    check_address: r"^.+:[0-9]+$",
    check_name: f"^({NAME_PATTERN.pattern})?$",
}
"""What a schema can say of what these validators let through."""


def json_schema() -> dict[str, Any]:
    """This makes the schema of a whole duende.toml."""
    definitions = {table.__name__: _table(table) for table in TABLES}
    daemon = definitions["DaemonConfig"]
    daemon["properties"].pop("name")
    del daemon["required"]
    daemon["not"] = {"required": ["command", "entry"]}
    one_program = {"anyOf": [{"required": ["command"]}, {"required": ["entry"]}]}
    names = {"propertyNames": _NAME}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "duende.toml",
        "description": "What duende runs, and how.",
        "type": "object",
        "properties": {
            "supervisor": {"$ref": f"#/$defs/{SupervisorConfig.__name__}"},
            "defaults": {
                "description": "Merged under each daemon, key by key.",
                "$ref": "#/$defs/DaemonConfig",
            },
            "daemon": {
                "type": "object",
                **names,
                "additionalProperties": {"$ref": "#/$defs/DaemonConfig"},
            },
            "group": {
                "type": "object",
                **names,
                "additionalProperties": {"$ref": "#/$defs/GroupConfig"},
            },
        },
        "additionalProperties": False,
        "if": {
            "not": {"properties": {"defaults": one_program}, "required": ["defaults"]}
        },
        "then": {"properties": {"daemon": {"additionalProperties": one_program}}},
        "$defs": definitions,
    }


def _table(kind: type[Any]) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": _first_line(kind),
        "properties": {
            field.name: _property(kind, field) for field in attrs.fields(kind)
        },
        "additionalProperties": False,
    }
    required = [
        field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING
    ]
    if required:
        schema["required"] = required
    if kind in (ReadyConfig, HealthConfig):
        schema["allOf"] = [
            {"not": {"required": [one, other], "properties": _both(one, other)}}
            for index, one in enumerate(KINDS)
            for other in KINDS[index + 1 :]
        ]
    if kind is ReloadConfig:
        schema["not"] = {"required": ["signal", "exec"]}
    return schema


def _both(first: str, second: str) -> Schema:
    # `notify = false` beside another kind is no second kind.
    return {"notify": {"const": True}} if "notify" in (first, second) else {}


def _property(kind: type[Any], field: attrs.Attribute[Any]) -> Schema:
    form = form_of(kind, field)
    schema = dict(form.schema)
    pattern = _PATTERNS.get(field.validator)
    if pattern is not None:
        schema["pattern"] = pattern
    bounds = getattr(field.validator, "schema", None)
    if bounds is not None:
        schema = _bounded(schema, bounds)
    short = field.metadata.get("short")
    if short == "restart":
        policies = {"enum": [policy.value for policy in RestartPolicy]}
        schema = {"anyOf": [policies, schema]}
    elif short == "ready":
        schema = {"anyOf": [{"type": "string", "pattern": _SHORT_READY}, schema]}
    default = _default(field, form.schema)
    if default is not None:
        schema["default"] = default
    return schema


def _bounded(schema: Schema, bounds: Schema) -> Schema:
    """This adds a validator's bounds to a plain number, or to each way to write it."""
    if "enum" in bounds or schema.get("type") in ("integer", "number"):
        return {**schema, **bounds}
    refuses_zero = bounds.get("exclusiveMinimum") == 0
    if "anyOf" in schema:
        return {"anyOf": [_bounded(each, bounds) for each in schema["anyOf"]]}
    if schema.get("type") == "string" and refuses_zero:
        return {**schema, "allOf": [{"pattern": _ZERO_REFUSED}]}
    return schema


def _default(field: attrs.Attribute[Any], schema: Schema) -> object:
    """This gives a field's default as one would write it in the file."""
    default = field.default
    if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time, a function for type checkers
        return None
    if isinstance(default, enum.Enum):
        return {"true": True, "false": False}.get(default.value, default.value)
    if isinstance(default, tuple):
        return list(default)
    if isinstance(default, bool) or not isinstance(default, (str, int, float)):
        return default if isinstance(default, bool) else None
    if schema == FORMS["duration"].schema:
        return format_duration(float(default))
    if schema == FORMS["size"].schema:
        return format_size(int(default))
    return default


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
