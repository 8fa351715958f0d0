"""Daemons as tasks of this process: the same events as processes give."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from duende.core._drivers.task_host import TaskHost
from duende.core.context import DaemonContext
from duende.core.daemon import Daemon
from duende.core.errors import InvalidState, NotFound, NotSupported
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    Notified,
    Spawned,
    SpawnFailed,
)
from duende.core.types import ExitInfo

from .helpers import DEADLINE, eventually

pytestmark = pytest.mark.anyio


@attrs.frozen
class Settings:
    level: int = 0


class Worker(Daemon):
    settings: Settings

    async def run(self, ctx: DaemonContext) -> None:
        await ctx.wait_shutdown()

    async def reload(self, config: Any) -> None:
        self.reloaded = self.settings.level

    async def health_check(self) -> bool:
        return self.settings.level == 0


class Crasher(Daemon):
    async def run(self, ctx: Any) -> None:
        raise ValueError("boom\nsecond line")


class Listener(Daemon):
    async def run(self, ctx: DaemonContext) -> None:
        with ctx.signals(signal.SIGUSR1) as stream:
            ctx.notify_status("listening")
            async for number in stream:
                ctx.notify_status(number.name)


class Stubborn(Daemon):
    """This ignores its cancellation until it is let go."""

    def __init__(self) -> None:
        self.let_go = anyio.Event()

    async def run(self, ctx: Any) -> None:
        with anyio.CancelScope(shield=True):
            await self.let_go.wait()


class Bench:
    """This is a host with a recorder of its events."""

    def __init__(self) -> None:
        self.events: list[HostEvent] = []
        self._inside = False
        ticks = itertools.count(1)
        self.host = TaskHost(self._take, lambda: next(ticks))

    def _take(self, event: HostEvent) -> None:
        assert not self._inside, "delivered from inside a call"
        self.events.append(event)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """This calls the host, and fails if it calls back meanwhile."""
        self._inside = True
        try:
            function(*arguments)
        finally:
            self._inside = False

    def of(self, kind: type[Any], run: str = "r1") -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and e.run == run]

    async def wait_for(self, kind: type[Any], run: str = "r1") -> Any:
        await eventually(lambda: self.of(kind, run))
        return self.of(kind, run)[-1]

    async def wait_field(self, key: str, value: str, times: int = 1) -> None:
        await eventually(
            lambda: (
                sum((key, value) in event.fields for event in self.of(Notified))
                >= times
            )
        )


@asynccontextmanager
async def serving() -> AsyncIterator[Bench]:
    """This serves a host beside the test, within a deadline."""
    bench = Bench()
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            await group.start(lambda **kwargs: bench.host.serve(**kwargs))
            yield bench
            group.cancel_scope.cancel()


def keys(bench: Bench) -> list[str]:
    """This names what was delivered, in order."""
    return [
        event.fields[0][0] if isinstance(event, Notified) else type(event).__name__
        for event in bench.events
    ]


async def test_a_graceful_life() -> None:
    """Spawned, ready, stopping, exited with 0: in this order, with rising times."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.call(bench.host.spawn, "worker", "r1")
        await bench.wait_field("READY", "1")
        assert bench.of(Spawned) == [Spawned("worker", "r1", None, bench.events[0].at)]
        bench.call(bench.host.signal, "worker", "r1", signal.SIGTERM, "main")
        exited = await bench.wait_for(Exited)
    assert exited.exit == ExitInfo(code=0)
    assert exited.left == 0
    assert keys(bench) == ["Spawned", "READY", "STOPPING", "Exited"]
    times = [event.at for event in bench.events]
    assert times == sorted(times)


async def test_a_crash_and_the_next_run(caplog: pytest.LogCaptureFixture) -> None:
    """An error is code 1 with its line; it harms nobody, and the slot is free again."""
    async with serving() as bench:
        bench.host.add("crasher", Crasher, None, 10.0)
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "w")
        bench.host.spawn("crasher", "r1")
        exited = await bench.wait_for(Exited)
        assert exited.exit == ExitInfo(code=1)
        assert exited.text == "ValueError: boom"
        bench.host.spawn("crasher", "r2")
        await bench.wait_for(Exited, "r2")
        assert bench.of(Exited, "w") == []
    assert "the daemon failed: ValueError: boom" in caplog.text
    assert "Traceback" in caplog.text


async def test_settings_that_are_wrong_are_permanent() -> None:
    """Bad settings are no failed run to be tried again; a bad constructor is."""

    def broken() -> Daemon:
        raise OSError("no disk")

    async with serving() as bench:
        bench.host.add("worker", Worker, {"levle": 1}, 10.0)
        bench.host.spawn("worker", "r1")
        failed = await bench.wait_for(SpawnFailed)
        assert (failed.step, failed.permanent) == ("settings", True)
        assert "daemon.worker.settings.levle" in failed.text
        bench.host.add("worker", broken, None, 10.0)
        bench.host.spawn("worker", "r2")
        failed = await bench.wait_for(SpawnFailed, "r2")
        assert (failed.step, failed.permanent) == ("create", False)
        assert failed.text == "OSError: no disk"
        assert bench.of(Spawned) == []


async def test_kill() -> None:
    """SIGKILL ends a task that hangs, as death by signal 9."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "r1")
        bench.host.signal("worker", "r1", signal.SIGKILL, "tree")
        exited = await bench.wait_for(Exited)
    assert exited.exit == ExitInfo(signal=9)


async def test_a_task_that_ignores_the_kill_has_not_exited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Exited comes when the task really ends; until then the slot is taken."""
    stubborn = Stubborn()
    with caplog.at_level(logging.CRITICAL):
        async with serving() as bench:
            bench.host.add("stubborn", lambda: stubborn, None, 10.0)
            bench.host.spawn("stubborn", "r1")
            await bench.wait_field("READY", "1")
            bench.host.signal("stubborn", "r1", signal.SIGKILL, "tree")
            await anyio.wait_all_tasks_blocked()
            assert bench.of(Exited) == []
            with pytest.raises(InvalidState, match="has not ended"):
                bench.host.spawn("stubborn", "r2")
            with pytest.raises(InvalidState, match="has not ended"):
                bench.host.remove("stubborn")
            stubborn.let_go.set()
            exited = await bench.wait_for(Exited)
            assert exited.exit == ExitInfo(signal=9)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGCONT])
async def test_pausing_is_not_supported(number: signal.Signals) -> None:
    """A task can't be paused: the refusal names the signal and the daemon."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "r1")
        with pytest.raises(NotSupported, match=rf"{number.name} for 'worker'"):
            bench.host.signal("worker", "r1", number, "tree")
        bench.host.signal("worker", "r1", number, "rest")


async def test_reload_takes_what_add_said_last() -> None:
    """SIGHUP hands the newest settings over, with RELOADING and READY."""
    worker = Worker()
    async with serving() as bench:
        bench.host.add("worker", lambda: worker, {"level": 1}, 10.0)
        bench.host.spawn("worker", "r1")
        await bench.wait_field("READY", "1")
        bench.host.add("worker", lambda: worker, {"level": 2}, 10.0)
        bench.host.signal("worker", "r1", signal.SIGHUP, "main")
        await bench.wait_field("READY", "1", 2)
    assert worker.reloaded == 2
    assert "RELOADING" in keys(bench)


async def test_other_signals_reach_the_daemon() -> None:
    """A signal that is listened for arrives; another is refused, unharmed."""
    async with serving() as bench:
        bench.host.add("listener", Listener, None, 10.0)
        bench.host.spawn("listener", "r1")
        await bench.wait_field("STATUS", "listening")
        bench.call(bench.host.signal, "listener", "r1", signal.SIGUSR1, "main")
        await bench.wait_field("STATUS", "SIGUSR1")
        with pytest.raises(NotSupported, match="nothing in that task listens"):
            bench.host.signal("listener", "r1", signal.SIGUSR2, "main")
        assert bench.of(Exited) == []


async def test_signals_before_the_first_turn_are_kept() -> None:
    """A stop that follows the spawn at once is not lost."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "r1")
        bench.host.signal("worker", "r1", signal.SIGTERM, "main")
        exited = await bench.wait_for(Exited)
    assert exited.exit == ExitInfo(code=0)
    assert "READY" not in keys(bench)


async def test_signals_for_what_is_gone_are_passed_over() -> None:
    """Another run, another name, the rest of a tree: nobody, and no error."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "r1")
        await bench.wait_field("READY", "1")
        bench.host.signal("worker", "r0", signal.SIGKILL, "tree")
        bench.host.signal("nobody", "r1", signal.SIGKILL, "tree")
        bench.host.signal("worker", "r1", signal.SIGKILL, "rest")
        bench.host.signal("worker", "r1", 0, "main")
        await anyio.wait_all_tasks_blocked()
        assert bench.of(Exited) == []


async def test_health() -> None:
    """The daemon's own check is called; without a run there is none to call."""
    async with serving() as bench:
        bench.host.add("good", Worker, None, 10.0)
        bench.host.add("bad", Worker, {"level": 1}, 10.0)
        with pytest.raises(InvalidState):
            await bench.host.health("good")
        with pytest.raises(NotFound):
            await bench.host.health("nobody")
        for name in ("good", "bad"):
            bench.host.spawn(name, name)
            await bench.wait_for(Spawned, name)
        assert (await bench.host.health("good")).is_healthy
        assert not (await bench.host.health("bad")).is_healthy


async def test_the_tasks_end_with_the_host() -> None:
    """When serve is cancelled, the tasks are, and their ends are still told."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.spawn("worker", "r1")
        await bench.wait_field("READY", "1")
    assert isinstance(bench.events[-1], Exited)
    with pytest.raises(InvalidState, match="does not serve"):
        bench.host.spawn("worker", "r2")


async def test_names() -> None:
    """A removed daemon is unknown; removing twice is harmless."""
    async with serving() as bench:
        bench.host.add("worker", Worker, None, 10.0)
        bench.host.remove("worker")
        bench.host.remove("worker")
        with pytest.raises(NotFound):
            bench.host.spawn("worker", "r1")
