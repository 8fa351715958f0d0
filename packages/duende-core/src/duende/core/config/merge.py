"""`[defaults]` under each daemon: short forms written out, then key by key. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from duende.core.config.forms import dependency_table
from duende.core.config.model import KINDS, ready_table
from duende.core.config.source import KeyPath

__all__ = ("expand", "merge_defaults", "written_path")

_EXCLUSIVE: Final[dict[KeyPath, frozenset[str]]] = {
    (): frozenset({"command", "entry"}),
    ("ready",): frozenset(KINDS),
    ("health",): frozenset(KINDS),
    ("reload",): frozenset({"signal", "exec"}),
}
"""Keys of which a table has one: a daemon's own puts the default's aside."""

_ENTRY_ONLY: Final = ("settings", "python")


def expand(table: Mapping[str, Any]) -> dict[str, Any]:
    """This writes out the short forms of one daemon's table, as far as they are right.

    What is wrong stays as it is, for the parser to refuse.
    """
    expanded = dict(table)
    if isinstance(expanded.get("restart"), str):
        expanded["restart"] = {"policy": expanded["restart"]}
    if isinstance(expanded.get("ready"), str):
        try:
            expanded["ready"] = ready_table(expanded["ready"])
        except ValueError:
            pass
    if "depends_on" in expanded:
        try:
            expanded["depends_on"] = dict(dependency_table(expanded["depends_on"]))
        except (ValueError, TypeError):
            pass
    return expanded


def merge_defaults(
    name: str, own: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """This merges the expanded defaults under the expanded table of a daemon.

    Keys that mean nothing for it (`settings` for a command, a dependency on
    itself) are not taken over.
    """
    merged = _merge(own, defaults, ())
    if "command" in merged:
        for key in _ENTRY_ONLY:
            if key not in own:
                merged.pop(key, None)
    edges, own_edges = merged.get("depends_on"), own.get("depends_on")
    if isinstance(edges, dict) and name in edges:
        if not isinstance(own_edges, dict) or name not in own_edges:
            del edges[name]
    return merged


def _merge(
    own: Mapping[str, Any], defaults: Mapping[str, Any], path: KeyPath
) -> dict[str, Any]:
    exclusive = _EXCLUSIVE.get(path, frozenset())
    dropped = exclusive if exclusive & own.keys() else frozenset()
    merged = {key: value for key, value in defaults.items() if key not in dropped}
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(value, dict):
            inherited = below if isinstance(below, dict) else {}
            merged[key] = _merge(value, inherited, (*path, key))
        else:
            merged[key] = value
    # Own dictionaries all the way down, since what is merged gets changed.
    return {
        key: _merge({}, value, (*path, key))
        if isinstance(value, dict) and key not in own
        else value
        for key, value in merged.items()
    }


def written_path(table: Mapping[str, Any], path: KeyPath) -> KeyPath | None:
    """This cuts a path to the part that a table, as written, has; None if it hasn't.

    A short form ends it: `restart = "allways"` has no `restart.policy`, so that is
    `("restart",)`.
    """
    value: Any = table
    for index, part in enumerate(path):
        if isinstance(value, dict):
            if part not in value:
                return None
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return path[:index]
    return path
