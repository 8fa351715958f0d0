"""What there is to run: instances expanded, in the order they start.

Pure. `DaemonSpec` is one slot (`web`, or `web-0`), `Plan` all of them.
"""

from __future__ import annotations

from typing import final

import attrs

from duende.core.config.model import DaemonConfig, Dependency, ProjectConfig
from duende.core.machines.graph import topological_order, waves
from duende.core.types import BackoffConfig

__all__ = (
    "DaemonSpec",
    "Plan",
    "backoff_schedule",
    "instance_names",
    "longest_stop_chain",
    "plan_project",
    "start_waves",
)


@final
@attrs.frozen(kw_only=True)
class DaemonSpec:
    """This is one daemon to run: an instance of a `[daemon.x]`.

    `name` is the slot (`web`, or `web-1`), `base` the name in the file, and
    `depends_on` maps slots, no longer base names, to the edge.
    """

    name: str
    base: str
    instance: int
    config: DaemonConfig
    depends_on: dict[str, Dependency] = attrs.Factory(dict)


@final
@attrs.frozen
class Plan:
    """This is everything a project runs; `specs` is in the order of starting."""

    specs: dict[str, DaemonSpec]

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """The dependency graph of the slots, for `machines.graph`."""
        return {name: tuple(spec.depends_on) for name, spec in self.specs.items()}


def instance_names(config: DaemonConfig) -> tuple[str, ...]:
    """This lists a daemon's slots: `web`, or `web-0`, `web-1` … where several."""
    if config.instances == 1:
        return (config.name,)
    return tuple(f"{config.name}-{index}" for index in range(config.instances))


def plan_project(config: ProjectConfig) -> Plan:
    """This expands the instances and puts them into starting order.

    A dependency on a name is one on all its instances; one on a name that the
    project doesn't have is left out (`load_project` refuses it).

    Raises:
        CycleError: `depends_on` goes round in a circle.
    """
    slots = {name: instance_names(daemon) for name, daemon in config.daemons.items()}
    specs = {
        slot: DaemonSpec(
            name=slot,
            base=name,
            instance=index,
            config=daemon,
            depends_on={
                target: edge
                for base, edge in daemon.depends_on.items()
                for target in slots.get(base, ())
            },
        )
        for name, daemon in config.daemons.items()
        for index, slot in enumerate(slots[name])
    }
    bases = {name: tuple(daemon.depends_on) for name, daemon in config.daemons.items()}
    return Plan(
        {slot: specs[slot] for base in topological_order(bases) for slot in slots[base]}
    )


def start_waves(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """This groups the slots into waves; each depends on earlier ones only."""
    return waves(plan.edges)


def longest_stop_chain(config: ProjectConfig) -> float:
    """This sums the stop timeouts along the longest chain of `depends_on`, in seconds.

    It is how long an orderly shutdown may take when everything takes as long as it
    may, and so the default of `shutdown_timeout`. Without daemons it is 0.
    """
    longest: dict[str, float] = {}
    edges = {name: tuple(daemon.depends_on) for name, daemon in config.daemons.items()}
    for name in topological_order(edges):
        before = max((longest.get(base, 0.0) for base in edges[name]), default=0.0)
        longest[name] = before + config.daemons[name].stop.timeout
    return max(longest.values(), default=0.0)


def backoff_schedule(
    backoff: BackoffConfig, count: int
) -> list[tuple[float, float, float]]:
    """This lists the first `count` delays as (shortest, nominal, longest) seconds."""
    schedule = []
    nominal = min(backoff.initial, backoff.max)
    for _ in range(count):
        spread = nominal * backoff.jitter
        schedule.append((max(0.0, nominal - spread), nominal, nominal + spread))
        # Step by step: multiplier ** n would overflow long after max is reached.
        nominal = min(nominal * backoff.multiplier, backoff.max)
    return schedule
