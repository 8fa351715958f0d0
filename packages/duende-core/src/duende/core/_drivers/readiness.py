"""Watching one start until it is ready, by whatever its configuration names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from duende.core._drivers.log_feed import GrowingFile, LogFeed
from duende.core.machines.record import Record

__all__ = ("ReadinessProber",)

ONE_TRY = 10.0
"""Seconds that one check may take, if the daemon's own timeout is not shorter."""


class ReadinessProber:
    """This carries out `[daemon.x.ready]`.

    Args:
        context_of: Gives cwd, env, user and group for a command beside a daemon.
        log_of: Gives the daemon's log file and where its present run begins in it.
        feed: Tells when a log grows.
    """

    def __init__(
        self,
        context_of: Callable[[Record], dict[str, Any]],
        log_of: Callable[[Record], tuple[str, int]],
        feed: LogFeed,
    ) -> None:
        self._context_of = context_of
        self._log_of = log_of
        self._feed = feed

    async def __call__(self, record: Record) -> None:
        """This returns when the present run of the daemon has passed its check."""
        # Not before a daemon needs it: most are ready when they have started.
        from duende.core._drivers.probes import (
            check_exec,
            check_http,
            check_tcp,
            check_unix,
            watch,
        )

        ready = record.spec.config.readiness
        limit = min(ready.timeout, ONE_TRY)
        if ready.http is not None:
            url = ready.http
            await watch(lambda: check_http(url), interval=ready.interval, limit=limit)
        elif ready.tcp is not None:
            tcp = ready.tcp
            await watch(lambda: check_tcp(tcp), interval=ready.interval, limit=limit)
        elif ready.unix is not None:
            path = os.path.join(self._context_of(record)["cwd"], ready.unix)
            await watch(lambda: check_unix(path), interval=ready.interval, limit=limit)
        elif ready.exec is not None:
            argv, context = ready.exec, self._context_of(record)
            await watch(
                lambda: check_exec(argv, **context),
                interval=ready.interval,
                limit=limit,
            )
        elif ready.log is not None:
            await self._watch_log(record, re.compile(ready.log.encode()))
        else:
            await anyio.sleep_forever()

    async def _watch_log(self, record: Record, pattern: re.Pattern[bytes]) -> None:
        file = GrowingFile(*self._log_of(record))
        rest = b""
        try:
            async with self._feed.follow([record.name]) as notes:
                while True:
                    rest += await anyio.to_thread.run_sync(file.read_new)
                    if pattern.search(rest):
                        return
                    rest = rest[rest.rfind(b"\n") + 1 :][-65536:]
                    await anext(notes)
        finally:
            file.close()
