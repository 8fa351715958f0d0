"""The native adapter on real processes; the other platforms refuse, and say so."""

from __future__ import annotations

import os
import signal
from contextlib import aclosing

import anyio
import pytest

from duende.core import (
    AlreadyRunning,
    DaemonConfig,
    DaemonStatus,
    InvalidState,
    NativeAdapter,
    NotFound,
    NotSupported,
    SpawnError,
    select_adapter,
)
from duende.core.adapters.base import DaemonHandle
from duende.core.config.model import StopConfig

pytestmark = [pytest.mark.anyio, pytest.mark.real]


def shell(script: str, name: str = "sh") -> DaemonConfig:
    """This is a daemon of a few lines of shell."""
    return DaemonConfig(
        name=name, command=("sh", "-c", script), stop=StopConfig(timeout=0.3)
    )


async def test_what_is_spawned_is_the_program_that_was_asked_for() -> None:
    """The process exists, runs our argv, and its exit code comes back."""
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(shell("read x < /dev/null; exit 4"))
            assert 4 == (await adapter.wait(handle)).code
            status = await adapter.status(handle)
    assert DaemonStatus.FAILED is status.state


async def test_logs_come_whole_and_end_with_the_daemon() -> None:
    """Every line, in order, also the one without a newline."""
    script = "for i in 1 2 3; do echo $i; done; printf last"
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(shell(script))
            lines = [line async for line in adapter.logs(handle, follow=True)]
    assert [b"1", b"2", b"3", b"last"] == lines


async def test_stop_climbs_to_sigkill() -> None:
    """A daemon that ignores its stop signal is killed when the timeout is over."""
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(
                shell("trap '' TERM; echo up; while :; do sleep 100; done")
            )
            async with aclosing(adapter.logs(handle, follow=True)) as lines:
                assert b"up" == await anext(lines)
            assert signal.SIGKILL == (await adapter.stop(handle)).signal
            assert DaemonStatus.STOPPED is (await adapter.status(handle)).state


async def test_pause_and_resume() -> None:
    """A stopped tree is seen as paused until it is continued."""
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(shell("sleep 100"))
            await adapter.pause(handle)
            assert DaemonStatus.PAUSED is (await adapter.status(handle)).state
            await adapter.resume(handle)
            assert DaemonStatus.RUNNING is (await adapter.status(handle)).state
            await adapter.kill(handle)


async def test_a_signal_reaches_the_main_process() -> None:
    """The daemon's own handler runs."""
    script = "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.01; done"
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(shell(script))
            seen = []
            async for line in adapter.logs(handle, follow=True):
                seen.append(line)
                if line == b"up":
                    await adapter.signal(handle, signal.SIGUSR1)
            assert 3 == (await adapter.wait(handle)).code
    assert [b"up", b"got"] == seen


async def test_a_second_start_is_refused_and_the_first_unharmed() -> None:
    """One daemon a name."""
    async with NativeAdapter() as adapter:
        with anyio.fail_after(10):
            handle = await adapter.spawn(shell("sleep 100"))
            with pytest.raises(AlreadyRunning, match="sh"):
                await adapter.spawn(shell("sleep 100"))
            assert DaemonStatus.RUNNING is (await adapter.status(handle)).state


async def test_what_can_not_be_executed_is_told_apart_from_an_exit() -> None:
    """A missing program is a SpawnError, not an exit code 127."""
    async with NativeAdapter() as adapter:
        with pytest.raises(SpawnError, match="/no/such"):
            await adapter.spawn(DaemonConfig(name="x", command=("/no/such",)))


async def test_leaving_the_context_ends_the_daemons() -> None:
    """Nothing outlives the adapter."""
    async with NativeAdapter() as adapter:
        handle = await adapter.spawn(shell("sleep 100"))
        pid = (await adapter.status(handle)).pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_strangers_and_closed_adapters_are_refused() -> None:
    """A handle of somebody else is NotFound; without a context nothing starts."""
    stranger = DaemonHandle(platform="native", name="x", run="y")
    async with NativeAdapter() as adapter:
        with pytest.raises(NotFound):
            await adapter.status(stranger)
    with pytest.raises(InvalidState, match="async with"):
        await NativeAdapter().spawn(shell("true"))


@pytest.mark.parametrize(
    "platform", ["systemd", "launchd", "container", "pepita", "wos"]
)
async def test_platforms_that_are_not_there_say_so(platform: str) -> None:
    """Choosing one raises NotSupported with its name."""
    with pytest.raises(NotSupported, match=platform):
        select_adapter(platform)


async def test_auto_and_native_are_the_native_adapter() -> None:
    """Both names give the adapter for processes."""
    assert isinstance(select_adapter("auto"), NativeAdapter)
    assert isinstance(select_adapter("native"), NativeAdapter)


async def test_an_unknown_platform_lists_the_known_ones() -> None:
    """The message helps."""
    with pytest.raises(NotSupported, match="known: native"):
        select_adapter("cloud")
