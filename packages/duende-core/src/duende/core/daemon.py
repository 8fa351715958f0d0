"""The class that people derive their daemons from, and how a target is found.

Only `run` must be written. Nothing here runs a daemon: see `_hosting`.
"""

from __future__ import annotations

import abc
import re
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from duende.core.metrics import DaemonMetrics
from duende.core.types import DaemonId, ExitReason, HealthStatus, new_daemon_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from duende.core.config.model import DaemonConfig
    from duende.core.context import DaemonContext

__all__ = ("Daemon", "kebab_name")

_T = TypeVar("_T")


def kebab_name(text: str) -> str:
    """This turns `HTTPServer` or `my_worker` into a daemon's name: `http-server`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", text)
    name = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")
    return name[:63].rstrip("-") or "daemon"


class _Lazy(Generic[_T]):
    """This is an attribute made when first asked for, so that no __init__ is needed."""

    def __init__(self, make: Callable[[type[Daemon]], _T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Daemon | None, owner: type[Daemon]) -> _T:
        value = self._make(owner)
        if instance is not None:
            instance.__dict__[self._name] = value
        return value


class Daemon(abc.ABC):
    """This is a daemon. Derive from it and write `run`.

    The same class runs in this process (`DaemonManager.register`), as the main
    program (`duende.core.main`) and under every adapter. `super().__init__()` need
    not be called.

    Attributes:
        id: a UUID of this object.
        name: the class's name in kebab-case unless set; the configuration's wins.
        metrics: counters.
        settings: annotate it with an attrs class or a dataclass, and the daemon's
            `settings` table is checked and handed over as one.
        manual_ready: True: `run` says itself when it is ready.
        backend: the event loop to run on as a process: "asyncio" or "trio".
    """

    if TYPE_CHECKING:
        id: DaemonId
        name: str
        metrics: DaemonMetrics
        settings: Any
    else:
        id = _Lazy(lambda owner: new_daemon_id())
        name = _Lazy(lambda owner: kebab_name(owner.__name__))
        metrics = _Lazy(lambda owner: DaemonMetrics())

    manual_ready: ClassVar[bool] = False
    backend: ClassVar[str] = "asyncio"

    async def init(self, config: DaemonConfig) -> None:
        """This prepares the daemon; raise here to fail fast. A stop cancels it."""

    @abc.abstractmethod
    async def run(self, ctx: DaemonContext) -> ExitReason | None:
        """This is the daemon's work, until it is done or `ctx.should_shutdown`.

        Returns:
            Why it ended; None is graceful.
        """

    async def reload(self, config: DaemonConfig) -> None:
        """This takes new settings in; they are in `self.settings` already.

        When it raises, the old ones are put back and the daemon goes on.
        """

    async def shutdown(self, timeout: float) -> None:
        """This cleans up, in at most `timeout` seconds, whatever way `run` ended."""

    async def health_check(self) -> HealthStatus | bool:
        """This says whether the daemon works; an exception means that it doesn't."""
        return HealthStatus.healthy()
