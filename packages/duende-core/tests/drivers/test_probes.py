"""The readiness checks against real sockets, servers and commands."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from duende.core._drivers.probes import (
    check_exec,
    check_http,
    check_tcp,
    check_unix,
    split_address,
    watch,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[int]:
    """This serves one answer to whatever is asked, and gives its port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def handle(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.receive()
                if answer:
                    await stream.send(answer)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"", False),
    ],
)
async def test_http_is_judged_by_its_status(answer: bytes, expected: bool) -> None:
    """A GET passes on a status from 200 to 399, and on nothing else."""
    async with serving(answer) as port:
        with anyio.fail_after(5):
            assert expected == await check_http(f"http://127.0.0.1:{port}/healthz?a=b")


async def test_a_closed_port_fails_every_network_check(tmp_path: Path) -> None:
    """Nothing raises when nobody listens."""
    async with serving(b"") as port:
        pass
    assert not await check_http(f"http://127.0.0.1:{port}/")
    assert not await check_tcp(f"127.0.0.1:{port}")
    assert not await check_unix(str(tmp_path / "no.sock"))


async def test_tcp_and_unix_pass_when_somebody_listens(tmp_path: Path) -> None:
    """A connection that is accepted is enough."""
    async with serving(b"") as port:
        assert await check_tcp(f"127.0.0.1:{port}")
    async with await anyio.create_unix_listener(tmp_path / "a.sock"):
        assert await check_unix(str(tmp_path / "a.sock"))


@pytest.mark.real
@pytest.mark.parametrize(("code", "expected"), [(0, True), (1, False)])
async def test_a_command_passes_by_its_exit_code(
    tmp_path: Path, code: int, expected: bool
) -> None:
    """The command runs in the daemon's folder and environment."""
    program = (
        "import os, sys; sys.exit("
        f"{code} if os.environ['A'] == 'b' and os.getcwd() == {str(tmp_path)!r} else 9)"
    )
    argv = (sys.executable, "-c", program)
    assert expected == await check_exec(argv, cwd=str(tmp_path), env={"A": "b"})


@pytest.mark.real
async def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    """A cancelled check leaves no process behind."""
    pid_file = tmp_path / "pid"
    argv = ("/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 1000")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def check() -> None:
                await check_exec(argv, cwd="/", env={"PATH": os.defpath})

            tasks.start_soon(check)
            while not pid_file.exists() or not pid_file.read_text().strip():
                await anyio.lowlevel.checkpoint()
            pid = int(pid_file.read_text())
            tasks.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_missing_command_does_not_raise() -> None:
    """A check that can't be run has failed."""
    assert not await check_exec(("/no/such/check",), cwd="/", env={})


async def test_watching_goes_on_until_a_check_passes() -> None:
    """Failures and hanging tries are followed by another try."""
    tries = 0

    async def check() -> bool:
        nonlocal tries
        tries += 1
        if tries == 2:
            await anyio.sleep_forever()
        return tries == 4

    with anyio.fail_after(5):
        await watch(check, interval=0.001, limit=0.01)
    assert 4 == tries


@pytest.mark.parametrize(
    ("text", "expected"),
    [("localhost:80", ("localhost", 80)), ("[::1]:5432", ("::1", 5432))],
)
async def test_addresses_are_split(text: str, expected: tuple[str, int]) -> None:
    """Host and port come apart, IPv6 in brackets."""
    assert expected == split_address(text)


async def test_an_address_without_a_port_is_refused() -> None:
    """The message says how an address is written."""
    with pytest.raises(ValueError, match="host:port"):
        split_address("localhost")
