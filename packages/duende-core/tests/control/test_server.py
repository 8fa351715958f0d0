"""The control server, over real sockets, on both event loops."""

from __future__ import annotations

import json
import os
import socket
import stat
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from duende.core.control.client import ControlClient
from duende.core.control.http import Limits
from duende.core.control.server import is_allowed
from duende.core.control.unix_socket import bind_private
from duende.core.errors import AlreadyRunning, PlatformError

from .fakes import LogOnDisk, Served, event, events_file, served, until


@pytest.fixture
def server(tmp_path: Path, anyio_backend: str) -> Iterator[Served]:
    """A served fake supervisor with three daemons."""
    with served(tmp_path, anyio_backend) as found:
        yield found


@pytest.fixture
def client(server: Served) -> ControlClient:
    """A client of it."""
    return ControlClient(server.socket)


def raw(path: str, content: bytes, *, half_close: bool = False) -> bytes:
    """This sends bytes and reads all that comes back."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(path)
        try:
            stream.sendall(content)
        except BrokenPipeError:
            pass
        if half_close:
            stream.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            try:
                part = stream.recv(65536)
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part


def test_overview_is_the_object_of_ps(server: Served, client: ControlClient) -> None:
    """GET /v1/daemons is exactly what the supervisor's overview says."""
    reply = client.get("/v1/daemons")
    assert 200 == reply.status
    assert server.api.overview() == reply.body


def test_detail_of_one(client: ControlClient) -> None:
    """GET /v1/daemons/NAME has more than the row."""
    assert ["sleep", "5"] == client.get("/v1/daemons/web-0").field("command")


def test_version(client: ControlClient) -> None:
    """GET /v1/version says who answers, without looking at any daemon."""
    reply = client.get("/v1/version")
    assert ("v1", os.getpid()) == (reply.field("api"), reply.field("pid"))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/daemons/nobody", None, 404),
        ("POST", "/v1/daemons/nobody/start", None, 404),
        ("GET", "/nothing", None, 404),
        ("GET", "/v1/daemons/db/start", None, 405),
        ("POST", "/v1/daemons", None, 405),
        ("POST", "/v1/daemons/db/frobnicate", None, 404),
        ("GET", "/metrics", None, 501),
        ("POST", "/v1/commands", {"verb": "fly", "names": ["db"]}, 400),
        ("POST", "/v1/commands", {"verb": "start"}, 400),
        ("POST", "/v1/commands", {"verb": "start", "names": "db"}, 400),
        ("POST", "/v1/commands", {"verb": "start", "all": "yes"}, 400),
        ("POST", "/v1/commands", ["start"], 400),
        ("POST", "/v1/daemons/db/signal", {"signal": "SIGFOO"}, 400),
        ("POST", "/v1/daemons/db/start?timeout=never", None, 400),
        ("GET", "/v1/wait?name=db&for=happiness", None, 400),
        ("GET", "/v1/logs?name=nobody", None, 404),
        ("GET", "/v1/logs?lines=many", None, 400),
        ("GET", "/v1/events?since=soon", None, 400),
    ],
)
def test_errors_have_a_status_and_a_text(
    client: ControlClient, method: str, path: str, body: object, status: int
) -> None:
    """Each wrong request gets its status, and JSON with an error and a hint."""
    reply = client.request(method, path, body)
    assert status == reply.status
    assert isinstance(reply.field("error"), str)
    assert isinstance(reply.field("hint"), str)


def test_method_not_allowed_names_the_right_one(server: Served) -> None:
    """405 comes with an Allow header (RFC 9110, section 15.5.6)."""
    received = raw(
        server.socket,
        b"DELETE /v1/daemons HTTP/1.1\r\nHost: a\r\n\r\n",
        half_close=True,
    )
    assert b" 405 " in received.split(b"\r\n")[0]
    assert b"allow: GET" in received or b"Allow: GET" in received


@pytest.mark.parametrize(
    "verb", ["start", "stop", "restart", "reload", "pause", "resume"]
)
def test_command_on_one_daemon(
    server: Served, client: ControlClient, verb: str
) -> None:
    """POST /v1/daemons/NAME/VERB?timeout= does the verb to the instances of NAME."""
    reply = client.request("POST", f"/v1/daemons/web/{verb}?timeout=1500ms")
    assert 200 == reply.status
    assert [(verb, ("web-0", "web-1"), True, 1.5)] == server.api.calls
    outcomes = reply.field("outcomes")
    assert isinstance(outcomes, list)
    assert ["web-0", "web-1"] == [outcome["name"] for outcome in outcomes]


def test_command_without_waiting_is_accepted(
    server: Served, client: ControlClient
) -> None:
    """wait=0 is passed on, and answered 202."""
    assert 202 == client.request("POST", "/v1/daemons/db/start?wait=0").status
    assert [("start", ("db",), False, None)] == server.api.calls


def test_commands_on_all(server: Served, client: ControlClient) -> None:
    """POST /v1/commands with all means every daemon."""
    client.request("POST", "/v1/commands", {"verb": "stop", "all": True, "timeout": 2})
    assert [("stop", ("db", "web-0", "web-1"), True, 2.0)] == server.api.calls


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGUSR1", 10),
        ("usr1", 10),
        ("10", 10),
        pytest.param(10, 10, id="int"),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
    ],
)
def test_signal_by_name_or_number(
    server: Served, client: ControlClient, text: object, number: int
) -> None:
    """A signal may be written in each of the usual ways."""
    reply = client.request("POST", "/v1/daemons/db/signal", {"signal": text})
    assert 200 == reply.status
    assert [("signal", number, ("db",))] == server.api.calls


@pytest.mark.parametrize(
    ("code", "status"), [(1, 409), (3, 409), (4, 404), (77, 403), (124, 504)]
)
def test_a_bad_outcome_is_no_success(
    server: Served, client: ControlClient, code: int, status: int
) -> None:
    """What a command did not manage shows in the status and in the outcomes."""
    server.api.outcome_code = code
    reply = client.request("POST", "/v1/daemons/db/start")
    assert status == reply.status
    assert "db: it would not" == reply.field("error")


def test_an_error_of_ours_keeps_its_hint(server: Served, client: ControlClient) -> None:
    """InvalidState is 409, with what to do."""
    server.api.outcome_code = 99
    reply = client.request("POST", "/v1/daemons/db/pause")
    assert (409, "it is not running", "start it") == (
        reply.status,
        reply.field("error"),
        reply.field("hint"),
    )


def test_wait_passes_names_state_and_timeout(
    server: Served, client: ControlClient
) -> None:
    """GET /v1/wait?name=&name=&for=&timeout= asks the supervisor to wait."""
    query = {"name": ["db", "web-1"], "for": "ready", "timeout": 0.25}
    assert 200 == client.get("/v1/wait", query).status
    assert [("wait", ("db", "web-1"), "ready", 0.25)] == server.api.calls


def test_shutdown_is_answered(server: Served, client: ControlClient) -> None:
    """POST /v1/shutdown passes its timeout on and lists every daemon."""
    reply = client.request("POST", "/v1/shutdown", {"timeout": "3s"})
    assert 200 == reply.status
    assert [("shutdown", 3.0)] == server.api.calls


def test_keep_alive_and_pipelining(server: Served) -> None:
    """Two requests that arrive together are both answered on one connection."""
    one = b"GET /v1/version HTTP/1.1\r\nHost: a\r\n\r\n"
    received = raw(server.socket, one + one, half_close=True)
    assert 2 == received.count(b"HTTP/1.1 200")


def test_a_fault_is_one_request_long(
    server: Served, client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in the supervisor is a 500, and the server goes on."""

    def broken() -> dict[str, object]:
        raise RuntimeError("broken")

    server.api.overview = broken  # type: ignore[method-assign]
    assert 500 == client.get("/v1/daemons").status
    assert 200 == client.get("/v1/daemons/db").status


class TestBounds:
    """What one client may take of the server."""

    @pytest.fixture
    def server(self, tmp_path: Path, anyio_backend: str) -> Iterator[Served]:
        """A server with small limits."""
        limits = Limits(
            head=2048, body=1000, request=0.2, idle=0.2, stall=0.2, quick=0.1,
            connections=4, streams=2, stream_buffer=20_000,
        )  # fmt: skip
        with served(tmp_path, anyio_backend, limits=limits) as found:
            yield found

    def test_large_head(self, server: Served) -> None:
        """A head without an end is refused with 431."""
        content = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000
        assert b" 431 " in raw(server.socket, content).split(b"\r\n")[0]

    @pytest.mark.parametrize(
        "framing",
        [b"Content-Length: 2000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n"],
    )
    def test_large_body(self, server: Served, framing: bytes) -> None:
        """A body above the limit is refused with 413, however it is framed."""
        content = b"POST /v1/commands HTTP/1.1\r\nHost: a\r\n" + framing + b"x" * 2000
        assert b" 413 " in raw(server.socket, content).split(b"\r\n")[0]

    def test_slow_request(self, server: Served) -> None:
        """A request that never ends is refused with 408 at its deadline."""
        assert b" 408 " in raw(server.socket, b"GET / HT").split(b"\r\n")[0]

    def test_idle_connection(self, server: Served) -> None:
        """A connection on which nothing comes is closed without a word."""
        assert b"" == raw(server.socket, b"")

    @pytest.mark.parametrize(
        "content", [b"\x16\x03\x01\x02\x00\n\n", b"GET / SPDY/3\r\n\r\n"]
    )
    def test_no_http(self, server: Served, content: bytes) -> None:
        """What is no HTTP gets 400."""
        assert b" 400 " in raw(server.socket, content).split(b"\r\n")[0]

    def test_deep_json(self, server: Served) -> None:
        """Nesting that exhausts the parser is a 400, and harms nobody."""
        body = b"[" * 990
        content = (
            b"POST /v1/commands HTTP/1.1\r\nHost: a\r\nContent-Length: 990\r\n\r\n"
            + body
        )
        assert b" 400 " in raw(server.socket, content, half_close=True)

    def test_a_command_that_hangs_is_given_up(self, server: Served) -> None:
        """A supervisor that misses a command's own timeout is a 504 soon after."""
        server.api.hang = True
        reply = ControlClient(server.socket).request(
            "POST", "/v1/daemons/db/stop?timeout=0.05"
        )
        assert 504 == reply.status

    def test_waiting_ends_with_the_client(self, server: Served) -> None:
        """When the client goes away, what was waited for on its behalf is not."""
        server.api.hang = True
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(server.socket)
            stream.sendall(b"POST /v1/daemons/db/stop HTTP/1.1\r\nHost: a\r\n\r\n")
            until(server.api.hanging.is_set)
            assert not server.api.cancelled.is_set()
        until(server.api.cancelled.is_set)

    def test_a_half_closed_client_gets_its_answer(self, server: Served) -> None:
        """A client that has said everything, and closed its side, is still there."""
        content = b"GET /v1/wait?name=db&for=ready HTTP/1.1\r\nHost: a\r\n\r\n"
        received = raw(server.socket, content, half_close=True)
        assert received.startswith(b"HTTP/1.1 200")

    def test_more_clients_than_places(self, server: Served) -> None:
        """Clients beyond the limit wait for their turn, and all are served."""
        client = ControlClient(server.socket)
        with ThreadPoolExecutor(30) as pool:
            replies = list(
                pool.map(lambda _: client.get("/v1/version").status, range(90))
            )
        assert [200] * 90 == replies

    def test_silent_clients_do_not_lock_others_out(self, server: Served) -> None:
        """Those who take every place and say nothing lose it."""
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        try:
            for stream in silent:
                stream.connect(server.socket)
            assert 200 == ControlClient(server.socket).get("/v1/version").status
        finally:
            for stream in silent:
                stream.close()

    def test_too_many_streams(self, server: Served) -> None:
        """Followers beyond the limit get 503, so that commands find a place."""
        client = ControlClient(server.socket)
        streams = [client.stream("/v1/logs/growth") for _ in range(2)]
        for stream in streams:
            next(stream)
        assert 503 == client.get("/v1/logs/growth").status
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]  # a generator

    def test_a_slow_reader_is_cut_off(self, server: Served) -> None:
        """Who does not read events holds up neither the server nor other readers."""
        content = b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: a\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(10)
            slow.connect(server.socket)
            slow.sendall(content)
            until(lambda: server.api.subscribers)
            for number in range(1, 9000):
                server.call(server.api.publish, number, "x" * 100)
                if not server.api.subscribers:
                    break
            until(lambda: not server.api.subscribers)
            assert 200 == ControlClient(server.socket).get("/v1/version").status


def test_a_lagging_reader_is_told(tmp_path: Path, anyio_backend: str) -> None:
    """A reader that lags beyond the buffer reads a note as its last line."""
    limits = Limits(stream_buffer=5000, stall=10)
    with served(tmp_path, anyio_backend, limits=limits) as server:
        content = b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: a\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(10)
            slow.connect(server.socket)
            slow.sendall(content)
            until(lambda: server.api.subscribers)
            for number in range(1, 9000):
                server.call(server.api.publish, number, "x" * 100)
                if server.api.subscribers[0].statistics().current_buffer_used > 100:
                    break  # the server has stopped listening on the reader's behalf
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += slow.recv(65536)
    assert b"too slow" in received[-200:]


class TestStreams:
    """Answers of JSON lines."""

    def test_recorded_events(
        self, server: Served, client: ControlClient, tmp_path: Path
    ) -> None:
        """GET /v1/events gives what was recorded, and ends."""
        events_file(tmp_path, event(1), event(2), event(3))
        assert [2, 3] == [e["seq"] for e in client.stream("/v1/events", {"since": 1})]

    def test_live_events(self, server: Served, client: ControlClient) -> None:
        """follow=1 goes on with what happens."""
        stream = client.stream("/v1/events", {"follow": True, "since": 4})
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(next, stream)
            until(lambda: server.api.subscribers)
            server.call(server.api.publish, 5, "hello")
            assert (5, "hello") == (
                first.result(10)["seq"],
                first.result(10)["reason"],
            )
        assert ("subscribe", 4) in server.api.calls
        stream.close()  # type: ignore[attr-defined]  # a generator

    def test_a_follower_that_leaves_is_forgotten(
        self, server: Served, client: ControlClient
    ) -> None:
        """An idle stream ends as soon as its client is gone."""
        stream = client.stream("/v1/logs/growth")
        assert {"grown": []} == next(stream)
        assert 1 == len(server.api.followers)
        stream.close()  # type: ignore[attr-defined]  # a generator
        until(lambda: not server.api.followers)

    def test_logs_are_merged(
        self, server: Served, client: ControlClient, tmp_path: Path
    ) -> None:
        """GET /v1/logs gives the lines of several daemons by time."""
        LogOnDisk(tmp_path, "db").write(b"one\nthree\n", 1_000_000_000)
        LogOnDisk(tmp_path, "web-0").write(b"tw\xffo\n", 2_000_000_000)
        lines = list(client.stream("/v1/logs"))
        assert ["one", "three", "tw\ufffdo"] == [line["line"] for line in lines]
        assert "1970-01-01T00:00:01.000000Z" == lines[0]["at"]
        assert ("flush", ("db", "web-0", "web-1")) in server.api.calls

    def test_logs_are_followed(
        self, server: Served, client: ControlClient, tmp_path: Path
    ) -> None:
        """follow=1 sends what is written later, once it is a whole line."""
        log = LogOnDisk(tmp_path, "db")
        log.write(b"old\nhalf", 1)
        stream = client.stream("/v1/logs", {"name": "db", "follow": True, "lines": 5})
        assert "old" == next(stream)["line"]
        log.write(b" done\n", 2)
        until(lambda: server.api.followers)
        server.call(server.api.followers[0].send_nowait, "db")
        assert "half done" == next(stream)["line"]
        stream.close()  # type: ignore[attr-defined]  # a generator

    def test_flush_says_where_the_logs_are(
        self, client: ControlClient, tmp_path: Path
    ) -> None:
        """POST /v1/logs/flush names the files, and the folder of their indexes."""
        reply = client.request("POST", "/v1/logs/flush", {"names": ["db"]})
        assert {"db": str(tmp_path / "logs" / "db.log")} == reply.field("paths")
        assert str(tmp_path) == reply.field("state")


class TestTheSocket:
    """Who may connect, and what happens to what lies at the path."""

    def test_mode_and_removal(self, tmp_path: Path, anyio_backend: str) -> None:
        """The socket is 0600 whatever the umask, and gone after the server."""
        previous = os.umask(0)
        try:
            with served(tmp_path, anyio_backend) as server:
                found = os.lstat(server.socket)
        finally:
            os.umask(previous)
        assert stat.S_ISSOCK(found.st_mode)
        assert 0o600 == stat.S_IMODE(found.st_mode)
        assert [] == os.listdir(tmp_path)

    def test_there_is_no_window(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is 0600 when bind makes it, not only after a chmod."""
        monkeypatch.setattr(os, "chmod", lambda *_: None)
        previous = os.umask(0)
        try:
            with bind_private(str(tmp_path / "s.sock")):
                mode = stat.S_IMODE(os.lstat(tmp_path / "s.sock").st_mode)
        finally:
            os.umask(previous)
        assert 0o600 == mode

    def test_what_is_no_socket_is_left_alone(self, tmp_path: Path) -> None:
        """A file at the path, or somebody who listens there, is an error."""
        (tmp_path / "file").write_text("precious")
        with pytest.raises(PlatformError, match="no socket"):
            bind_private(str(tmp_path / "file"))
        assert "precious" == (tmp_path / "file").read_text()
        with bind_private(str(tmp_path / "s.sock")):
            with pytest.raises(AlreadyRunning):
                bind_private(str(tmp_path / "s.sock"))
        with pytest.raises(PlatformError, match="No such file"):
            bind_private(str(tmp_path / "missing" / "s.sock"))

    def test_a_stale_socket_is_replaced(
        self, tmp_path: Path, anyio_backend: str
    ) -> None:
        """A socket that nobody listens on is no obstacle."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "duende.sock"))
        with served(tmp_path, anyio_backend) as server:
            assert 200 == ControlClient(server.socket).get("/v1/version").status

    def test_a_path_of_any_length(self, tmp_path: Path, anyio_backend: str) -> None:
        """A path longer than a socket address serves and is found."""
        folder = tmp_path / ("x" * 100) / ("y" * 100)
        folder.mkdir(parents=True)
        with served(tmp_path, anyio_backend, socket=folder / "duende.sock") as server:
            assert 200 == ControlClient(server.socket).get("/v1/version").status
        assert [] == os.listdir(folder)

    def test_only_the_owner_and_root(self) -> None:
        """Peer credentials decide."""
        assert is_allowed(1000, 1000)
        assert is_allowed(0, 1000)
        assert not is_allowed(1001, 1000)

    @pytest.mark.real
    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
    def test_another_user_is_refused(self, anyio_backend: str) -> None:
        """Somebody else who reaches the socket gets 403, whatever its mode."""
        import shutil
        import tempfile

        folder = Path(tempfile.mkdtemp())
        try:
            folder.chmod(0o755)
            with served(folder, anyio_backend) as server:
                os.chmod(server.socket, 0o666)
                answer = ask_as(65534, server.socket)
        finally:
            shutil.rmtree(folder)
        assert answer.startswith("HTTP/1.1 403")
        assert "owner and root" in json.loads(answer.split("\r\n\r\n")[1])["error"]


def ask_as(uid: int, path: str) -> str:
    """This asks for the daemons as another user, in a process of its own."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fork beside threads: the child only talks
        pid = os.fork()
    if pid == 0:
        try:
            os.setuid(uid)
            request = b"GET /v1/daemons HTTP/1.1\r\nHost: a\r\n\r\n"
            os.write(writing, raw(path, request))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(pid, 0)
    return answer
