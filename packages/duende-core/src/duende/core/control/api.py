"""What the control server needs of a supervisor, and a display of one.

Protocols and values alone: the server, the command and their tests are written
against these, and any object with these methods can be served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from duende.core.types import Event, Outcome

__all__ = ("COMMAND_VERBS", "Display", "Outcome", "SupervisorApi")

COMMAND_VERBS = ("start", "stop", "restart", "reload", "pause", "resume")
"""What `SupervisorApi.command` may be asked to do."""


class SupervisorApi(Protocol):
    """This is the control server's view of a running supervisor.

    What is not `async` answers at once from memory. Times are seconds; a timeout
    of None means the supervisor's own bound. Names are those of instances. Cancelling
    a wait (the client has gone) cancels the waiting alone, not what was asked for.
    """

    def overview(self) -> dict[str, object]:
        """This is the object that `ps -o json` prints."""

    def detail(self, name: str) -> dict[str, object]:
        """This is one row of the overview, with all else that is known.

        Raises:
            NotFound: There is no such daemon.
        """

    def resolve(self, patterns: Sequence[str], all: bool = False) -> tuple[str, ...]:
        """This expands names, base names of instances and globs, in file order.

        Raises:
            NotFound: A pattern matches nothing.
        """

    async def command(
        self,
        verb: str,
        names: Sequence[str],
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> tuple[Outcome, ...]:
        """This does one of `COMMAND_VERBS` to the daemons, one outcome each."""

    async def signal(self, number: int, names: Sequence[str]) -> tuple[Outcome, ...]:
        """This sends a signal to the main process of each daemon."""

    async def wait(
        self, names: Sequence[str], state: str, timeout: float | None
    ) -> tuple[Outcome, ...]:
        """This waits until every daemon is in the state, can't be, or time is up."""

    async def shutdown(self, timeout: float | None) -> tuple[Outcome, ...]:
        """This stops everything in reverse order, then ends the supervisor."""

    def subscribe_events(
        self, since: int | None
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """This yields events after number `since` (None: from now on), for ever."""

    async def flush_logs(self, names: Sequence[str]) -> None:
        """This returns when all output written so far is in the log files."""

    def follow_logs(
        self, names: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """This yields a daemon's name whenever its log has grown."""

    def log_paths(self) -> dict[str, str]:
        """This maps each daemon whose output is captured to its current log file."""


class Display(Protocol):
    """This shows a foreground `up` to a person; it never blocks and never raises.

    What can't be shown in time (a stopped terminal, a slow pipe) is dropped and
    counted, so that the display never holds up control.
    """

    def event(self, event: Event) -> None:
        """This takes notice of an event."""

    def log(self, daemon: str, line: bytes) -> None:
        """This shows one line of output, with or without its newline."""

    def ready(self, overview: Mapping[str, object]) -> None:
        """This says once that everything that should run is ready."""

    def failed(self, daemon: str, reason: str, last_lines: Sequence[bytes]) -> None:
        """This names a daemon that failed, why, and what it said last."""

    def note(self, text: str) -> None:
        """This tells the person one sentence."""
