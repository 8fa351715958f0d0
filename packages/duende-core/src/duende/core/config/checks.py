"""What must fit together in a file: kinds, dependencies, groups, instances. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from duende.core.config.model import KINDS, DaemonConfig, DependencyState
from duende.core.config.plan import instance_names
from duende.core.config.source import KeyPath
from duende.core.config.values import is_name, nearest
from duende.core.machines.graph import find_cycle, render_cycle

__all__ = (
    "check_edges",
    "check_entry_only",
    "check_groups",
    "check_instances",
    "check_promises",
    "complete_kinds",
)

Report = Callable[[KeyPath, str], None]


def check_entry_only(
    own: Mapping[str, Any], table: Mapping[str, Any], report: Report
) -> None:
    """This refuses keys that a command would silently ignore."""
    if "entry" in table:
        return
    for key in ("settings", "python"):
        if key in own:
            report((key,), "is for an entry only, and this daemon has a command")


def complete_kinds(
    own: Mapping[str, Any], table: dict[str, Any], report: Report
) -> None:
    """This sees to it that `ready` and `health` have exactly one kind.

    An entry that only sets times keeps its default kind; a command that inherits
    only times from `[defaults]` has no check at all.
    """
    for key in ("ready", "health"):
        chosen = table.get(key)
        if not isinstance(chosen, dict):
            continue
        kinds = [kind for kind in KINDS if chosen.get(kind, False) is not False]
        if len(kinds) == 1:
            continue
        if not kinds:
            if "entry" in table and "notify" not in chosen:
                if key == "ready":
                    chosen["notify"] = True
                continue
            if key not in own:
                del table[key]
                continue
        known = ", ".join(KINDS[:-1])
        found = " and ".join(kinds) or "none"
        report((key,), f"needs exactly one of {known} and notify, and has {found}")
        for kind in kinds[1:]:
            del chosen[kind]


def check_edges(
    edges: Mapping[str, Sequence[str]], names: Sequence[str], report: Report
) -> None:
    """This refuses dependencies on what doesn't exist, and cycles.

    `names` are all daemons of the file, also those that can't be loaded.
    """
    for name, targets in edges.items():
        for target in targets:
            if target not in names:
                path = ("daemon", name, "depends_on", target)
                report(path, f"there is no daemon {target!r}{nearest(target, names)}")
    cycle = find_cycle(edges)
    if cycle is not None:
        report(
            ("daemon", cycle[0], "depends_on", cycle[1]),
            f"cycle: {render_cycle(cycle)}; remove one of these dependencies",
        )


def check_promises(daemons: Mapping[str, DaemonConfig], report: Report) -> None:
    """This refuses to wait for what a dependency can't become."""
    for name, daemon in daemons.items():
        for target, edge in daemon.depends_on.items():
            path = ("daemon", name, "depends_on", target)
            config = daemons.get(target)
            if config is None:
                continue
            if edge.until is DependencyState.HEALTHY and not config.has_health:
                report(
                    path,
                    f"'healthy' never comes, since {target!r} has no health; "
                    f"add [daemon.{target}.health], or write 'ready'",
                )
            if edge.until is DependencyState.COMPLETED and not config.oneshot:
                report(
                    path,
                    f"'completed' never comes, since {target!r} is no oneshot; "
                    f"add oneshot = true to [daemon.{target}], or write 'ready'",
                )


def check_groups(
    daemons: Mapping[str, DaemonConfig], groups: Sequence[str], report: Report
) -> None:
    """This refuses a `restart_group` that isn't defined."""
    for name, daemon in daemons.items():
        group = daemon.restart_group
        if group and group not in groups:
            report(
                ("daemon", name, "restart_group"),
                f"there is no [group.{group}]{nearest(group, groups)}",
            )


def check_instances(daemons: Mapping[str, DaemonConfig], report: Report) -> None:
    """This refuses instances whose names are too long, or another daemon's."""
    owners: dict[str, str] = {}
    for name, daemon in daemons.items():
        for slot in instance_names(daemon):
            owner = owners.setdefault(slot, name)
            if owner != name:
                report(
                    ("daemon", name),
                    f"an instance of {owner!r} and one of {name!r} would both be "
                    f"called {slot!r}; rename one of the two",
                )
        if not is_name(slot):
            report(
                ("daemon", name, "instances"),
                f"the instance {slot!r} would have a name of more than 63 characters",
            )
