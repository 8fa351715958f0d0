"""The control server's blocking client, small enough for `duende ps`.

HTTP/1.1 as far as our own server speaks it, on the standard library's sockets:
importing http.client alone would cost more than the whole request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping

from duende.core.control.unix_socket import connect
from duende.core.errors import DaemonError, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duende.core.control.interrupts import Interrupts

__all__ = ("ControlClient", "NoSupervisor", "ProtocolError", "Reply", "quote")

_CONNECT_TIMEOUT = 5.0
_TICK = 0.25
_SAFE = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~,*"
)


class NoSupervisor(DaemonError):
    """Nothing answers at the control socket."""


class ProtocolError(DaemonError):
    """What answered at the control socket does not speak our protocol."""


def quote(text: str) -> str:
    """This percent-encodes a text for a path segment or a query value (RFC 3986)."""
    return "".join(
        character
        if character in _SAFE
        else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in text
    )


def target_of(path: str, query: Mapping[str, object | None]) -> str:
    """This renders a request target; a query value of None is left out."""
    pairs = [
        f"{key}={quote(_query_text(item))}"
        for key, value in query.items()
        for item in (value if isinstance(value, (list, tuple)) else (value,))
        if item is not None
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def _query_text(value: object) -> str:
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


class Reply:
    """This is a status code and the JSON that came with it."""

    __slots__ = ("body", "status")

    def __init__(self, status: int, body: object) -> None:
        self.status = status
        self.body = body

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def field(self, name: str) -> object:
        """This is a field of the JSON object, None where it has none."""
        return self.body.get(name) if isinstance(self.body, dict) else None


class ControlClient:
    """This talks to the control server at a socket path, a connection a request.

    Raises (every method):
        NoSupervisor: Nothing listens at the path.
        PermissionDenied: The socket is not ours to use.
        ProtocolError: The answer is no HTTP, or was cut off.
    """

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def get(
        self, path: str, query: Mapping[str, object | None] = {}
    ) -> Reply:  # never changed
        """This asks for something and waits for the answer."""
        return self.request("GET", path, query=query)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object | None] = {},  # never changed
        timeout: float | None = 30.0,
        while_waiting: Callable[[float], None] | None = None,
    ) -> Reply:
        """This sends one request and reads its answer.

        Args:
            method: GET or POST.
            path: The path, already percent-encoded.
            body: What is sent as JSON; None sends no body.
            query: Appended to the path; None values are left out.
            timeout: Seconds until the answer must have begun; None waits for ever.
            while_waiting: Called every quarter of a second with the seconds waited.
        """
        with _Exchange(self.socket_path, timeout, while_waiting) as exchange:
            exchange.send(method, target_of(path, query), body)
            status, chunks = exchange.receive()
            text = b"".join(chunks)
        return Reply(status, _parse_json(text, self.socket_path))

    def stream(
        self,
        path: str,
        query: Mapping[str, object | None] = {},  # never changed
    ) -> Iterator[dict[str, object]]:
        """This yields the JSON objects of a stream of lines until it ends.

        Raises:
            StreamRefused: The server refused; `.reply` is its answer.
        """
        with _Exchange(self.socket_path, None, None) as exchange:
            exchange.send("GET", target_of(path, query), None)
            status, chunks = exchange.receive()
            if not 200 <= status < 300:
                text = b"".join(chunks)
                raise StreamRefused(Reply(status, _parse_json(text, self.socket_path)))
            partial = b""
            for chunk in chunks:
                *lines, partial = (partial + chunk).split(b"\n")
                for line in lines:
                    if line:
                        parsed = _parse_json(line, self.socket_path)
                        if isinstance(parsed, dict):
                            yield parsed


class StreamRefused(DaemonError):
    """The server answered a stream's request with an error; `reply` is the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply.field("error") or f"HTTP status {reply.status}"))
        self.args = (reply,)
        self.reply = reply


def _parse_json(text: bytes, socket_path: str) -> object:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as err:
        raise ProtocolError(
            f"what answers at {socket_path!r} sent no JSON",
            "check --socket and DUENDE_SOCKET",
        ) from err


class _Exchange:
    """This is one connection: a request out, an answer in."""

    def __init__(
        self,
        socket_path: str,
        timeout: float | None,
        while_waiting: Callable[[float], None] | None,
    ) -> None:
        self._path = socket_path
        self._while_waiting = while_waiting
        self._began = time.monotonic()
        self._timeout = timeout
        self._buffer = b""
        self._interrupts: Interrupts | None = None
        try:
            self._socket = connect(socket_path, _CONNECT_TIMEOUT)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as err:
            raise NoSupervisor(
                f"no supervisor answers at {socket_path}",
                "start one with 'duende up -d'",
            ) from err
        except PermissionError as err:
            raise PermissionDenied(
                f"the control socket {socket_path} may not be used by this user",
                "only its owner and root may",
            ) from err
        except TimeoutError as err:
            raise ProtocolError(
                f"the supervisor at {socket_path} takes no connection",
                "look at it with 'duende doctor'",
            ) from err
        except OSError as err:
            raise NoSupervisor(
                f"the control socket {socket_path} can't be used: {err.strerror}",
                "check --socket and DUENDE_SOCKET",
            ) from err

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        if self._interrupts is not None:
            self._interrupts.close()
        self._socket.close()

    def send(self, method: str, target: str, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: duende\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n"
            + ("Content-Type: application/json\r\n" if content else "")
            + "\r\n"
        )
        try:
            self._socket.sendall(head.encode("ascii") + content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before it read everything; the answer says why
        except TimeoutError as err:
            raise self._silent() from err

    def receive(self) -> tuple[int, Iterator[bytes]]:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                raise ProtocolError(
                    f"the supervisor at {self._path} closed the connection "
                    "without an answer",
                    "see what it is doing with 'duende ps'",
                )
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ProtocolError(
                f"what answers at {self._path!r} does not speak HTTP",
                "check --socket and DUENDE_SOCKET",
            )
        headers = {
            key.strip().lower(): value.strip()
            for key, _, value in (line.partition(":") for line in lines)
        }
        return int(rest[:3]), self._content(headers)

    def _content(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
            return
        length = headers.get("content-length")
        if length is None:
            self._timeout = None
            while self._buffer or self._more():
                yield self._take(len(self._buffer))
            return
        yield self._exactly(int(length))

    def _chunked(self) -> Iterator[bytes]:
        self._timeout = None
        while True:
            while b"\r\n" not in self._buffer:
                self._need_more()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                return
            yield self._exactly(size)
            self._exactly(2)

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count > len(self._buffer):
            count -= len(self._buffer)
            parts.append(self._buffer)
            self._buffer = b""
            self._need_more()
        parts.append(self._take(count))
        return b"".join(parts)

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _need_more(self) -> None:
        if not self._more():
            raise ProtocolError(f"the supervisor at {self._path} broke off its answer")

    def _more(self) -> bool:
        """This reads what comes next; False when the other side has closed."""
        while True:
            waited = time.monotonic() - self._began
            if self._timeout is not None and waited >= self._timeout:
                raise self._silent()
            left = None if self._timeout is None else self._timeout - waited
            if self._while_waiting is not None:
                left = _TICK if left is None else min(_TICK, left)
            if left is None and not self._is_readable():
                continue
            self._socket.settimeout(left)
            try:
                received = self._socket.recv(1 << 18)
            except TimeoutError:
                if self._while_waiting is not None:
                    self._while_waiting(time.monotonic() - self._began)
                continue
            except ConnectionResetError:
                return False
            self._buffer += received
            return bool(received)

    def _is_readable(self) -> bool:
        """This waits without a limit; False after a signal."""
        if self._interrupts is None:
            from duende.core.control.interrupts import Interrupts

            self._interrupts = Interrupts(self._socket)
        return self._interrupts.wait()

    def _silent(self) -> ProtocolError:
        return ProtocolError(
            f"the supervisor at {self._path} did not answer within "
            f"{self._timeout or _CONNECT_TIMEOUT:g} s",
            "is it stopped or overloaded? 'duende doctor' shows its processes",
        )
