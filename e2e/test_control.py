"""P16: whatever clients and daemons do, the supervisor answers."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest

from .project import Project, child, until

pytestmark = [pytest.mark.e2e, pytest.mark.real]

GOOD = '[daemon.a]\ncommand = "sleep 1000"\n'
AT_ONCE = 10.0
"""Seconds: far above what an answer takes, far below any of the stuck things here."""


def connect(project: Project) -> socket.socket:
    """This opens a connection to the control socket."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(AT_ONCE)
    stream.connect(str(project.socket))
    return stream


def exchange(project: Project, data: bytes) -> bytes:
    """This sends bytes and reads all that comes until the server closes."""
    with connect(project) as stream:
        answer = b""
        try:
            stream.sendall(data)
            while part := stream.recv(65536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def assert_answers(project: Project) -> None:
    """This asks as a user would, and fails when that takes long."""
    result = project.ok("ps", timeout=AT_ONCE)
    assert "running" in result.out
    project.ok("restart", "a", timeout=AT_ONCE)


def test_p16_slow_and_half_closed_clients(project: Project) -> None:
    """Hundreds of clients that say half a sentence keep nobody else waiting."""
    project.write(GOOD)
    project.up()
    with ExitStack() as open_ones:
        for number in range(300):
            stream = connect(project)
            open_ones.enter_context(stream)
            if number % 3 == 0:
                stream.sendall(b"GET /v1/daemons HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            elif number % 3 == 1:
                stream.sendall(
                    b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
                )
                stream.shutdown(socket.SHUT_WR)
        assert_answers(project)
    assert_answers(project)


BAD_REQUESTS = {
    "no HTTP": b"\x00\xff\x16\x03\x01" * 100 + b"\r\n\r\n",
    "endless line": b"GET /" + b"a" * 2_000_000,
    "endless headers": b"GET /v1/daemons HTTP/1.1\r\nHost: x\r\n"
    + b"X-A: b\r\n" * 100_000,
    "huge body": b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: "
    b"1000000000\r\n\r\n" + b"x" * 2_000_000,
    "negative length": b"POST /v1/commands HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: -5\r\n\r\n",
    "nested": b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Length: 40000\r\n\r\n" + b"[" * 40000,
    "no JSON": b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Length: 3\r\n\r\n{x}",
    "dunder name": b"POST /v1/daemons/__class__/restart HTTP/1.1\r\nHost: x\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n",
    "dots": b"GET /v1/daemons/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n"
    b"Connection: close\r\n\r\n",
    "other method": b"BREW /v1/daemons HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


def test_p16_bad_requests_are_refused(project: Project) -> None:
    """Oversized and nonsensical requests get a 4xx or a closed door, no 5xx."""
    project.write(GOOD)
    project.up()
    plane = project.control_pid()
    for case, data in BAD_REQUESTS.items():
        answer = exchange(project, data)
        status = answer.split(b" ")[1:2]
        assert status == [] or status[0][:1] in (b"4",) or status == [b"501"], (
            case,
            answer[:200],
        )
    assert_answers(project)
    assert plane == project.control_pid()


def test_p16_a_stuck_daemon_blocks_nobody(project: Project) -> None:
    """While one daemon's stop takes its time, everything else is answered at once."""
    project.write(
        GOOD + f"[daemon.stuck]\ncommand = {child('stubborn')}\nready = 'notify'\n"
        'stop = { timeout = "60s" }\n'
        f"[daemon.late]\ncommand = {child('late', 'signpost')}\n"
        "ready = { notify = true, timeout = '10m' }\n"
        '[daemon.hook]\ncommand = "sleep 1000"\n'
        'ready = { exec = ["sleep", "1000"], timeout = "10m" }\n'
    )
    starter = project.start("up", "-d")
    project.is_in("stuck", "running")
    stop = project.start("stop", "stuck")
    project.is_in("stuck", "stopping")
    assert_answers(project)
    assert "stopping" == project.row("stuck")["state"]
    assert None is stop.poll()
    assert None is starter.poll()
    project.ok("stop", "late", "hook", timeout=AT_ONCE)
    # A person who does not want to wait any longer.
    project.ok("signal", "KILL", "stuck")
    stop.communicate(timeout=AT_ONCE)
    assert 0 == stop.returncode


def test_p16_a_reader_that_does_not_read(project: Project) -> None:
    """A client that follows the events and never reads them costs nobody anything."""
    project.write(
        GOOD + f"[daemon.b]\ncommand = {child('counting')}\n"
        '[daemon.flap]\ncommand = "false"\n'
        'restart = { backoff = { initial = "10ms", max = "10ms" } }\n'
    )
    project.run("up", "-d")
    with ExitStack() as open_ones:
        for path in ("/v1/events?follow=1", "/v1/logs/growth", "/v1/logs?follow=1"):
            for _ in range(5):
                stream = connect(project)
                open_ones.enter_context(stream)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        count = project.row("flap")["restarts"]
        until(lambda: project.row("flap")["restarts"] > count + 50, "things happen")
        assert_answers(project)


def test_control_socket_speaks_plain_http(project: Project) -> None:
    """What `curl --unix-socket` gets from /v1/daemons is what `ps -o json` prints."""
    project.write(GOOD)
    project.up()
    answer = exchange(
        project,
        b"GET /v1/daemons HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"200" in head.splitlines()[0]
    assert b"application/json" in head.lower()
    served = json.loads(body)
    printed = project.ok("ps", "-o", "json").json()
    keys = {"name", "instance", "id", "platform", "state", "ready", "healthy", "pid"}
    keys |= {"uptime", "restarts", "next_restart_in", "exit", "reason", "kill_scope"}
    keys |= {"cpu_percent", "rss_bytes", "started_at", "status_text"}
    assert keys <= printed["daemons"][0].keys()
    assert {"pid", "keeper_pid", "uptime", "version", "project"} <= printed[
        "supervisor"
    ].keys()
    for row in (served["daemons"][0], printed["daemons"][0]):
        for key in ("uptime", "cpu_percent", "rss_bytes"):
            row.pop(key)
    assert served["daemons"] == printed["daemons"]
