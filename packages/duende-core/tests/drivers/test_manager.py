"""`DaemonManager` with tasks of this process and with real processes, on both loops."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import attrs
import pytest

from duende.core import (
    AlreadyRunning,
    BackoffConfig,
    ConfigError,
    Daemon,
    DaemonConfig,
    DaemonContext,
    DaemonError,
    DaemonManager,
    DaemonStatus,
    Event,
    ExitReason,
    InvalidState,
    NotFound,
    NotSupported,
)
from duende.core.config.model import RestartConfig, StopConfig

pytestmark = pytest.mark.anyio

AT_ONCE = RestartConfig(backoff=BackoffConfig(initial=0.0))


class Ticker(Daemon):
    """The contract's sample: a loop that looks whether it should stop."""

    def __init__(self) -> None:
        self.ticks = 0

    async def run(self, ctx: DaemonContext) -> ExitReason | None:
        while not ctx.should_shutdown:
            self.ticks += 1
            await ctx.sleep(0.01)
        return ExitReason.GRACEFUL


class Failing(Daemon):
    """A daemon that fails at once, and counts how often it was run."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, ctx: DaemonContext) -> None:
        self.runs += 1
        raise RuntimeError("as it must")


def sleeper(name: str = "sleeper", **more: object) -> DaemonConfig:
    """This is a process that does nothing for long."""
    return DaemonConfig(name=name, command=("sleep", "1000"), **more)  # type: ignore[arg-type]  # keywords of the test


async def test_a_loop_on_should_shutdown_stops_when_asked() -> None:
    """The sample runs, is ready, stops, and its end is a clean one."""
    ticker = Ticker()
    async with DaemonManager() as manager:
        ident = await manager.register(ticker)
        with anyio.fail_after(10):
            await manager.start(ident)
            assert DaemonStatus.RUNNING is manager.status("ticker")
            assert ticker.id == ident
            await manager.stop(ident)
        assert DaemonStatus.STOPPED is manager.status(ident)
        [info] = manager.daemons()
    assert ticker.ticks > 0
    assert info.exit is not None
    assert 0 == info.exit.code


async def test_the_end_of_the_context_stops_everything() -> None:
    """Nothing that was registered outlives the manager."""
    async with DaemonManager() as manager:
        await manager.register(sleeper())
        with anyio.fail_after(10):
            await manager.start("sleeper")
        pid = manager.info("sleeper").pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_failing_task_is_restarted_and_then_given_up() -> None:
    """`max_retries` restarts, counted, then failed with the error's last line."""
    failing = Failing()
    policy = RestartConfig(max_retries=2, backoff=BackoffConfig(initial=0.0))
    async with DaemonManager() as manager:
        ident = await manager.register(failing, restart=policy)
        with anyio.fail_after(10):
            assert DaemonStatus.FAILED is await manager.wait(ident, DaemonStatus.FAILED)
        info = manager.info(ident)
    assert 3 == failing.runs
    assert 2 == info.restarts
    assert "as it must" in (info.reason or "")


@pytest.mark.real
async def test_a_killed_process_is_replaced() -> None:
    """SIGKILL from outside gives a new pid and one restart; the events tell it."""
    async with DaemonManager() as manager:
        await manager.register(sleeper(), restart=AT_ONCE)
        with anyio.fail_after(10):
            await manager.start("sleeper")
            before = manager.info("sleeper").pid
            assert before is not None
            seen: list[Event] = []
            async with manager.events() as events:
                os.kill(before, signal.SIGKILL)
                async for event in events:
                    seen.append(event)
                    if event.type == "ready":
                        break
        after = manager.info("sleeper")
    assert after.pid not in (None, before)
    assert 1 == after.restarts
    assert after.exit is not None
    assert signal.SIGKILL == after.exit.signal
    assert "exit" in [event.type for event in seen]
    assert "restart_scheduled" in [event.type for event in seen]


@pytest.mark.real
async def test_a_stopped_daemon_stays_stopped() -> None:
    """Intent beats policy: `always` does not bring back what was stopped."""
    async with DaemonManager() as manager:
        await manager.register(sleeper(), restart="always")
        with anyio.fail_after(10):
            await manager.start("sleeper")
            await manager.stop("sleeper")
            assert DaemonStatus.STOPPED is manager.status("sleeper")
            await manager.start("sleeper")
        assert DaemonStatus.RUNNING is manager.status("sleeper")


@pytest.mark.real
async def test_stopping_is_bounded_and_reaches_the_whole_tree(tmp_path: Path) -> None:
    """A tree that ignores SIGTERM, one of it in a session of its own, is killed."""
    pids = tmp_path / "pids"
    script = (
        "trap '' TERM; "
        f"setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 1000' & "
        f"echo $$ >> {pids}; while :; do sleep 1000; done"
    )
    config = DaemonConfig(
        name="stubborn", command=("sh", "-c", script), stop=StopConfig(timeout=0.2)
    )
    async with DaemonManager() as manager:
        await manager.register(config)
        with anyio.fail_after(20):
            await manager.start("stubborn")
            while not pids.exists() or pids.read_text().count("\n") < 2:
                await anyio.sleep(0.001)
            await manager.stop("stubborn")
        info = manager.info("stubborn")
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert DaemonStatus.STOPPED is info.state
    assert info.exit is not None
    assert signal.SIGKILL == info.exit.signal


@pytest.mark.real
async def test_pause_and_resume_reach_the_process() -> None:
    """A paused process is in state T, a resumed one is not."""

    def state(pid: int | None) -> str:
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0]

    async with DaemonManager() as manager:
        await manager.register(sleeper())
        with anyio.fail_after(10):
            await manager.start("sleeper")
            pid = manager.info("sleeper").pid
            await manager.pause("sleeper")
            assert DaemonStatus.PAUSED is manager.status("sleeper")
            assert "T" == state(pid)
            await manager.resume("sleeper")
            while state(pid) == "T":
                await anyio.sleep(0.001)
        assert DaemonStatus.RUNNING is manager.status("sleeper")


async def test_a_task_can_not_be_paused() -> None:
    """What can't be done raises NotSupported, names the daemon and a way out."""
    async with DaemonManager() as manager:
        await manager.register(Ticker())
        with pytest.raises(NotSupported, match="ticker"):
            await manager.pause("ticker")


@pytest.mark.real
async def test_tasks_and_processes_depend_on_each_other() -> None:
    """A process that depends on a task starts when the task is ready."""
    async with DaemonManager() as manager:
        await manager.register(Ticker())
        await manager.register(sleeper("after", depends_on=["ticker"]))
        with anyio.fail_after(10):
            await manager.start("after")
        assert DaemonStatus.RUNNING is manager.status("ticker")


async def test_names_are_taken_once() -> None:
    """A second daemon of the same name is refused, and the first goes on."""
    async with DaemonManager() as manager:
        await manager.register(Ticker())
        with pytest.raises(AlreadyRunning, match="ticker"):
            await manager.register(Ticker())
        with anyio.fail_after(10):
            await manager.start("ticker")


async def test_strangers_are_not_found() -> None:
    """Unknown names, and dependencies that were not registered, are NotFound."""
    async with DaemonManager() as manager:
        with pytest.raises(NotFound, match="nobody"):
            manager.status("nobody")
        with pytest.raises(NotFound, match="db"):
            await manager.register(sleeper(depends_on=["db"]))


async def test_unregistered_daemons_are_forgotten() -> None:
    """`unregister` stops first."""
    async with DaemonManager() as manager:
        await manager.register(Ticker())
        with anyio.fail_after(10):
            await manager.unregister("ticker")
        assert () == manager.daemons()
        await manager.register(Ticker())


@pytest.mark.real
async def test_a_start_that_fails_says_why() -> None:
    """The error of `start` holds the reason; the daemon is failed."""
    config = DaemonConfig(name="no", command=("/no/such/program",))
    async with DaemonManager() as manager:
        await manager.register(config, restart="never")
        with pytest.raises(DaemonError, match="/no/such/program"):
            await manager.start("no")
        assert DaemonStatus.FAILED is manager.status("no")


@pytest.mark.real
async def test_bad_configuration_is_not_retried() -> None:
    """A missing working_dir is failed at once, whatever the policy says."""
    config = sleeper(working_dir="/no/such/folder")
    async with DaemonManager() as manager:
        await manager.register(config, restart="always")
        with pytest.raises(DaemonError, match="/no/such/folder"):
            await manager.start("sleeper")
        assert DaemonStatus.FAILED is manager.status("sleeper")
        assert 0 == manager.info("sleeper").restarts


async def test_a_manager_outside_its_context_is_refused() -> None:
    """The message says how it is used."""
    with pytest.raises(InvalidState, match="async with"):
        DaemonManager().daemons()


@pytest.mark.real
async def test_the_death_of_the_application_ends_its_daemons(tmp_path: Path) -> None:
    """A manager's process that is killed leaves no daemon behind."""
    program = (
        "import anyio, sys\n"
        "from duende.core import DaemonConfig, DaemonManager\n"
        "async def main():\n"
        "    async with DaemonManager() as manager:\n"
        "        await manager.register(DaemonConfig(name='d', command='sleep 1000'))\n"
        "        await manager.start('d')\n"
        "        print(manager.info('d').pid, flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    with anyio.fail_after(30):
        process = await anyio.open_process([sys.executable, "-c", program])
        async with process:
            assert process.stdout is not None
            pid = int(await process.stdout.receive())
            watched = os.pidfd_open(pid)
            process.kill()
            await anyio.wait_readable(watched)
    os.close(watched)


@pytest.mark.real
async def test_the_loss_of_the_keeper_is_survived() -> None:
    """SIGKILL of the keeper: same pid, no restart, and control goes on."""
    async with DaemonManager() as manager:
        await manager.register(sleeper())
        with anyio.fail_after(20):
            await manager.start("sleeper")
            before = manager.info("sleeper")
            project = manager._project
            assert project is not None
            assert project.keeper_pid is not None
            async with manager.events() as events:
                lost = project.keeper_pid
                os.kill(lost, signal.SIGKILL)
                async for event in events:
                    if event.type == "supervisor":
                        break
            while project.keeper_pid == lost:
                await anyio.sleep(0.001)
            after = manager.info("sleeper")
            assert before.pid == after.pid
            assert 0 == after.restarts
            await manager.stop("sleeper")
        assert DaemonStatus.STOPPED is manager.status("sleeper")


@attrs.frozen
class Settings:
    """What `Configured` takes."""

    every: float = 1.0


class Configured(Ticker):
    """A daemon with settings."""

    settings: Settings


async def test_settings_that_do_not_fit_are_a_config_error() -> None:
    """Wrong settings fail the daemon for good, with the key in the message."""
    async with DaemonManager() as manager:
        await manager.register(Configured(), settings={"evry": 1})
        with pytest.raises(DaemonError, match="evry"):
            await manager.start("configured")
        assert DaemonStatus.FAILED is manager.status("configured")


async def test_an_error_of_the_caller_is_not_wrapped() -> None:
    """What is raised inside the context comes out as it is."""
    with pytest.raises(NotFound, match="nobody"):
        async with DaemonManager() as manager:
            manager.status("nobody")


class Reloader(Daemon):
    """A daemon that counts its reloads, and refuses those after the first."""

    def __init__(self) -> None:
        self.reloads = 0

    async def run(self, ctx: DaemonContext) -> None:
        await ctx.wait_shutdown()

    async def reload(self, config: object) -> None:
        if self.reloads:
            raise ValueError("once is enough")
        self.reloads += 1


async def test_a_task_reloads_and_a_failed_reload_is_an_error() -> None:
    """A task has no pid to look for signal handlers in, and its answer counts."""
    reloader = Reloader()
    async with DaemonManager() as manager:
        await manager.register(reloader)
        with anyio.fail_after(10):
            await manager.start("reloader")
            await manager.reload("reloader")
            assert 1 == reloader.reloads
            with pytest.raises(DaemonError, match="once is enough"):
                await manager.reload("reloader")
        assert DaemonStatus.RUNNING is manager.status("reloader")


async def count_up(ctx: DaemonContext) -> None:
    """A daemon that is a function."""
    await ctx.wait_shutdown()


async def test_an_async_function_is_a_daemon_too() -> None:
    """It is named after itself and lives like a class."""
    async with DaemonManager() as manager:
        ident = await manager.register(count_up)
        with anyio.fail_after(10):
            await manager.start(ident)
            assert DaemonStatus.RUNNING is manager.status("count-up")
            await manager.stop(ident)


async def test_what_is_no_daemon_is_refused() -> None:
    """The message says what would be one."""
    async with DaemonManager() as manager:
        with pytest.raises(ConfigError, match="no daemon"):
            await manager.register(print)  # type: ignore[arg-type]  # that is the point
