"""One daemon's life: the order of its calls, its stop, its end, its reloads."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
import trio.testing

from duende.core import _hosting
from duende.core._hosting import (
    DaemonLife,
    Ending,
    check_health,
    describe,
    hosted_config,
)
from duende.core.context import DaemonContext
from duende.core.daemon import Daemon
from duende.core.errors import ConfigError, ShutdownTimeout
from duende.core.types import ExitReason, HealthStatus

from .helpers import DEADLINE, Stage, eventually

pytestmark = pytest.mark.anyio


@attrs.frozen
class Settings:
    every: float = 1.0


class Ticker(Daemon):
    """The sample of the documentation: a loop on should_shutdown."""

    settings: Settings

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def init(self, config: Any) -> None:
        self.calls.append(("init", config.name, self.settings))

    async def run(self, ctx: DaemonContext) -> ExitReason | None:
        self.calls.append("run")
        while not ctx.should_shutdown:
            await ctx.sleep(0.1)
        return ExitReason.GRACEFUL

    async def reload(self, config: Any) -> None:
        self.calls.append(("reload", self.settings))

    async def shutdown(self, timeout: float) -> None:
        self.calls.append("shutdown")


class Custom(Daemon):
    """A daemon whose hooks a test hands over."""

    def __init__(self, **hooks: Any) -> None:
        self.hooks = hooks
        self.calls: list[Any] = []

    async def _call(self, hook: str, *arguments: Any) -> Any:
        self.calls.append(hook)
        if hook in self.hooks:
            return await self.hooks[hook](*arguments)
        return None

    async def init(self, config: Any) -> None:
        await self._call("init", config)

    async def run(self, ctx: DaemonContext) -> Any:
        return await self._call("run", ctx)

    async def reload(self, config: Any) -> None:
        await self._call("reload", config)

    async def shutdown(self, timeout: float) -> None:
        self.timeout = timeout
        await self._call("shutdown", timeout)


async def sleep_forever(*_: object) -> None:
    """This is a hook that never returns."""
    await anyio.sleep_forever()


@asynccontextmanager
async def living(stage: Stage) -> AsyncIterator[Stage]:
    """This lives a life beside the test, and waits for its end, within a deadline."""
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(stage.live)
            yield stage


async def test_the_sample_stops_when_asked() -> None:
    """The documented loop runs, stops on request, and all hooks are called in order."""
    ticker = Ticker()
    async with living(Stage(ticker, settings={"every": 2.5}, name="tick")) as stage:
        await stage.wait_said("READY")
        stage.life.request_stop()
        stage.life.request_stop()
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.GRACEFUL
    assert stage.outcome.exit_code == 0
    assert ticker.name == "tick"
    assert ticker.calls == [("init", "tick", Settings(2.5)), "run", "shutdown"]
    assert stage.keys == ["READY", "STOPPING"]


@pytest.mark.parametrize(
    ("result", "ending", "code"),
    [
        (None, Ending.GRACEFUL, 0),
        (ExitReason.GRACEFUL, Ending.GRACEFUL, 0),
        (ExitReason.SIGNAL, Ending.GRACEFUL, 0),
        (ExitReason.ERROR, Ending.ERROR, 1),
        (ExitReason.RESOURCE_EXHAUSTED, Ending.ERROR, 1),
        (ExitReason.POLICY_VIOLATION, Ending.ERROR, 1),
        ("done", Ending.ERROR, 1),
    ],
)
async def test_what_run_returns(result: object, ending: Ending, code: int) -> None:
    """None is graceful, a failing reason is 1, and anything else is a mistake."""

    async def run(ctx: object) -> object:
        return result

    daemon = Custom(run=run)
    async with living(Stage(daemon)) as stage:
        pass
    assert stage.outcome is not None
    assert (stage.outcome.ending, stage.outcome.exit_code) == (ending, code)
    assert bool(stage.outcome.text) == (code != 0)
    assert daemon.calls == ["init", "run", "shutdown"]


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()]
)
async def test_shutdown_follows_an_error(error: BaseException) -> None:
    """Whatever run raises, shutdown is called and the error is the outcome."""

    async def run(ctx: object) -> None:
        raise error

    daemon = Custom(run=run)
    async with living(Stage(daemon, timeout=7.0)) as stage:
        pass
    assert daemon.calls == ["init", "run", "shutdown"]
    assert daemon.timeout == pytest.approx(7.0, abs=0.5)
    assert stage.outcome is not None
    assert stage.outcome.error is error
    assert stage.outcome.exit_code == (3 if isinstance(error, SystemExit) else 1)


async def test_init_that_fails_ends_it() -> None:
    """Without init there is neither ready, nor run, nor shutdown."""

    async def init(config: object) -> None:
        raise ValueError("no database")

    daemon = Custom(init=init)
    async with living(Stage(daemon)) as stage:
        pass
    assert daemon.calls == ["init"]
    assert stage.said == []
    assert stage.outcome is not None
    assert stage.outcome.text == "ValueError: no database"


async def test_a_stop_cancels_init() -> None:
    """A stop does not wait for an init that hangs."""
    daemon = Custom(init=sleep_forever)
    async with living(Stage(daemon, timeout=3600)) as stage:
        await anyio.wait_all_tasks_blocked()
        stage.life.request_stop()
    assert daemon.calls == ["init"]
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.GRACEFUL


async def test_a_stop_during_an_init_that_never_waits() -> None:
    """Then run is called all the same, so that shutdown follows it; never READY."""
    daemon = Custom()
    stage = Stage(daemon)

    async def init(config: object) -> None:
        stage.life.request_stop()

    daemon.hooks["init"] = init
    async with living(stage):
        pass
    assert daemon.calls == ["init", "run", "shutdown"]
    assert stage.keys == ["STOPPING"]


async def test_a_stop_before_the_life_begins() -> None:
    """A stop that comes first is not lost."""
    daemon = Custom(init=sleep_forever, run=sleep_forever)
    stage = Stage(daemon, timeout=3600)
    with anyio.fail_after(DEADLINE):
        stage.life.request_stop()
        await stage.live()
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.GRACEFUL
    assert daemon.calls == []


async def test_manual_ready() -> None:
    """With manual_ready, only the daemon itself says READY."""

    class Manual(Custom):
        manual_ready = True

    go = anyio.Event()

    async def run(ctx: DaemonContext) -> None:
        await go.wait()
        ctx.notify_ready()
        await ctx.wait_shutdown()

    async with living(Stage(Manual(run=run))) as stage:
        await anyio.wait_all_tasks_blocked()
        assert stage.said == []
        go.set()
        await stage.wait_said("READY")
        stage.life.request_stop()


def test_run_is_cancelled_at_four_fifths_of_the_timeout() -> None:
    """run and the task group end at 80 %, shutdown has exactly what is left."""
    at: dict[str, float] = {}

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            at["child"] = anyio.current_time()

    async def run(ctx: DaemonContext) -> None:
        ctx.task_group.start_soon(child)
        try:
            await anyio.sleep_forever()
        finally:
            at["run"] = anyio.current_time()

    async def shutdown(timeout: float) -> None:
        await anyio.sleep(1.9)
        at["shutdown"] = anyio.current_time()

    async def test() -> None:
        daemon = Custom(run=run, shutdown=shutdown)
        async with anyio.create_task_group() as group:
            stage = Stage(daemon, timeout=10.0)
            group.start_soon(stage.live)
            await anyio.sleep(100)
            begun = anyio.current_time()
            stage.life.request_stop()
        assert {key: round(value - begun, 3) for key, value in at.items()} == {
            "child": 8.0,
            "run": 8.0,
            "shutdown": 9.9,
        }
        assert daemon.timeout == pytest.approx(2.0)
        assert stage.outcome is not None
        assert stage.outcome.ending is Ending.CANCELLED
        assert stage.outcome.exit_code == 0

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(test, backend="trio", backend_options={"clock": clock})


async def test_shutdown_is_bounded() -> None:
    """A shutdown that hangs is cancelled and is an error."""
    daemon = Custom(shutdown=sleep_forever)
    async with living(Stage(daemon, timeout=0.05)) as stage:
        pass
    assert stage.outcome is not None
    assert isinstance(stage.outcome.error, ShutdownTimeout)
    assert stage.outcome.exit_code == 1


async def test_a_stop_shortens_a_shutdown_that_goes_on() -> None:
    """A stop during an unasked shutdown counts from its own time."""
    daemon = Custom(shutdown=sleep_forever)
    stage = Stage(daemon, timeout=0.2)
    async with living(stage):
        await anyio.wait_all_tasks_blocked()
        stage.life.request_stop()
    assert stage.keys.count("STOPPING") == 1


async def test_an_error_in_the_task_group_ends_the_daemon() -> None:
    """The child's error is the outcome, taken out of its group."""

    async def child() -> None:
        raise LookupError("child")

    async def run(ctx: DaemonContext) -> None:
        ctx.task_group.start_soon(child)
        await anyio.sleep_forever()

    daemon = Custom(run=run)
    async with living(Stage(daemon)) as stage:
        pass
    assert stage.outcome is not None
    assert isinstance(stage.outcome.error, LookupError)
    assert daemon.calls[-1] == "shutdown"


async def test_errors_in_several_places_are_all_kept() -> None:
    """Neither run's error nor the child's hides the other."""

    async def child() -> None:
        raise LookupError("child")

    async def run(ctx: DaemonContext) -> None:
        ctx.task_group.start_soon(child)
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("run")

    async with living(Stage(Custom(run=run))) as stage:
        pass
    assert stage.outcome is not None
    assert isinstance(stage.outcome.error, ExceptionGroup)
    kinds = {type(error) for error in stage.outcome.error.exceptions}
    assert kinds == {LookupError, ValueError}


async def test_tasks_end_with_run() -> None:
    """When run returns, what it left in the task group is cancelled."""

    async def run(ctx: DaemonContext) -> None:
        ctx.task_group.start_soon(sleep_forever)

    async with living(Stage(Custom(run=run))) as stage:
        pass
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.GRACEFUL


async def test_kill_skips_shutdown() -> None:
    """A kill cancels everything, and nothing else is called."""
    daemon = Custom(run=sleep_forever)
    async with living(Stage(daemon, timeout=3600)) as stage:
        await stage.wait_said("READY")
        stage.life.kill()
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.KILLED
    assert daemon.calls == ["init", "run"]


async def test_kill_during_shutdown() -> None:
    """A shutdown that goes on is cut off by a kill."""
    daemon = Custom(shutdown=sleep_forever)
    async with living(Stage(daemon, timeout=3600)) as stage:
        await stage.wait_said("STOPPING")
        await anyio.wait_all_tasks_blocked()
        stage.life.kill()
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.KILLED


async def test_a_swallowed_cancellation_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that goes on past its timeout is named in the log, with its phase."""
    reported = anyio.Event()

    async def run(ctx: object) -> None:
        with anyio.CancelScope(shield=True):
            await reported.wait()

    monkeypatch.setattr(_hosting, "OVERDUE_GRACE", 0.01)
    with caplog.at_level(logging.WARNING):
        async with living(Stage(Custom(run=run), timeout=0.05, name="stubborn")) as s:
            await s.wait_said("READY")
            s.life.request_stop()
            await eventually(lambda: "goes on though" in caplog.text)
            s.life.kill()
            await eventually(lambda: "killed, but not ended" in caplog.text)
            assert s.outcome is None
            reported.set()
    assert s.outcome is not None
    assert s.outcome.ending is Ending.KILLED
    text = caplog.text
    assert "run() has not ended" in text
    assert "run() goes on though it was cancelled" in text
    assert {record.name for record in caplog.records} == {"stubborn"}


async def test_a_cancelled_host_still_shuts_the_daemon_down() -> None:
    """When the host's own scope is cancelled, shutdown runs shielded."""
    finished: list[str] = []

    async def shutdown(timeout: float) -> None:
        await anyio.sleep(0.01)
        finished.append("shutdown")

    daemon = Custom(run=sleep_forever, shutdown=shutdown)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            stage = Stage(daemon)
            group.start_soon(stage.live)
            await stage.wait_said("READY")
            group.cancel_scope.cancel()
    assert finished == ["shutdown"]
    assert stage.outcome is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_of_its_own_making_is_an_error() -> None:
    """Awaiting a cancelled asyncio task must not look like a silent end."""

    async def run(ctx: object) -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task

    async with living(Stage(Custom(run=run))) as stage:
        pass
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.ERROR
    assert "cancellation of its own" in stage.outcome.text


async def test_hooks_that_are_not_async() -> None:
    """A plain function where a coroutine is due is named."""

    class Wrong(Custom):
        def init(self, config: Any) -> None:  # type: ignore[override]  # the mistake
            return None

    async with living(Stage(Wrong())) as stage:
        pass
    assert stage.outcome is not None
    assert "async def init" in stage.outcome.text


async def test_reload_hands_over_new_settings() -> None:
    """RELOADING comes with its time, then READY; the settings are the new ones."""
    ticker = Ticker()
    async with living(Stage(ticker, settings={"every": 1.0})) as stage:
        await stage.wait_said("READY")
        stage.life.request_reload({"every": 5}, stage.config)
        await stage.wait_said("READY", 2)
        stage.life.request_stop()
    assert ("reload", Settings(5.0)) in ticker.calls
    assert [key for key, _ in stage.said[1]] == ["RELOADING", "MONOTONIC_USEC"]
    assert stage.said[1][1][1].isdigit()
    assert stage.keys == ["READY", "RELOADING", "READY", "STOPPING"]


async def test_a_reload_that_fails_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Bad settings and a reload that raises both leave the old ones in force."""

    class Picky(Ticker):
        async def reload(self, config: Any) -> None:
            if self.settings.every > 10:
                raise ValueError("too slow")

    ticker = Picky()
    async with living(Stage(ticker, settings={"every": 1.0})) as stage:
        await stage.wait_said("READY")
        stage.life.request_reload({"evry": 5}, stage.config)
        await stage.wait_said("READY", 2)
        stage.life.request_reload({"every": 11}, stage.config)
        await stage.wait_said("READY", 3)
        assert ticker.settings == Settings(1.0)
        stage.life.request_stop()
    assert stage.outcome is not None
    assert stage.outcome.ending is Ending.GRACEFUL
    texts = [dict(fields).get("STATUS", "") for fields in stage.said]
    assert any("evry" in text for text in texts)
    assert any("ValueError: too slow" in text for text in texts)
    assert caplog.text.count("the old settings stay") == 2


async def test_a_reload_during_init_waits() -> None:
    """A reload that comes too early is done when the daemon runs."""
    go = anyio.Event()

    async def init(config: object) -> None:
        await go.wait()

    async def run(ctx: DaemonContext) -> None:
        await ctx.wait_shutdown()

    daemon = Custom(init=init, run=run)
    async with living(Stage(daemon)) as stage:
        await anyio.wait_all_tasks_blocked()
        stage.life.request_reload({}, stage.config)
        await anyio.wait_all_tasks_blocked()
        assert daemon.calls == ["init"]
        go.set()
        await stage.wait_said("READY", 2)
        stage.life.request_stop()
    assert daemon.calls.count("reload") == 1


async def test_signals_reach_the_daemon() -> None:
    """A delivered signal comes out of ctx.signals; others have no listener."""
    seen: list[int] = []

    async def run(ctx: DaemonContext) -> None:
        with ctx.signals(signal.SIGUSR1) as stream:
            ctx.notify_status("listening")
            async for number in stream:
                seen.append(number)
                ctx.notify_status("seen")

    async with living(Stage(Custom(run=run))) as stage:
        await stage.wait_said("STATUS")
        assert stage.life.deliver_signal(signal.SIGUSR1)
        assert not stage.life.deliver_signal(signal.SIGUSR2)
        await stage.wait_said("STATUS", 2)
        stage.life.request_stop()
    assert seen == [signal.SIGUSR1]


def test_settings_are_checked_before_anything_runs() -> None:
    """Bad settings are a ConfigError of the constructor."""
    config = hosted_config(Ticker, "x", {}, 1.0)
    with pytest.raises(ConfigError, match=r"daemon\.x\.settings\.evry"):
        DaemonLife(Ticker(), config, settings={"evry": 1}, notify=lambda fields: None)


async def test_settings_that_the_object_has_already() -> None:
    """An object whose settings its program has set keeps them."""
    ticker = Ticker()
    ticker.settings = Settings(every=3.0)
    async with living(Stage(ticker)) as stage:
        stage.life.request_reload(None, stage.config)
        await stage.wait_said("READY", 2)
        stage.life.request_stop()
    assert ticker.settings == Settings(every=3.0)


def test_a_name_that_no_daemon_can_have() -> None:
    """The name is checked like the file's names are."""
    with pytest.raises(ConfigError, match="no name for a daemon"):
        hosted_config(Ticker, "Not A Name", {}, 1.0)


@pytest.mark.parametrize(
    ("answer", "is_healthy", "reason"),
    [
        (True, True, None),
        (False, False, "health_check() returned False"),
        (HealthStatus.unhealthy("disk"), False, "disk"),
        (None, False, "health_check() returned None"),
        (ValueError("down"), False, "ValueError: down"),
    ],
)
async def test_health_answers(
    answer: object, is_healthy: bool, reason: str | None
) -> None:
    """A boolean, a status, an exception: all become a HealthStatus with its time."""

    class Checked(Ticker):
        async def health_check(self) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    status = await check_health(Checked())
    assert status.is_healthy is is_healthy
    assert (status.reason or "").startswith(reason or "")
    assert status.latency_ms > 0
    assert status.last_check is not None


def test_describe_finds_the_first_error() -> None:
    """A group is described by its first error, in one line."""
    inner = ExceptionGroup("inner", [ValueError("a\nb"), LookupError()])
    assert describe(ExceptionGroup("outer", [inner])) == "ValueError: a"
    assert describe(LookupError()) == "LookupError"
