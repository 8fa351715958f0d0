"""Orders, waves and cycles of dependency graphs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.machines.graph import (
    CycleError,
    find_cycle,
    render_cycle,
    topological_order,
    waves,
)

NODES = [f"n{index}" for index in range(8)]
GRAPHS = st.dictionaries(
    st.sampled_from(NODES), st.lists(st.sampled_from([*NODES, "unknown"]), max_size=4)
)


@given(GRAPHS)
def test_order_or_cycle(edges: dict[str, list[str]]) -> None:
    """A graph has either an order that respects every edge, or a real cycle."""
    cycle = find_cycle(edges)
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        for node, following in itertools.pairwise(cycle):
            assert following in edges[node]
        with pytest.raises(CycleError) as caught:
            topological_order(edges)
        assert find_cycle({node: edges[node] for node in caught.value.cycle})
        return
    order = topological_order(edges)
    assert sorted(order) == sorted(edges)
    for node, dependencies in edges.items():
        for dependency in set(dependencies) & edges.keys():
            assert order.index(dependency) < order.index(node)


@given(GRAPHS)
def test_waves_are_as_early_as_can_be(edges: dict[str, list[str]]) -> None:
    """A node is exactly one wave after the last of its dependencies."""
    if find_cycle(edges) is not None:
        return
    grouped = waves(edges)
    wave_of = {node: index for index, wave in enumerate(grouped) for node in wave}
    position = list(edges)
    for node, dependencies in edges.items():
        inside = [wave_of[name] for name in dependencies if name in edges]
        assert wave_of[node] == max(inside, default=-1) + 1
    for wave in grouped:
        assert list(wave) == sorted(wave, key=position.index)


def test_cycle_is_written_closed() -> None:
    """A cycle reads as the contract writes it."""
    cycle = find_cycle({"x": ["a"], "a": ["b"], "b": ["a"]})
    assert cycle == ("a", "b", "a")
    assert render_cycle(cycle) == "a -> b -> a"
    assert str(CycleError(cycle)) == "cycle: a -> b -> a"


def test_self_dependency_is_a_cycle() -> None:
    """A node that depends on itself is the shortest cycle."""
    assert find_cycle({"a": ["a"]}) == ("a", "a")


@pytest.mark.parametrize("closed", [False, True])
def test_long_chains_do_not_recurse(closed: bool) -> None:
    """A chain far beyond the recursion limit is handled."""
    length = 20_000
    edges = {str(index): [str(index + 1)] for index in range(length)}
    edges[str(length)] = ["0"] if closed else []
    cycle = find_cycle(edges)
    if closed:
        assert cycle is not None
        assert len(cycle) == length + 2
    else:
        assert cycle is None
        assert topological_order(edges)[0] == str(length)
