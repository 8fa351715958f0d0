"""What all tests of duende-core share: both event loops, and no blocking of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every test marked `anyio` runs on both loops."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call of ours that blocks the event loop fails the test (seen on asyncio).

    Sleeping and sockets, that is. Local files may be touched: to hand a read of /proc
    or of a small file to a thread costs more than it waits.
    """
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    blocker = BlockBuster("duende.core")
    watched = [
        function
        for name, function in blocker.functions.items()
        if name == "time.sleep" or name.startswith("socket.")
    ]
    for function in watched:
        function.activate()
    try:
        yield
    finally:
        for function in watched:
            function.deactivate()
