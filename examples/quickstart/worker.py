"""A worker that asks the web service for jobs and writes what it did as a page."""

from __future__ import annotations

import json
import os
import pathlib

import anyio
from attrs import frozen

from duende.core import Daemon, DaemonContext

PAGE = pathlib.Path("site", "index.html")


@frozen
class Settings:
    """This is the daemon's `settings` table, typed and checked."""

    service: str = "127.0.0.1:8470"
    every: float = 0.5


class Worker(Daemon):
    """This does a job at a fixed rate, and bears with a service that is away."""

    settings: Settings
    manual_ready = True  # ready means: the first page is written, not: it was started

    async def run(self, ctx: DaemonContext) -> None:
        """Work until the daemon is asked to stop."""
        done = 0
        async for _ in ctx.every(self.settings.every):
            try:
                job = await self.ask()
            except (OSError, ValueError, TimeoutError) as error:
                ctx.logger.warning("no job: %s", error)
                continue
            done += 1
            self.write(job)
            ctx.notify_ready()
            ctx.notify_status(f"job {job}, {done} done")
            ctx.logger.info("job %d done", job)

    async def ask(self) -> int:
        """Get the number of the next job from the service."""
        host, _, port = self.settings.service.rpartition(":")
        with anyio.fail_after(2):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(b"GET /jobs HTTP/1.1\r\nHost: web\r\n\r\n")
                answer = b"".join([part async for part in stream])
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise ValueError(f"the service said {head[:80]!r}")
        return int(json.loads(body)["job"])

    def write(self, job: int) -> None:
        """Replace the page in one step, so that no reader ever sees half of it."""
        PAGE.parent.mkdir(exist_ok=True)
        new = PAGE.with_suffix(".new")
        new.write_text(f"<p>job {job} was done by process {os.getpid()}</p>\n")
        new.replace(PAGE)
