"""A virtual clock, a recorder of notifications, and a life that a test drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from duende.core._hosting import DaemonLife, Outcome, hosted_config
from duende.core._signals import SignalStreams
from duende.core.daemon import Daemon

DEADLINE = 5.0
"""Seconds of real time until a test that waits for something gives up."""


class Stage:
    """This hosts one daemon for a test and remembers what it said."""

    def __init__(
        self,
        daemon: Daemon,
        *,
        settings: object = None,
        timeout: float = 1.0,
        name: str | None = None,
    ) -> None:
        self.daemon = daemon
        self.said: list[tuple[tuple[str, str], ...]] = []
        self._news = anyio.Event()
        self.config = hosted_config(
            type(daemon), name or daemon.name, settings, timeout
        )
        self.signals = SignalStreams()
        self.life = DaemonLife(
            daemon,
            self.config,
            settings=settings,
            notify=self._notify,
            signals=self.signals,
        )
        self.outcome: Outcome | None = None

    def _notify(self, fields: tuple[tuple[str, str], ...]) -> None:
        self.said.append(fields)
        self._news.set()
        self._news = anyio.Event()

    async def live(self) -> None:
        self.outcome = await self.life.live()
        self._news.set()

    @property
    def keys(self) -> list[str]:
        return [fields[0][0] for fields in self.said]

    async def wait_said(self, key: str, times: int = 1) -> None:
        await eventually(lambda: self.keys.count(key) >= times)


async def eventually(condition: Callable[[], Any]) -> None:
    """This lets the loop turn until something holds, for a bounded time."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.001)
