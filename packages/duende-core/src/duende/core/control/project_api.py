"""A running project as the control server sees it: `SupervisorApi` for real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import anyio

from duende.core._drivers.project import KeeperProject
from duende.core._version import installed_version
from duende.core.control.eventlog import EventLog, read_events
from duende.core.types import Event, Outcome

__all__ = ("ProjectApi", "own_version")


@cache
def own_version() -> str:
    """This is the version of the installed duende-core."""
    return installed_version() or "unknown"


class ProjectApi:
    """This answers for one project.

    Args:
        project: What runs.
        log: Where its events are written down.
        pid: The process id of this control plane.
    """

    def __init__(
        self, project: KeeperProject, log: EventLog, path: str, pid: int
    ) -> None:
        self._project = project
        self._supervisor = project.supervisor
        self._log = log
        self._events_path = path
        self._pid = pid
        self._since = project.clock.now()
        self.ended = anyio.Event()

    def overview(self) -> dict[str, object]:
        """This is the object that `ps -o json` prints."""
        return {
            "supervisor": {
                "pid": self._pid,
                "keeper_pid": self._project.keeper_pid,
                "uptime": round((self._project.clock.now() - self._since) / 1e9, 3),
                "version": own_version(),
                "project": self._project.settings.project,
            },
            "daemons": [info.to_json() for info in self._supervisor.infos()],
        }

    def detail(self, name: str) -> dict[str, object]:
        """This is one row of the overview, with all else that is known."""
        row: dict[str, Any] = self._supervisor.detail(name)
        row["log"] = self.log_paths().get(name)
        row["log_dropped"] = self._project.host.dropped.get(name, 0)
        return row

    def resolve(self, patterns: Sequence[str], all: bool = False) -> tuple[str, ...]:
        """This expands names, base names of instances and globs."""
        return self._supervisor.resolve(patterns, all)

    async def command(
        self,
        verb: str,
        names: Sequence[str],
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> tuple[Outcome, ...]:
        """This does one of `COMMAND_VERBS` to the daemons."""
        return await self._supervisor.command(verb, names, wait=wait, timeout=timeout)

    async def signal(self, number: int, names: Sequence[str]) -> tuple[Outcome, ...]:
        """This sends a signal to the main process of each daemon."""
        return await self._supervisor.signal(number, names)

    async def wait(
        self, names: Sequence[str], state: str, timeout: float | None
    ) -> tuple[Outcome, ...]:
        """This waits until every daemon is in the state, can't be, or time is up."""
        return await self._supervisor.wait(names, state, timeout)

    async def shutdown(self, timeout: float | None) -> tuple[Outcome, ...]:
        """This stops everything in reverse order; the supervisor ends after it."""
        return await self._supervisor.shutdown(timeout, "down")

    @asynccontextmanager
    async def subscribe_events(
        self, since: int | None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """This yields events after number `since` (None: from now on)."""
        async with self._supervisor.engine.subscribe() as live:
            past = (
                []
                if since is None
                else list(read_events(self._events_path, after=since))
            )
            yield _past_and_live(past, live)

    async def flush_logs(self, names: Sequence[str]) -> None:
        """This returns when all output written so far is in the log files."""
        await self._project.flush(tuple(names))

    @asynccontextmanager
    async def follow_logs(
        self, names: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[str]]:
        """This yields a daemon's name whenever its log has grown."""
        async with self._project.log_feed.follow(names) as notes:
            yield notes

    def log_paths(self) -> dict[str, str]:
        """This maps each daemon whose output is captured to its current log file."""
        return {
            name: str(self._project.log_path(name))
            for name, record in self._supervisor.machine.records.items()
            if record.spec.config.log.capture
        }


async def _past_and_live(
    past: list[dict[str, Any]], live: AsyncIterator[Event]
) -> AsyncIterator[Event]:
    last = 0
    for line in past:
        event = _event(line)
        last = event.seq
        yield event
    async for event in live:
        if event.seq > last:
            yield event


def _event(line: dict[str, Any]) -> Event:
    """This reads a written event line back."""
    known = {"seq", "at", "daemon", "type", "from", "to", "reason"}
    return Event(
        seq=line["seq"],
        at=line["at"],
        daemon=line.get("daemon"),
        type=line["type"],
        from_=line.get("from"),
        to=line.get("to"),
        reason=line.get("reason"),
        data={key: value for key, value in line.items() if key not in known},
    )
