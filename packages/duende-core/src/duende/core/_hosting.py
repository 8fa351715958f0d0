"""The life of one Daemon object, the same in a process of its own and in-process.

`DaemonLife` calls init, run, reload and shutdown in the right order and bounds the
end. It knows neither processes nor supervisors: hosts hand it requests (plain calls
on the event loop) and a function that takes what the daemon has to say.
"""

from __future__ import annotations

import enum
import inspect
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, final

import anyio
import attrs

from duende.core._settings import structure_settings
from duende.core._signals import SignalStreams
from duende.core.config.model import DaemonConfig, StopConfig
from duende.core.context import DaemonContext, Fields
from duende.core.errors import ConfigError, ShutdownTimeout
from duende.core.types import RELOAD_FAILED, ExitReason, HealthStatus

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from duende.core.daemon import Daemon

__all__ = ("DaemonLife", "Ending", "Outcome", "check_health", "hosted_config")

RUN_SHARE = 0.8
"""The part of the stop timeout that `run` has before it is cancelled."""

OVERDUE_GRACE = 0.5
"""Seconds after the stop timeout until a daemon that goes on is reported."""

_FAILURES = (Exception, SystemExit, KeyboardInterrupt)
"""What the daemon's own code may raise; the rest is the event loop's cancellation."""


class Ending(enum.Enum):
    """This classes how a life ended."""

    GRACEFUL = "graceful"
    ERROR = "error"
    CANCELLED = "cancelled"
    KILLED = "killed"


@final
@attrs.frozen
class Outcome:
    """This is how a daemon's life ended.

    `reason` is what `run` returned; `error` what it raised. CANCELLED is a stop that
    was asked for and took the cancellation of `run`.
    """

    ending: Ending
    reason: ExitReason | None = None
    error: BaseException | None = None

    @property
    def exit_code(self) -> int:
        """The exit code that a process ends with after this."""
        if isinstance(self.error, SystemExit):
            code = self.error.code
            return code if isinstance(code, int) else 0 if code is None else 1
        return 1 if self.ending in (Ending.ERROR, Ending.KILLED) else 0

    @property
    def text(self) -> str:
        """One line that says what went wrong; empty when nothing did."""
        if self.error is not None:
            return describe(self.error)
        if self.ending is Ending.ERROR and self.reason is not None:
            return f"run returned {self.reason.value}"
        return ""


def describe(error: BaseException) -> str:
    """This renders an error as one line, `ValueError: text`; of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f"{name}: {lines[0]}" if lines else name


def hosted_config(
    kind: type[Daemon], name: str, settings: object, stop_timeout: float
) -> DaemonConfig:
    """This builds the configuration of a daemon that no file describes.

    Args:
        kind: its class.
        name: its name.
        settings: the settings table; an object of the settings class is left out.
        stop_timeout: seconds.

    Raises:
        ConfigError: The name can't be a daemon's.
    """
    # Also for what can't be named from outside, such as a class inside a function.
    module = kind.__module__
    if not all(part.isidentifier() for part in module.split(".")):
        module = "__main__"
    attribute = kind.__name__ if kind.__name__.isidentifier() else "Daemon"
    try:
        return DaemonConfig(
            name=name,
            entry=f"{module}:{attribute}",
            settings=dict(settings) if isinstance(settings, Mapping) else {},
            stop=StopConfig(timeout=stop_timeout),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


async def check_health(daemon: Daemon) -> HealthStatus:
    """This calls `health_check` and turns whatever comes into a HealthStatus."""
    begun = time.monotonic()
    try:
        answer = await _awaited(daemon.health_check(), "health_check")
    except Exception as error:
        status = HealthStatus.unhealthy(describe(error))
    else:
        if isinstance(answer, HealthStatus):
            status = answer
        elif answer is True:
            status = HealthStatus.healthy()
        elif answer is False:
            status = HealthStatus.unhealthy("health_check() returned False")
        else:
            status = HealthStatus.unhealthy(
                f"health_check() returned {answer!r:.40}, neither a HealthStatus nor "
                "a boolean"
            )
    latency = status.latency_ms or (time.monotonic() - begun) * 1000
    return attrs.evolve(status, latency_ms=latency, last_check=time.time())


async def _awaited(result: Any, method: str) -> Any:
    if not inspect.isawaitable(result):
        raise TypeError(f"{method}() is not a coroutine: write 'async def {method}'")
    return await result


@final
class DaemonLife:
    """This is one life of a Daemon object: create it, `await live()`, ask from aside.

    Everything but `live` is a plain function, to be called on the event loop.
    """

    def __init__(
        self,
        daemon: Daemon,
        config: DaemonConfig,
        *,
        settings: object,
        notify: Callable[[Fields], None],
        signals: SignalStreams | None = None,
    ) -> None:
        """This checks the settings and names the daemon.

        Raises:
            ConfigError: The settings don't fit the class that the daemon declares.
        """
        self._daemon = daemon
        self._config = config
        self._where = f"daemon.{config.name}.settings"
        self._settings = self._structure(settings)
        self._notify = notify
        self._signals = SignalStreams() if signals is None else signals
        self._context: DaemonContext | None = None
        self._helpers: TaskGroup | None = None
        self._whole: anyio.CancelScope | None = None
        self._init_scope: anyio.CancelScope | None = None
        self._run_scope: anyio.CancelScope | None = None
        self._shutdown_scope: anyio.CancelScope | None = None
        self._stopped_at: float | None = None
        self._told_stopping = False
        self._killed = False
        self._reload: tuple[object, DaemonConfig] | None = None
        self._is_reloading = False
        self._reload_has_failed = False
        self.phase = "created"

    @property
    def timeout(self) -> float:
        """The stop timeout, in seconds."""
        return self._config.stop.timeout

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopped_at is not None

    def request_stop(self) -> None:
        """This begins the stop; more than once is harmless."""
        if self._stopped_at is not None:
            return
        self._stopped_at = anyio.current_time()
        self._tell_stopping()
        if self._context is not None:
            self._context._begin_shutdown()
        if self._init_scope is not None:
            self._init_scope.cancel()
        if self._run_scope is not None:
            self._run_scope.deadline = self._run_deadline
        if self._shutdown_scope is not None:
            self._shutdown_scope.deadline = min(
                self._shutdown_scope.deadline, self._stopped_at + self.timeout
            )
        if self._helpers is not None:
            self._helpers.start_soon(self._report_overdue)

    def request_reload(self, settings: object, config: DaemonConfig) -> None:
        """This hands over new settings; of several that wait only the last counts."""
        self._reload = (settings, config)
        self._begin_reload()

    def refuse_reload(self, error: Exception) -> None:
        """This reports that new settings could not even be read."""
        if self._context is not None:
            self._context.logger.error("reload failed: %s", error)
        self._say_reloading()
        self._say_reloaded(error)

    def deliver_signal(self, number: int) -> bool:
        """This hands a signal to `ctx.signals()`; False: nobody listens for it."""
        return self._signals.deliver(number)

    def kill(self) -> None:
        """This cancels everything at once; `shutdown` is not called any more."""
        if not self._killed and self._helpers is not None:
            self._helpers.start_soon(self._report_unkillable)
        self._killed = True
        for scope in (self._shutdown_scope, self._whole):
            if scope is not None:
                scope.cancel()

    async def live(self) -> Outcome:
        """This is the whole life, from init to the end of shutdown."""
        self._context = DaemonContext(
            config=self._config,
            settings=self._settings,
            metrics=self._daemon.metrics,
            notify=self._say,
            signals=self._signals,
        )
        self._place("name", self._config.name)
        self._place("settings", self._settings)
        outcome: Outcome | None = None
        async with anyio.create_task_group() as helpers:
            self._helpers = helpers
            with anyio.CancelScope() as self._whole:
                if self._killed:
                    self._whole.cancel()
                if self.is_stopping:
                    self._context._begin_shutdown()
                    helpers.start_soon(self._report_overdue)
                outcome = await self._go_through(self._context)
            self._helpers = None
            helpers.cancel_scope.cancel()
        self.phase = "ended"
        if outcome is None or self._killed:
            return Outcome(Ending.KILLED)
        return outcome

    async def _go_through(self, context: DaemonContext) -> Outcome:
        if self.is_stopping:
            return Outcome(Ending.GRACEFUL)
        self.phase = "init"
        try:
            with anyio.CancelScope() as self._init_scope:
                await _awaited(self._daemon.init(self._config), "init")
        except _FAILURES as error:
            return Outcome(Ending.ERROR, None, error)
        except anyio.get_cancelled_exc_class() as error:
            return Outcome(Ending.ERROR, None, _own_cancellation(error, "init"))
        finally:
            was_cancelled = self._init_scope.cancelled_caught  # type: ignore[union-attr]  # just set
            self._init_scope = None
        if was_cancelled:
            return Outcome(Ending.GRACEFUL)
        if not self._daemon.manual_ready:
            context.notify_ready()
        self.phase = "run"
        self._begin_reload()
        failure: BaseException | None = None
        try:
            outcome = await self._run(context)
        finally:
            context._task_group = None
            self._run_scope = None
            if not self._killed:
                failure = await self._shut_down(context)
        if failure is None:
            return outcome
        if outcome.error is not None:
            context.logger.error("shutdown failed too: %s", describe(failure))
            return outcome
        return Outcome(Ending.ERROR, outcome.reason, failure)

    async def _run(self, context: DaemonContext) -> Outcome:
        failures: list[BaseException] = []
        value: object = None
        with anyio.CancelScope() as self._run_scope:
            if self.is_stopping:
                self._run_scope.deadline = self._run_deadline
            try:
                async with anyio.create_task_group() as tasks:
                    context._task_group = tasks
                    try:
                        value = await _awaited(self._daemon.run(context), "run")
                    except _FAILURES as error:
                        failures.append(error)
                    except anyio.get_cancelled_exc_class() as error:
                        failures.append(_own_cancellation(error, "run"))
                    tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                ours = group.subgroup(_FAILURES)
                if ours is None:
                    raise
                failures.extend(ours.exceptions)
        if failures:
            return Outcome(Ending.ERROR, None, _one(failures))
        if self._run_scope.cancelled_caught:
            return Outcome(Ending.CANCELLED)
        if value is None:
            return Outcome(Ending.GRACEFUL)
        if not isinstance(value, ExitReason):
            return Outcome(
                Ending.ERROR,
                None,
                TypeError(f"run() returned {value!r:.40}, neither ExitReason nor None"),
            )
        is_clean = value in (ExitReason.GRACEFUL, ExitReason.SIGNAL)
        return Outcome(Ending.GRACEFUL if is_clean else Ending.ERROR, value)

    async def _shut_down(self, context: DaemonContext) -> BaseException | None:
        """This calls `shutdown`, shielded from whatever ended `run`."""
        self.phase = "shutdown"
        self._tell_stopping()
        now = anyio.current_time()
        end = (now if self._stopped_at is None else self._stopped_at) + self.timeout
        left = max(0.0, end - now)
        try:
            with anyio.CancelScope(shield=True, deadline=end) as self._shutdown_scope:
                await _awaited(self._daemon.shutdown(left), "shutdown")
        except _FAILURES as error:
            return error
        except anyio.get_cancelled_exc_class() as error:
            return _own_cancellation(error, "shutdown")
        finally:
            scope, self._shutdown_scope = self._shutdown_scope, None
        if scope is not None and scope.cancelled_caught and not self._killed:
            return ShutdownTimeout(
                f"shutdown() of {self._config.name!r} did not end within {left:.3g} s "
                "and was cancelled",
                "make it faster, or raise stop.timeout",
            )
        return None

    @property
    def _run_deadline(self) -> float:
        if self._stopped_at is None:
            return math.inf
        return self._stopped_at + RUN_SHARE * self.timeout

    async def _report_overdue(self) -> None:
        """This tells, while the stop goes on, what it is waiting for."""
        context, begun = self._context, self._stopped_at
        if context is None or begun is None:
            return
        await anyio.sleep_until(begun + RUN_SHARE * self.timeout)
        if self.phase == "run":
            context.logger.warning(
                "run() has not ended %.3g s after the stop; it is cancelled",
                RUN_SHARE * self.timeout,
            )
        await anyio.sleep_until(begun + self.timeout + OVERDUE_GRACE)
        context.logger.error(
            "still not ended %.3g s after the stop: %s() goes on though it was "
            "cancelled; look for code that catches the cancellation",
            self.timeout + OVERDUE_GRACE,
            self.phase,
        )

    async def _report_unkillable(self) -> None:
        """This tells that a task goes on after it was cancelled for good."""
        await anyio.sleep(OVERDUE_GRACE)
        if self._context is not None:
            self._context.logger.error(
                "killed, but not ended: %s() ignores its cancellation", self.phase
            )

    def _begin_reload(self) -> None:
        if (
            self._helpers is not None
            and self._reload is not None
            and not self._is_reloading
            and self.phase == "run"
            and not self.is_stopping
        ):
            self._is_reloading = True
            self._helpers.start_soon(self._reload_all)

    async def _reload_all(self) -> None:
        try:
            while self._reload is not None and not self.is_stopping:
                (settings, config), self._reload = self._reload, None
                await self._reload_once(settings, config)
        finally:
            self._is_reloading = False
        self._reload_has_failed = False

    async def _reload_once(self, raw: object, config: DaemonConfig) -> None:
        context = self._context
        if context is None:
            return
        self._say_reloading()
        before = (self._settings, self._config)
        error: BaseException | None = None
        try:
            settings = self._structure(raw)
            self._take(context, settings, config)
            await _awaited(self._daemon.reload(config), "reload")
        except _FAILURES as failure:
            error = failure
        except anyio.get_cancelled_exc_class() as failure:
            error = _own_cancellation(failure, "reload")
        if error is not None:
            self._take(context, *before)
            context.logger.error(
                "reload failed, the old settings stay: %s",
                error,
                exc_info=None if isinstance(error, ConfigError) else error,
            )
        self._say_reloaded(error)

    def _say_reloading(self) -> None:
        microseconds = time.monotonic_ns() // 1000
        self._say((("RELOADING", "1"), ("MONOTONIC_USEC", str(microseconds))))

    def _say_reloaded(self, error: BaseException | None) -> None:
        context = self._context
        done: Fields = (("READY", "1"),) if context and context._is_ready else ()
        if error is not None:
            done += (("STATUS", f"{RELOAD_FAILED}{describe(error)}"),)
        elif self._reload_has_failed:
            # What went wrong the last time is no longer so.
            done += (("STATUS", ""),)
        self._reload_has_failed = error is not None
        if done and not self.is_stopping:
            self._say(done)

    def _structure(self, raw: object) -> Any:
        if raw is None:
            # What the program itself put on its object stays there.
            raw = vars(self._daemon).get("settings")
        return structure_settings(type(self._daemon), raw, self._where)

    def _take(
        self, context: DaemonContext, settings: object, config: DaemonConfig
    ) -> None:
        self._settings, self._config = settings, config
        context.settings, context.config = settings, config
        self._place("settings", settings)

    def _place(self, attribute: str, value: object) -> None:
        try:
            setattr(self._daemon, attribute, value)
        except AttributeError:
            pass  # a property or a slot of the daemon's own: it knows better

    def _say(self, fields: Fields) -> None:
        self._notify(fields)

    def _tell_stopping(self) -> None:
        if not self._told_stopping:
            self._told_stopping = True
            self._say((("STOPPING", "1"),))


def _own_cancellation(error: BaseException, method: str) -> BaseException:
    """This tells a cancellation of ours, raised on, from one the daemon made itself.

    On asyncio, awaiting a task that somebody cancelled raises CancelledError here
    although nobody cancelled us.
    """
    if anyio.current_effective_deadline() == -math.inf:
        raise error
    failure = RuntimeError(f"{method}() was ended by a cancellation of its own making")
    failure.__cause__ = error
    return failure


def _one(failures: list[BaseException]) -> BaseException:
    """This takes the single error out of its group, where there is but one."""
    if len(failures) > 1:
        return BaseExceptionGroup("the daemon failed in several places", failures)
    error = failures[0]
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
