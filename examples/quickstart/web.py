"""An async HTTP service that hands out jobs: GET /jobs, and GET /healthz for probes."""

from __future__ import annotations

import json

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import frozen

from duende.core import Daemon, DaemonConfig, DaemonContext, HealthStatus


@frozen
class Settings:
    """This is the daemon's `settings` table, typed and checked."""

    port: int = 8470


class Web(Daemon):
    """This answers one request a connection. A real service would bring its own server:

    `await server.serve()` inside `ctx.until_shutdown()` is all it takes.
    """

    settings: Settings

    async def init(self, config: DaemonConfig) -> None:
        """Fail fast: a port that is taken ends the daemon before it was ready."""
        self.listener = await anyio.create_tcp_listener(
            local_host="127.0.0.1", local_port=self.settings.port
        )
        self.jobs = 0

    async def run(self, ctx: DaemonContext) -> None:
        """Serve until the daemon is asked to stop."""
        ctx.logger.info("listening on port %d", self.settings.port)
        with ctx.until_shutdown():
            await self.listener.serve(self.answer)
        ctx.logger.info("handed out %d jobs", self.jobs)

    async def shutdown(self, timeout: float) -> None:
        """Close what `init` opened, whatever way `run` ended."""
        await self.listener.aclose()

    async def health_check(self) -> HealthStatus:
        """Say how things are, to duende and to /healthz alike."""
        port = self.listener.extra(SocketAttribute.local_port)
        if port != self.settings.port:
            return HealthStatus.unhealthy(f"listening on port {port}")
        return HealthStatus.healthy()

    async def answer(self, stream: SocketStream) -> None:
        """Read one request and answer it."""
        async with stream:
            with anyio.move_on_after(5):
                try:
                    reader = BufferedByteReceiveStream(stream)
                    head = await reader.receive_until(b"\r\n\r\n", 8192)
                    status, body = await self.respond(head)
                    text = json.dumps(body).encode()
                    await stream.send(
                        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
                        % (status, len(text), text)
                    )
                except (
                    anyio.BrokenResourceError,
                    anyio.DelimiterNotFound,
                    anyio.IncompleteRead,
                ):
                    pass  # a client that went away, or that speaks no HTTP

    async def respond(self, head: bytes) -> tuple[bytes, object]:
        """Choose the answer by the request line."""
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0]
        if method == b"GET" and path == b"/jobs":
            self.jobs += 1
            return b"200 OK", {"job": self.jobs}
        if method == b"GET" and path == b"/healthz":
            health = await self.health_check()
            status = b"200 OK" if health.is_healthy else b"503 Service Unavailable"
            return status, {"healthy": health.is_healthy, "reason": health.reason}
        return b"404 Not Found", {"error": "there is /jobs and /healthz"}
