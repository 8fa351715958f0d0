"""Instances, starting order, stop chains and backoff schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.model import DaemonConfig, ProjectConfig, StopConfig
from duende.core.config.plan import (
    backoff_schedule,
    longest_stop_chain,
    plan_project,
    start_waves,
)
from duende.core.machines.graph import CycleError
from duende.core.types import BackoffConfig


def _daemon(
    name: str, *targets: str, instances: int = 1, stop: float = 10.0
) -> DaemonConfig:
    return DaemonConfig(
        name=name,
        command=("x",),
        depends_on=list(targets),
        instances=instances,
        stop=StopConfig(timeout=stop),
    )


def _project(*daemons: DaemonConfig) -> ProjectConfig:
    return ProjectConfig(daemons={daemon.name: daemon for daemon in daemons})


def test_instances_are_expanded() -> None:
    """A dependency on a name is one on all its instances, and comes before."""
    plan = plan_project(
        _project(_daemon("web", "db", instances=2), _daemon("db", instances=2))
    )
    assert list(plan.specs) == ["db-0", "db-1", "web-0", "web-1"]
    web = plan.specs["web-1"]
    assert (web.base, web.instance, web.config.name) == ("web", 1, "web")
    assert list(web.depends_on) == ["db-0", "db-1"]
    assert start_waves(plan) == (("db-0", "db-1"), ("web-0", "web-1"))


def test_one_instance_keeps_its_name() -> None:
    """With one instance the slot is called like the daemon."""
    plan = plan_project(_project(_daemon("web")))
    assert [(spec.name, spec.instance) for spec in plan.specs.values()] == [("web", 0)]


def test_a_cycle_has_no_plan() -> None:
    """A configuration built in Python may have a cycle; it is named."""
    with pytest.raises(CycleError, match="a -> b -> a"):
        plan_project(_project(_daemon("a", "b"), _daemon("b", "a")))


def test_the_longest_stop_chain() -> None:
    """The timeouts along the slowest chain add up; side branches don't."""
    config = _project(
        _daemon("a", stop=1),
        _daemon("b", "a", stop=2),
        _daemon("c", "b", "a", stop=4),
        _daemon("d", "a", stop=5.5),
        _daemon("e", stop=3),
    )
    assert longest_stop_chain(config) == 7.0
    assert longest_stop_chain(ProjectConfig()) == 0.0


def test_the_default_schedule() -> None:
    """The delays are min(initial * multiplier**n, max), then plus or minus jitter."""
    nominal = [delay for _, delay, _ in backoff_schedule(BackoffConfig(), 8)]
    assert nominal == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_schedule(BackoffConfig(), 1) == [(0.9, 1.0, 1.1)]


@given(
    st.builds(
        BackoffConfig,
        initial=st.floats(0, 1e3),
        multiplier=st.floats(1, 1e6),
        max=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
    st.integers(0, 200),
)
def test_schedules_are_bounded(backoff: BackoffConfig, count: int) -> None:
    """However steep, no delay overflows, shrinks, or leaves its bounds."""
    schedule = backoff_schedule(backoff, count)
    assert len(schedule) == count
    nominal = [delay for _, delay, _ in schedule]
    assert nominal == sorted(nominal)
    for low, delay, high in schedule:
        assert 0 <= low <= delay <= high
        assert delay <= backoff.max
