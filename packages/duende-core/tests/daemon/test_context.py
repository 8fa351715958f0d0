"""The context: waits that end on stop, ticks at a fixed rate, streams of signals."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio.testing

from duende.core._hosting import hosted_config
from duende.core._signals import SignalStreams
from duende.core.context import DaemonContext
from duende.core.daemon import Daemon
from duende.core.errors import InvalidState

from .helpers import DEADLINE


class Nothing(Daemon):
    async def run(self, ctx: Any) -> None:
        return None


def make(said: list[Any] | None = None) -> tuple[DaemonContext, SignalStreams]:
    """This makes a context that no host stands behind."""
    daemon = Nothing()
    streams = SignalStreams()
    heard: list[Any] = [] if said is None else said
    context = DaemonContext(
        config=hosted_config(Nothing, "nothing", None, 10.0),
        settings={},
        metrics=daemon.metrics,
        notify=heard.append,
        signals=streams,
    )
    return context, streams


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> None:
    """This runs a test on a clock that jumps whenever everything waits."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(test, backend="trio", backend_options={"clock": clock})


@pytest.mark.anyio
@pytest.mark.parametrize("wait", ["sleep", "wait_shutdown", "every", "signals"])
async def test_every_wait_ends_on_stop(wait: str) -> None:
    """A stop ends a wait that has begun, and one that begins after it."""
    context, _ = make()
    ended: list[str] = []

    async def waiter(label: str) -> None:
        if wait == "sleep":
            await context.sleep(3600)
        elif wait == "wait_shutdown":
            await context.wait_shutdown()
        elif wait == "every":
            async for _ in context.every(3600):
                assert label == "before"
        else:
            with context.signals(signal.SIGUSR1) as stream:
                async for _ in stream:
                    pytest.fail("nobody sent a signal")
        ended.append(label)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(waiter, "before")
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            assert not context.should_shutdown
            context._begin_shutdown()
            assert context.should_shutdown
        await waiter("after")
    assert ended == ["before", "after"]


@pytest.mark.anyio
async def test_until_shutdown_cancels_its_body() -> None:
    """The scope ends on stop, also when it is entered after, and leaves no trace."""
    context, _ = make()
    with anyio.fail_after(DEADLINE):
        with context.until_shutdown():
            pass
        assert context._scopes == set()
        async with anyio.create_task_group() as group:
            with context.until_shutdown() as scope:
                group.start_soon(anyio.lowlevel.checkpoint)
                context._begin_shutdown()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        with context.until_shutdown():
            await anyio.sleep_forever()


def test_sleep_follows_the_loops_clock() -> None:
    """An hour of sleep takes an hour of the clock, which may be virtual."""

    async def test() -> None:
        context, _ = make()
        begun = anyio.current_time()
        await context.sleep(3600)
        assert anyio.current_time() - begun == pytest.approx(3600)

    in_virtual_time(test)


def test_every_is_fixed_rate_and_skips_what_is_late() -> None:
    """The first tick is at once; a slow body costs the ticks it ran over."""
    work = [0.0, 0.3, 2.5, 1.0, 0.0]

    async def test() -> None:
        context, _ = make()
        begun = anyio.current_time()
        seen: list[tuple[int, float]] = []
        async for tick in context.every(1.0):
            seen.append((tick, round(anyio.current_time() - begun, 6)))
            if len(seen) > len(work):
                break
            await anyio.sleep(work[len(seen) - 1])
        assert seen == [(0, 0.0), (1, 1.0), (2, 2.0), (5, 5.0), (6, 6.0), (7, 7.0)]

    in_virtual_time(test)


def test_every_does_not_drift() -> None:
    """After ten thousand ticks of a tenth the grid is where it was."""

    async def test() -> None:
        context, _ = make()
        begun = anyio.current_time()
        async for tick in context.every(0.1):
            if tick == 10_000:
                break
        assert anyio.current_time() - begun == pytest.approx(1000, abs=1e-6)

    in_virtual_time(test)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_every_refuses_what_is_no_period(seconds: float) -> None:
    """A period is a finite number above zero."""
    context, _ = make()
    with pytest.raises(ValueError):
        context.every(seconds)


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [-1, math.nan])
async def test_sleep_refuses_what_is_no_duration(seconds: float) -> None:
    """Negative sleeps are mistakes, not zero."""
    context, _ = make()
    with pytest.raises(ValueError):
        await context.sleep(seconds)


@pytest.mark.anyio
async def test_signal_streams() -> None:
    """Each listener gets what it asked for, once while it waits; then what is left."""
    context, streams = make()
    with anyio.fail_after(DEADLINE):
        with context.signals(signal.SIGUSR1, signal.SIGUSR2) as stream:
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
                assert streams.deliver(number)
            assert not streams.deliver(signal.SIGHUP)
            context._begin_shutdown()
            assert [number async for number in stream] == [
                signal.SIGUSR1,
                signal.SIGUSR2,
            ]
    assert not streams.deliver(signal.SIGUSR1)


@pytest.mark.parametrize("numbers", [(), (signal.SIGKILL,), (signal.SIGSTOP,), (999,)])
def test_signals_that_nobody_can_listen_for(numbers: tuple[int, ...]) -> None:
    """None at all, the uncatchable and the unknown are refused."""
    context, _ = make()
    with pytest.raises(ValueError):
        with context.signals(*numbers):
            pass


def test_notifications() -> None:
    """Ready is said once; a status is one line."""
    said: list[Any] = []
    context, _ = make(said)
    context.notify_ready()
    context.notify_ready()
    context.notify_status("two\nlines")
    assert said == [(("READY", "1"),), (("STATUS", "two lines"),)]


def test_task_group_only_while_running() -> None:
    """Outside run there is no task group, and the error says so."""
    context, _ = make()
    with pytest.raises(InvalidState, match="inside run"):
        _ = context.task_group


def test_logger_is_named_after_the_daemon() -> None:
    """The logger carries the daemon's name."""
    context, _ = make()
    assert context.logger.name == "nothing"
