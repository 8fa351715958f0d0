"""A `ProjectConfig` as JSON and back: what STATE/accepted.json holds.

Without cattrs and without tomllib, since a control plane that takes over reads it
before anything else. What has its default is left out; enum members are their text.
Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

from duende.core.config.model import (
    ContainerConfig,
    DaemonConfig,
    Dependency,
    GroupConfig,
    HealthConfig,
    Intensity,
    LogConfig,
    ProjectConfig,
    ReadyConfig,
    ReloadConfig,
    ResourcesConfig,
    RestartConfig,
    StopConfig,
    SupervisorConfig,
    SystemdConfig,
)
from duende.core.errors import ConfigError
from duende.core.types import BackoffConfig

__all__ = ("FORMAT", "config_from_json", "config_to_json")

FORMAT: Final = 1
"""The version of the JSON; another one is refused."""

_NESTED: Final[dict[tuple[type[Any], str], type[Any]]] = {
    (RestartConfig, "max_in_window"): Intensity,
    (RestartConfig, "backoff"): BackoffConfig,
    (DaemonConfig, "restart"): RestartConfig,
    (DaemonConfig, "ready"): ReadyConfig,
    (DaemonConfig, "health"): HealthConfig,
    (DaemonConfig, "stop"): StopConfig,
    (DaemonConfig, "reload"): ReloadConfig,
    (DaemonConfig, "resources"): ResourcesConfig,
    (DaemonConfig, "log"): LogConfig,
    (DaemonConfig, "container"): ContainerConfig,
    (DaemonConfig, "systemd"): SystemdConfig,
}
"""The fields that hold a value of a class of their own. Every other field has a
converter that takes what JSON gives."""


def config_to_json(config: ProjectConfig, file: str, sha256: str) -> dict[str, Any]:
    """This renders a configuration, with the file it is from and that file's digest."""
    return {
        "format": FORMAT,
        "file": str(file),
        "sha256": sha256,
        "supervisor": _encode(config.supervisor),
        "daemons": {name: _encode(each) for name, each in config.daemons.items()},
        "groups": {name: _encode(each) for name, each in config.groups.items()},
    }


def config_from_json(data: Mapping[str, Any]) -> ProjectConfig:
    """This reads what `config_to_json` rendered; `source` is not part of it.

    Raises:
        ConfigError: It is of another format, or damaged.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise ConfigError(
            "the recorded configuration is of a format this duende can't read",
            "stop the project with the duende that started it, then start it afresh",
        )
    try:
        return ProjectConfig(
            supervisor=_decode(SupervisorConfig, data["supervisor"]),
            daemons={
                name: _decode(DaemonConfig, each)
                for name, each in data["daemons"].items()
            },
            groups={
                name: _decode(GroupConfig, each)
                for name, each in data["groups"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise ConfigError(
            f"the recorded configuration is damaged: {err!r}",
            "run `duende down`, then `duende up`",
        ) from err


def _defaults(kind: type[Any]) -> tuple[tuple[str, object], ...]:
    return tuple(
        (
            field.name,
            field.default.factory()
            if isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]  # a class at run time, a function for type checkers
            else field.default,
        )
        for field in attrs.fields(kind)
    )


_DEFAULTS: Final[dict[type[Any], tuple[tuple[str, object], ...]]] = {
    kind: _defaults(kind)
    for kind in (SupervisorConfig, DaemonConfig, GroupConfig, *_NESTED.values())
} | {Dependency: _defaults(Dependency)}
"""Each class with its fields and their defaults, worked out once."""

_NESTED_OF: Final[dict[type[Any], tuple[tuple[str, type[Any]], ...]]] = {
    kind: tuple(
        (name, inner) for (owner, name), inner in _NESTED.items() if owner is kind
    )
    for kind in _DEFAULTS
}


def _encode(value: Any) -> dict[str, Any]:
    encoded = {}
    for name, default in _DEFAULTS[type(value)]:
        found = getattr(value, name)
        if found is not default and (found != default or type(found) is bool):
            encoded[name] = _plain(found)
    return encoded


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if type(value) in _DEFAULTS:
        return _encode(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _decode(kind: type[Any], data: Mapping[str, Any]) -> Any:
    arguments = dict(data)
    for name, inner in _NESTED_OF[kind]:
        if arguments.get(name) is not None:
            arguments[name] = _decode(inner, arguments[name])
    if kind is DaemonConfig and "depends_on" in arguments:
        arguments["depends_on"] = {
            target: _decode(Dependency, edge)
            for target, edge in arguments["depends_on"].items()
        }
    return kind(**arguments)
