"""What every platform offers, and how it says that it can't.

An adapter starts a daemon's spec on one platform and speaks for it afterwards. What
it can't do raises `NotSupported`, naming itself and the operation.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self, final

import attrs

from duende.core.config.model import DaemonConfig
from duende.core.errors import NotSupported
from duende.core.types import DaemonStatus, ExitInfo

__all__ = (
    "AdapterStatus",
    "Capability",
    "DaemonHandle",
    "PlatformAdapter",
    "UnavailableAdapter",
)


class Capability(enum.Enum):
    """This names something that an adapter can do."""

    SPAWN = "spawn"
    SIGNAL = "signal"
    STATUS = "status"
    STOP = "stop"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    LOGS = "logs"
    WAIT = "wait"


@final
@attrs.frozen(kw_only=True)
class DaemonHandle:
    """This names one start of a daemon on one platform; it can be stored."""

    platform: str
    name: str
    run: str


@final
@attrs.frozen(kw_only=True)
class AdapterStatus:
    """This is what the platform says of a daemon at this moment."""

    state: DaemonStatus
    pid: int | None = None
    ready: bool = False
    exit: ExitInfo | None = None
    status_text: str = ""


class PlatformAdapter(abc.ABC):
    """This is a platform; used as an async context manager.

    Leaving the context ends what the adapter started, unless its platform keeps
    daemons by itself.
    """

    name: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    @abc.abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """This says what the adapter can do here."""

    @abc.abstractmethod
    async def spawn(self, config: DaemonConfig) -> DaemonHandle:
        """This starts a daemon and returns when its program was executed.

        Raises:
            AlreadyRunning: A daemon of this name runs already.
            ConfigError: The configuration can't work here.
            SpawnError: The program could not be executed.
        """

    @abc.abstractmethod
    async def signal(self, handle: DaemonHandle, number: int) -> None:
        """This sends a signal to the main process.

        Raises:
            NotFound: That start is over.
        """

    @abc.abstractmethod
    async def status(self, handle: DaemonHandle) -> AdapterStatus:
        """This asks the platform how the daemon is."""

    @abc.abstractmethod
    async def stop(
        self, handle: DaemonHandle, timeout: float | None = None
    ) -> ExitInfo:
        """This stops the whole tree: stop signal, `timeout` seconds, SIGKILL.

        Raises:
            ShutdownTimeout: Something survived even SIGKILL.
        """

    @abc.abstractmethod
    async def kill(self, handle: DaemonHandle) -> ExitInfo:
        """This ends the whole tree by SIGKILL.

        Raises:
            ShutdownTimeout: Something survived.
        """

    @abc.abstractmethod
    async def pause(self, handle: DaemonHandle) -> None:
        """This stops the whole tree from running, without ending it."""

    @abc.abstractmethod
    async def resume(self, handle: DaemonHandle) -> None:
        """This lets a paused tree go on."""

    @abc.abstractmethod
    def logs(
        self, handle: DaemonHandle, *, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """This gives the captured output, line by line; `follow`: until it ends."""

    @abc.abstractmethod
    async def wait(self, handle: DaemonHandle) -> ExitInfo:
        """This waits until the main process has ended, for as long as it takes."""


class UnavailableAdapter(PlatformAdapter):
    """This is a platform that duende can't serve yet; everything is refused."""

    reason: str

    def refuse(self, operation: str) -> NotSupported:
        """This is the error for an operation."""
        return NotSupported(
            f"{type(self).__name__} can't {operation}: {self.reason}",
            'use platform = "native"',
        )

    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    async def spawn(self, config: DaemonConfig) -> DaemonHandle:
        raise self.refuse("spawn")

    async def signal(self, handle: DaemonHandle, number: int) -> None:
        raise self.refuse("signal")

    async def status(self, handle: DaemonHandle) -> AdapterStatus:
        raise self.refuse("status")

    async def stop(
        self, handle: DaemonHandle, timeout: float | None = None
    ) -> ExitInfo:
        raise self.refuse("stop")

    async def kill(self, handle: DaemonHandle) -> ExitInfo:
        raise self.refuse("kill")

    async def pause(self, handle: DaemonHandle) -> None:
        raise self.refuse("pause")

    async def resume(self, handle: DaemonHandle) -> None:
        raise self.refuse("resume")

    def logs(
        self, handle: DaemonHandle, *, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        raise self.refuse("logs")

    async def wait(self, handle: DaemonHandle) -> ExitInfo:
        raise self.refuse("wait")
