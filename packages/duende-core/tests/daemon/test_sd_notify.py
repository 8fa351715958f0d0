"""The sd_notify client against real sockets: it never blocks and never raises."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core import sd_notify
from duende.core.sd_notify import Delivery, Notifier


@pytest.fixture(params=["path", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    """A supervisor's socket, and what NOTIFY_SOCKET would be for it."""
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@duende-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        server.settimeout(5)
        yield server, address


def test_a_datagram_arrives(listener: tuple[socket.socket, str]) -> None:
    """All pairs of one call are one datagram, on path and abstract sockets."""
    server, address = listener
    environ = {"NOTIFY_SOCKET": address}
    assert sd_notify.notify("READY=1", "STATUS=ö", environ=environ)
    assert server.recv(4096) == "READY=1\nSTATUS=ö".encode()


def test_a_replaced_socket_is_found_again(tmp_path: Path) -> None:
    """A supervisor that bound the same path anew is reached by the same client."""
    path = tmp_path / "notify"
    notifier = Notifier(str(path))
    for text in (b"A=1", b"A=2"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            server.settimeout(5)
            assert notifier.send(text.decode()) is Delivery.SENT
            assert server.recv(100) == text
        assert notifier.send("B=1") is Delivery.GONE
        path.unlink()
    notifier.close()
    notifier.close()


def test_a_full_socket_does_not_block(tmp_path: Path) -> None:
    """When nobody reads, the answer is BUSY, at once."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        notifier = Notifier(path)
        for _ in range(100_000):
            answer = notifier.send("STATUS=" + "x" * 1000)
            if answer is not Delivery.SENT:
                break
        notifier.close()
    assert answer is Delivery.BUSY


@pytest.mark.parametrize(
    "address",
    [None, "", "/", "@", "relative", "vsock:2:1", "/nowhere/at/all", "/" + "x" * 200],
)
def test_no_usable_socket(address: str | None) -> None:
    """No socket, an odd one, one that is gone: False, and no exception."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert sd_notify.notify("READY=1", environ=environ) is False
    assert sd_notify.barrier(0.1, environ=environ) is False


@given(st.lists(st.tuples(st.sampled_from(["A", "STATUS"]), st.text()), max_size=4))
def test_a_value_never_makes_another_field(fields: list[tuple[str, str]]) -> None:
    """Line breaks in values can't forge fields such as READY."""
    text = sd_notify.render_fields(fields)
    lines = text.split("\n") if fields else []
    assert [line.partition("=")[0] for line in lines] == [key for key, _ in fields]


def test_barrier_waits_for_the_supervisor(tmp_path: Path) -> None:
    """It returns when the supervisor closes the fd, and gives up in time."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(5)

        def answer() -> None:
            _, ancillary, _, _ = server.recvmsg(100, socket.CMSG_SPACE(4))
            fds = array.array("i", ancillary[0][2])
            os.close(fds[0])

        supervisor = threading.Thread(target=answer)
        supervisor.start()
        assert sd_notify.barrier(5, environ={"NOTIFY_SOCKET": path})
        supervisor.join()
        assert not sd_notify.barrier(0.01, environ={"NOTIFY_SOCKET": path})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], expected: float | None) -> None:
    """The period is in seconds, and only ours when the pid is."""
    assert sd_notify.watchdog_interval(environ) == expected


def test_the_variables_are_taken_out() -> None:
    """What the daemon starts must not inherit the supervisor's socket."""
    environ = {
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    notifier, period = sd_notify.take_environment(environ)
    assert notifier.has_listener
    assert period == 1.0
    assert environ == {"PATH": "/bin"}
