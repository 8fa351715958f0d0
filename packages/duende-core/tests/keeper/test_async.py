"""The connection of a control plane: batches, replies, and the loss of the keeper."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from duende.core.keeper_client import AsyncKeeper, KeeperLost, KeeperRefused

from .helpers import DEADLINE, Project

pytestmark = [pytest.mark.real, pytest.mark.anyio]


async def test_many_exits_come_in_few_batches(project: Project) -> None:
    """Events of one moment are handed over together, in order, none lost."""
    keeper = AsyncKeeper(project.connection)
    seen: list[dict[str, Any]] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(keeper.serve)
        for number in range(100):
            keeper.send_nowait(
                project.spec(f"d{number}", ["/bin/true"], log=None, run=f"r{number}")
            )
        with anyio.fail_after(DEADLINE):
            async for batch in keeper.batches():
                assert batch
                seen += [event for event in batch if event["ev"] == "exit"]
                if len(seen) == 100:
                    break
        tasks.cancel_scope.cancel()
    assert {event["run"] for event in seen} == {f"r{n}" for n in range(100)}
    numbers = [event["seq"] for event in seen]
    assert numbers == sorted(numbers)


async def test_replies_find_their_requests(project: Project) -> None:
    """Requests that overlap each get their own answer, whoever reads the events."""
    keeper = AsyncKeeper(project.connection)
    results: dict[int, Any] = {}

    async def ask(number: int) -> None:
        if number % 2:
            results[number] = await keeper.request("flush", names=[])
        else:
            with pytest.raises(KeeperRefused) as refused:
                await keeper.request("tree", name="nobody")
            results[number] = refused.value.reason

    async with anyio.create_task_group() as tasks:
        await tasks.start(keeper.serve)
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as asking:
                for number in range(50):
                    asking.start_soon(ask, number)
        tasks.cancel_scope.cancel()
    assert len(results) == 50
    assert results[1]["ok"] is True
    assert results[2] == "no such slot"


async def test_a_backlog_is_sent_when_the_socket_has_room(project: Project) -> None:
    """More than the socket takes at once is queued and arrives, in order."""
    keeper = AsyncKeeper(project.connection)
    text = "x" * 100_000
    async with anyio.create_task_group() as tasks:
        await tasks.start(keeper.serve)
        for number in range(100):
            keeper.send_nowait({"op": "put", "name": "", "blob": [number, text]})
        with anyio.fail_after(DEADLINE):
            await keeper.request("flush", names=[])
        tasks.cancel_scope.cancel()
    snapshot = await anyio.to_thread.run_sync(lambda: project.connect().peek())
    assert snapshot.blob == [99, text]


async def test_the_loss_is_told_to_everybody(project: Project) -> None:
    """The death of the keeper ends the batches and every request that waits."""
    keeper = AsyncKeeper(project.connection)
    lost: list[str] = []

    async def ask() -> None:
        with pytest.raises(KeeperLost):
            await keeper.request("flush", names=None)
        lost.append("request")

    async def listen() -> None:
        with pytest.raises(KeeperLost):
            async for _ in keeper.batches():
                pass
        lost.append("batches")

    os.kill(project.pid, signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        await tasks.start(keeper.serve)
        tasks.start_soon(ask)
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        os.kill(project.pid, signal.SIGKILL)
        with anyio.fail_after(DEADLINE):
            while len(lost) < 2:
                await anyio.lowlevel.checkpoint()
    assert keeper.is_lost
    with pytest.raises(KeeperLost):
        await keeper.request("flush", names=[])
    keeper.send_nowait({"op": "flush"})
