"""Short ways to make the values that the tests of the machines need."""

from __future__ import annotations

import itertools
from typing import Any

from duende.core.config.model import DaemonConfig, Dependency
from duende.core.config.plan import DaemonSpec
from duende.core.machines.effects import Effect
from duende.core.machines.supervision import Supervision
from duende.core.types import DaemonStatus

SECOND = 1_000_000_000


def make_spec(
    name: str, depends_on: dict[str, str] | None = None, **config: Any
) -> DaemonSpec:
    """This makes a slot that runs `program`, ready when started unless told."""
    edges = {
        other: Dependency(until=until) for other, until in (depends_on or {}).items()
    }
    return DaemonSpec(
        name=name,
        base=name,
        instance=0,
        config=DaemonConfig(
            name=name, command=("program",), depends_on=edges, **config
        ),
        depends_on=edges,
    )


def make_supervision(*specs: DaemonSpec, cap: int = 16) -> Supervision:
    """This makes a machine without jitter, whose runs are r1, r2, …"""
    numbers = itertools.count(1)
    return Supervision(
        {spec.name: spec for spec in specs},
        start_concurrency=cap,
        draw=lambda: 0.0,
        new_run=lambda: f"r{next(numbers)}",
    )


def take(machine: Supervision, kind: type[Effect]) -> list[Any]:
    """This drains the effects and gives those of one kind."""
    return [effect for effect in machine.drain() if isinstance(effect, kind)]


def statuses(machine: Supervision) -> dict[str, DaemonStatus]:
    """This maps each daemon to its status."""
    return {name: record.status for name, record in machine.records.items()}
