"""Readiness checks: HTTP, TCP, unix socket, a command, a line in the log.

Each `check_…` tries once and says whether it passed; `watch` tries again every
interval until it did. A check never raises for what a daemon does wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import anyio
import anyio.abc

__all__ = (
    "check_exec",
    "check_http",
    "check_tcp",
    "check_unix",
    "split_address",
    "watch",
)

_FAILURES = (
    OSError,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    TimeoutError,
    ssl.SSLError,
)


async def watch(
    check: Callable[[], Awaitable[bool]], *, interval: float, limit: float
) -> None:
    """This returns when a check has passed.

    Args:
        check: One try.
        interval: Seconds from the end of a try to the next.
        limit: Seconds that one try may take.
    """
    while True:
        with anyio.move_on_after(limit):
            if await check():
                return
        await anyio.sleep(interval)


def split_address(text: str) -> tuple[str, int]:
    """This splits `host:port`; an IPv6 host stands in brackets (RFC 3986).

    Raises:
        ValueError: It is something else.
    """
    parts = urlsplit("//" + text)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"{text!r} is no address; write 'host:port'")
    return parts.hostname, parts.port


async def check_tcp(address: str) -> bool:
    """This passes when a connection to `host:port` is accepted."""
    host, port = split_address(address)
    try:
        stream = await anyio.connect_tcp(host, port, happy_eyeballs_delay=0.05)
    except _FAILURES:
        return False
    await anyio.aclose_forcefully(stream)
    return True


async def check_unix(path: str) -> bool:
    """This passes when a connection to the socket at `path` is accepted."""
    try:
        stream = await anyio.connect_unix(path)
    except _FAILURES:
        return False
    await anyio.aclose_forcefully(stream)
    return True


async def check_http(url: str) -> bool:
    """This passes when a GET is answered with a status below 400 (RFC 9110)."""
    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        "User-Agent: duende\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    stream: anyio.abc.ByteStream
    try:
        if secure:
            stream = await anyio.connect_tcp(host, port, tls=True)
        else:
            stream = await anyio.connect_tcp(host, port, happy_eyeballs_delay=0.05)
    except _FAILURES:
        return False
    try:
        await stream.send(request.encode("ascii", "replace"))
        answer = b""
        while b"\r\n" not in answer and len(answer) < 4096:
            answer += await stream.receive(4096)
    except _FAILURES:
        return False
    finally:
        with contextlib.suppress(*_FAILURES):
            await anyio.aclose_forcefully(stream)
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return match is not None and 200 <= int(match[1]) < 400


async def check_exec(
    argv: tuple[str, ...],
    *,
    cwd: str,
    env: Mapping[str, str],
    user: int | None = None,
    group: int | None = None,
) -> bool:
    """This passes when the command exits with 0; it is killed when cancelled.

    `user` and `group` are ids to run it as, when they are not this process's own.
    """
    try:
        # A cancellation in the middle of a start would lose the child.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=cwd,
                env=env,
                start_new_session=True,
                user=user if user not in (None, os.geteuid()) else None,
                group=group if group not in (None, os.getegid()) else None,
            )
    except OSError:
        return False
    try:
        return await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError), anyio.CancelScope(shield=True):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
