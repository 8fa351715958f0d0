"""A supervisor that does nothing but remember, and a thread that serves it."""

from __future__ import annotations

import fnmatch
import json
import os
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread

from duende.core.control.api import Outcome
from duende.core.control.http import Limits
from duende.core.control.server import serve_control
from duende.core.errors import InvalidState, NotFound
from duende.core.types import Event


class FakeSupervisor:
    """A `SupervisorApi` whose daemons are rows of a dictionary."""

    def __init__(self, state: Path, names: Sequence[str] = ("db", "web-0", "web-1")):
        self.state = state
        self.rows: dict[str, dict[str, Any]] = {}
        for name in names:
            base, _, tail = name.rpartition("-")
            numbered = bool(base) and tail.isdigit()
            self.rows[name] = {
                "name": name,
                "instance": int(tail) if numbered else 0,
                "id": "00000000-0000-0000-0000-000000000000",
                "platform": "native",
                "state": "running",
                "ready": True,
                "healthy": None,
                "pid": 4242,
                "uptime": 1.5,
                "restarts": 0,
                "next_restart_in": None,
                "exit": None,
                "reason": None,
                "kill_scope": "subreaper",
                "cpu_percent": 0.5,
                "rss_bytes": 3_500_000,
                "started_at": "2026-01-02T03:04:05.000006Z",
                "status_text": "",
            }
        self.calls: list[tuple[Any, ...]] = []
        self.outcome_code = 0
        self.hang = False
        self.hanging = anyio.Event()
        self.cancelled = anyio.Event()
        self.shut = anyio.Event()
        self.subscribers: list[Any] = []
        self.followers: list[Any] = []
        self.log_folder = state / "logs"

    # -- SupervisorApi ----------------------------------------------------------------

    def overview(self) -> dict[str, object]:
        return {
            "supervisor": {
                "pid": os.getpid(),
                "keeper_pid": 7,
                "uptime": 9.25,
                "version": "9.9.9",
                "project": "fake",
            },
            "daemons": list(self.rows.values()),
        }

    def detail(self, name: str) -> dict[str, object]:
        if name not in self.rows:
            raise NotFound(f"there is no daemon {name!r}", "known: " + str(self.rows))
        return {
            **self.rows[name],
            "command": ["sleep", "5"],
            "depends_on": {"db": "ready"},
        }

    def resolve(self, patterns: Sequence[str], all: bool = False) -> tuple[str, ...]:
        if all:
            return tuple(self.rows)
        chosen = []
        for pattern in patterns:
            found = [
                name
                for name in self.rows
                if name == pattern
                or name.rpartition("-")[0] == pattern
                or fnmatch.fnmatchcase(name, pattern)
            ]
            if not found:
                raise NotFound(f"there is no daemon {pattern!r}", "known: db")
            chosen += found
        return tuple(chosen)

    async def command(
        self,
        verb: str,
        names: Sequence[str],
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> tuple[Outcome, ...]:
        self.calls.append((verb, tuple(names), wait, timeout))
        if verb == "pause" and self.outcome_code == 99:
            raise InvalidState("it is not running", "start it")
        await self._maybe_hang()
        return self._outcomes(names)

    async def signal(self, number: int, names: Sequence[str]) -> tuple[Outcome, ...]:
        self.calls.append(("signal", number, tuple(names)))
        return self._outcomes(names)

    async def wait(
        self, names: Sequence[str], state: str, timeout: float | None
    ) -> tuple[Outcome, ...]:
        self.calls.append(("wait", tuple(names), state, timeout))
        await self._maybe_hang()
        return self._outcomes(names)

    async def shutdown(self, timeout: float | None) -> tuple[Outcome, ...]:
        self.calls.append(("shutdown", timeout))
        self.shut.set()
        return self._outcomes(list(self.rows))

    @asynccontextmanager
    async def subscribe_events(
        self, since: int | None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        send, receive = anyio.create_memory_object_stream[Event](10_000)
        self.calls.append(("subscribe", since))
        self.subscribers.append(send)
        try:
            with receive:
                yield receive
        finally:
            self.subscribers.remove(send)
            send.close()

    async def flush_logs(self, names: Sequence[str]) -> None:
        self.calls.append(("flush", tuple(names)))
        await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def follow_logs(
        self, names: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[str]]:
        send, receive = anyio.create_memory_object_stream[str](10_000)
        self.followers.append(send)
        try:
            with receive:
                yield receive
        finally:
            self.followers.remove(send)
            send.close()

    def log_paths(self) -> dict[str, str]:
        return {name: str(self.log_folder / f"{name}.log") for name in self.rows}

    # -- what a test does with it -----------------------------------------------------

    def _outcomes(self, names: Sequence[str]) -> tuple[Outcome, ...]:
        code = self.outcome_code
        message = "" if code == 0 else "it would not"
        return tuple(
            Outcome(name, code == 0, str(self.rows[name]["state"]), message, code)
            for name in names
        )

    async def _maybe_hang(self) -> None:
        if self.hang:
            self.hanging.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled.set()

    def publish(self, seq: int, text: str = "") -> None:
        for send in list(self.subscribers):
            send.send_nowait(event(seq, text))


def event(seq: int, reason: str = "", at: str = "2026-01-02T03:04:05Z") -> Event:
    """This is a state event with a number."""
    return Event(
        seq=seq,
        at=at,
        daemon="web-0",
        type="state",
        from_="starting",
        to="running",
        reason=reason or None,
    )


class LogOnDisk:
    """This writes a log the way the keeper does: file, index, rotation, gzip."""

    def __init__(self, state: Path, name: str, generation: int = 0) -> None:
        self.path = state / "logs" / f"{name}.log"
        self.index = state / "index" / name
        self.generation = generation
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.index.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        (self.index / str(generation)).touch()

    def write(self, content: bytes, at: int) -> None:
        offset = self.path.stat().st_size
        with open(self.path, "ab") as file:
            file.write(content)
        with open(self.index / str(self.generation), "ab") as file:
            file.write(struct.pack("<QQ", offset, at))

    def rotate(self, *, compress: bool = False) -> None:
        import gzip

        for age in range(50, 0, -1):
            for suffix in ("", ".gz"):
                older = Path(f"{self.path}.{age}{suffix}")
                if older.exists():
                    older.rename(f"{self.path}.{age + 1}{suffix}")
        if compress:
            data = self.path.read_bytes()
            Path(f"{self.path}.1.gz").write_bytes(gzip.compress(data))
            self.path.unlink()
        else:
            self.path.rename(f"{self.path}.1")
        self.generation += 1
        self.path.touch()
        (self.index / str(self.generation)).touch()


class Served:
    """A fake supervisor that is being served, and what a test may ask of it."""

    def __init__(self, api: FakeSupervisor, socket: str, portal: Any) -> None:
        self.api = api
        self.socket = socket
        self._portal = portal

    def call(self, function: Any, *args: Any) -> Any:
        """This runs something in the server's event loop."""
        return self._portal.call(partial(_call, function, *args))


async def _call(function: Any, *args: Any) -> Any:
    return function(*args)


@contextmanager
def served(
    state: Path,
    backend: str,
    *,
    socket: Path | None = None,
    limits: Limits | None = None,
    names: Sequence[str] = ("db", "web-0", "web-1"),
) -> Iterator[Served]:
    """This serves a fake supervisor from another thread."""
    path = str(socket or state / "duende.sock")
    with anyio.from_thread.start_blocking_portal(backend) as portal:

        async def make() -> FakeSupervisor:
            return FakeSupervisor(state, names)

        api = portal.call(make)
        task, _ = portal.start_task(
            partial(serve_control, api, path, state=str(state), limits=limits)
        )
        try:
            yield Served(api, path, portal)
        finally:
            task.cancel()


def until(condition: Any, seconds: float = 10.0) -> None:
    """This waits for a condition that another thread or process brings about."""
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        tick.wait(0.005)


def events_file(state: Path, *events: Event) -> None:
    """This writes STATE/events.jsonl."""
    lines = [json.dumps(each.to_json()) + "\n" for each in events]
    (state / "events.jsonl").write_text("".join(lines))
