"""The client's side of sd_notify(3): tell whatever supervises us how we are.

Standard library only. The protocol: a datagram of `KEY=VALUE` lines to the unix
socket named by NOTIFY_SOCKET. A supervisor that is gone or busy never holds up or
breaks the daemon's work: what could not be sent is answered with False.
"""

from __future__ import annotations

import array
import enum
import os
import select
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import final

__all__ = (
    "Delivery",
    "Notifier",
    "barrier",
    "notify",
    "render_fields",
    "take_environment",
    "watchdog_interval",
)

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What a supervisor puts into the environment, meant for the main process alone."""


class Delivery(enum.Enum):
    """This says what became of a datagram."""

    SENT = "sent"
    BUSY = "busy"
    GONE = "gone"


def render_fields(fields: Iterable[tuple[str, str]]) -> str:
    """This renders fields as the protocol's lines.

    A line break inside a value would begin another field, so it becomes a blank.
    """
    return "\n".join(f"{key}={' '.join(text.splitlines())}" for key, text in fields)


def _address(text: str | None) -> str | None:
    """This turns NOTIFY_SOCKET into an address: a path, or `@name` for abstract."""
    if not text or text[0] not in "/@" or len(text) == 1:
        return None
    return "\0" + text[1:] if text[0] == "@" else text


@final
class Notifier:
    """This sends datagrams to one notify socket, from an fd that it keeps.

    The socket is addressed anew each time, so that a supervisor which was replaced
    and bound the same path again is reached.
    """

    def __init__(self, address: str | None) -> None:
        self._address = _address(address)
        self._socket: socket.socket | None = None

    @property
    def has_listener(self) -> bool:
        """Whether a usable address was given at all."""
        return self._address is not None

    def send(self, *pairs: str) -> Delivery:
        """This sends `KEY=VALUE` pairs in one datagram, without ever blocking."""
        if self._address is None:
            return Delivery.GONE
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(pairs).encode(), self._address)
        except BlockingIOError:
            return Delivery.BUSY
        except (OSError, ValueError):
            # Removed, refused, not ours, or a path longer than sun_path (unix(7)).
            return Delivery.GONE
        return Delivery.SENT

    def close(self) -> None:
        """This gives the fd back; `send` would open another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def notify(*pairs: str, environ: Mapping[str, str] | None = None) -> bool:
    """This sends `KEY=VALUE` pairs to the socket in `environ` (default: os.environ).

    Returns:
        Whether the datagram was accepted; False too when nobody supervises us.
    """
    variables = os.environ if environ is None else environ
    notifier = Notifier(variables.get("NOTIFY_SOCKET"))
    try:
        return notifier.send(*pairs) is Delivery.SENT
    finally:
        notifier.close()


def barrier(timeout: float = 5.0, environ: Mapping[str, str] | None = None) -> bool:
    """This waits until the supervisor has handled all that was sent before.

    It blocks up to `timeout` seconds: not for an event loop. The supervisor closes
    the pipe that comes with BARRIER=1, see sd_notify_barrier(3).

    Returns:
        Whether that happened in time.
    """
    variables = os.environ if environ is None else environ
    address = _address(variables.get("NOTIFY_SOCKET"))
    if address is None:
        return False
    reader, writer = os.pipe()
    try:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(timeout)
                sender.sendmsg(
                    [b"BARRIER=1"],
                    [
                        (
                            socket.SOL_SOCKET,
                            socket.SCM_RIGHTS,
                            array.array("i", [writer]),
                        )
                    ],
                    0,
                    address,
                )
        except (OSError, ValueError):
            return False
        finally:
            os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)  # POLLHUP is always reported
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(reader)


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """This reads the watchdog's period in seconds; None when none is meant for us."""
    variables = os.environ if environ is None else environ
    try:
        period = int(variables["WATCHDOG_USEC"]) / 1e6
        ours = int(variables.get("WATCHDOG_PID") or os.getpid()) == os.getpid()
    except (KeyError, ValueError):
        return None
    return period if ours and period > 0 else None


def take_environment(
    environ: MutableMapping[str, str] | None = None,
) -> tuple[Notifier, float | None]:
    """This reads the supervisor's variables and removes them.

    What the daemon starts is not the daemon: it must neither speak for it nor be
    waited for by a watchdog.

    Returns:
        The way to the supervisor, and the watchdog's period in seconds or None.
    """
    variables = os.environ if environ is None else environ
    notifier = Notifier(variables.get("NOTIFY_SOCKET"))
    period = watchdog_interval(variables)
    for name in VARIABLES:
        variables.pop(name, None)
    return notifier, period
