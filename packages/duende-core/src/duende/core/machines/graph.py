"""Dependency graphs: which order, which waves, where a cycle is.

Pure functions over `edges`, which maps each node to what it depends on. A
dependency that is no key of `edges` is ignored: it isn't part of the question.
Nothing recurses, so a chain of a hundred thousand nodes is only slow, never deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

__all__ = ("CycleError", "find_cycle", "render_cycle", "topological_order", "waves")


@final
class CycleError(ValueError):
    """The graph has a cycle, so it has no order. `cycle` ends where it begins."""

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__(cycle)
        self.cycle = cycle

    def __str__(self) -> str:
        return f"cycle: {render_cycle(self.cycle)}"


def render_cycle(cycle: Iterable[str]) -> str:
    """This writes a cycle for a person: `a -> b -> a`."""
    return " -> ".join(cycle)


def find_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """This finds one cycle, as a closed path (`("a", "b", "a")`), or None.

    The same graph always gives the same cycle: the first one met when following
    the dependencies in their order, from the first node on.
    """
    finished: set[str] = set()
    for root in edges:
        if root in finished:
            continue
        path = [root]
        on_path = {root}
        branches = [iter(edges[root])]
        while branches:
            following = next(branches[-1], None)
            if following is None:
                branches.pop()
                node = path.pop()
                on_path.remove(node)
                finished.add(node)
            elif following in on_path:
                return (*path[path.index(following) :], following)
            elif following in edges and following not in finished:
                path.append(following)
                on_path.add(following)
                branches.append(iter(edges[following]))
    return None


def waves(edges: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """This groups the nodes so that each wave depends on earlier waves only.

    A node is in the earliest wave it can be in; inside a wave, nodes keep the
    order of `edges`.

    Raises:
        CycleError: There is no such grouping.
    """
    position = {node: index for index, node in enumerate(edges)}
    missing: dict[str, int] = {}
    dependents: dict[str, list[str]] = {node: [] for node in edges}
    for node, dependencies in edges.items():
        inside = {name for name in dependencies if name in position}
        missing[node] = len(inside)
        for name in inside:
            dependents[name].append(node)
    wave = [node for node in edges if not missing[node]]
    grouped: list[tuple[str, ...]] = []
    while wave:
        grouped.append(tuple(wave))
        following = []
        for node in wave:
            for dependent in dependents[node]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    following.append(dependent)
        wave = sorted(following, key=position.__getitem__)
    if sum(map(len, grouped)) < len(position):
        cycle = find_cycle(edges)
        assert cycle is not None, "nodes that never get free are on or behind a cycle"
        raise CycleError(cycle)
    return tuple(grouped)


def topological_order(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """This orders the nodes so that each comes after all it depends on.

    Raises:
        CycleError: There is no such order.
    """
    return tuple(node for wave in waves(edges) for node in wave)
