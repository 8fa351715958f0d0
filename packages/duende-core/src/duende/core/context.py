"""What a daemon sees of its host while it runs: `DaemonContext`.

Everything follows the event loop's clock, so that virtual time works, and every
wait ends as soon as the daemon is asked to stop.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, final

import anyio
import anyio.lowlevel

from duende.core._signals import SignalStream, SignalStreams
from duende.core.errors import InvalidState

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from duende.core.config.model import DaemonConfig
    from duende.core.metrics import DaemonMetrics

__all__ = ("DaemonContext",)

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""One message of the sd_notify protocol, as (key, value) pairs."""


@final
class _Ticks:
    """This gives 0, 1, 2 … at a fixed rate; a tick whose time has passed is skipped."""

    def __init__(self, context: DaemonContext, period: float) -> None:
        self._context = context
        self._period = period
        self._start: float | None = None
        self._tick = 0

    def __aiter__(self) -> _Ticks:
        return self

    async def __anext__(self) -> int:
        await anyio.lowlevel.checkpoint()
        now = anyio.current_time()
        if self._start is None:
            self._start = now
        else:
            # Half a nanosecond of float error must not cost a whole period.
            passed = math.ceil((now - self._start) / self._period - 1e-9)
            self._tick = max(self._tick + 1, passed)
            due = self._start + self._tick * self._period
            await self._context.sleep(max(0.0, due - now))
        if self._context.should_shutdown:
            raise StopAsyncIteration
        return self._tick


@final
class DaemonContext:
    """This is the daemon's side of its host; `run` receives it.

    Attributes:
        config: what is known of the daemon, as in its `[daemon.NAME]` table.
        settings: the typed settings, or the plain table where no class is declared.
            New ones after a reload.
        metrics: the daemon's counters.
    """

    def __init__(
        self,
        *,
        config: DaemonConfig,
        settings: Any,
        metrics: DaemonMetrics,
        notify: Callable[[Fields], None],
        signals: SignalStreams,
    ) -> None:
        self.config = config
        self.settings = settings
        self.metrics = metrics
        self._notify = notify
        self._signals = signals
        self._stop = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        self._task_group: TaskGroup | None = None
        self._is_ready = False

    @property
    def logger(self) -> logging.Logger:
        """The standard library's logger named after the daemon."""
        return logging.getLogger(self.config.name)

    @property
    def should_shutdown(self) -> bool:
        """Whether the daemon was asked to stop."""
        return self._stop.is_set()

    @property
    def task_group(self) -> TaskGroup:
        """The task group whose tasks end with `run`; an error in one ends the daemon.

        Raises:
            InvalidState: The daemon does not run now.
        """
        if self._task_group is None:
            raise InvalidState(
                f"daemon {self.config.name!r} does not run now",
                "use ctx.task_group inside run()",
            )
        return self._task_group

    async def wait_shutdown(self) -> None:
        """This returns when the daemon is asked to stop."""
        await self._stop.wait()

    async def sleep(self, seconds: float) -> None:
        """This sleeps, but returns early when the daemon is asked to stop.

        Raises:
            ValueError: `seconds` is negative or not a number.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be a number >= 0, not {seconds}")
        with anyio.move_on_after(seconds):
            await self._stop.wait()

    def every(self, seconds: float) -> _Ticks:
        """This is for `async for`: at once, then every `seconds`, until the stop.

        The rate is fixed: ticks are due at whole multiples of `seconds` after the
        first, and those that the loop's body was too slow for are skipped.

        Raises:
            ValueError: `seconds` is not a finite number > 0.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be a finite number > 0, not {seconds}")
        return _Ticks(self, seconds)

    def notify_ready(self) -> None:
        """This tells the supervisor that the daemon is ready; once is enough."""
        if not self._is_ready and not self.should_shutdown:
            self._is_ready = True
            self._notify((("READY", "1"),))

    def notify_status(self, text: str) -> None:
        """This tells the supervisor, in one line for a person, how things are."""
        self._notify((("STATUS", " ".join(text.splitlines())),))

    def signals(self, *numbers: int) -> AbstractContextManager[SignalStream]:
        """This listens for signals: `with ctx.signals(signal.SIGUSR1) as stream`.

        `async for number in stream` then gives each, and ends on stop. SIGTERM,
        SIGINT and SIGHUP keep their meaning beside. In a process, a signal that was
        once listened for no longer has its default action, also after the block.
        """
        return self._signals.open(*numbers)

    @contextlib.contextmanager
    def until_shutdown(self) -> Iterator[anyio.CancelScope]:
        """This is a cancel scope that ends when the daemon is asked to stop."""
        with anyio.CancelScope() as scope:
            if self.should_shutdown:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def _begin_shutdown(self) -> None:
        """This is called by the host, on the loop: every wait returns now."""
        self._stop.set()
        self._signals.close()
        for scope in self._scopes:
            scope.cancel()
