"""Waiting without a limit, and still ended by the signal that came a moment before.

A signal that arrives between Python's last look and a blocking call does not end the
call: its handler runs when the call returns, which may be never. The descriptor of
`signal.set_wakeup_fd` is written to by the handler in C, and so stays readable.
"""

from __future__ import annotations

import os
import select
import signal
import socket

__all__ = ("Interrupts",)


class Interrupts:
    """This waits for a socket, and looks after signals at every turn.

    Beside the main thread it only waits: signals are not handled in others.
    """

    def __init__(self, peer: socket.socket) -> None:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(peer, select.POLLIN)
        self._poll.register(self._read, select.POLLIN)

    def wait(self) -> bool:
        """This waits for the socket to be readable, or for a signal.

        Returns:
            Whether the socket is; after a signal whose handler went on it may not be.
        """
        try:
            former = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:
            return bool(self._poll.poll())  # not the main thread
        try:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
        finally:
            signal.set_wakeup_fd(former)
        if self._read in ready:
            os.read(self._read, 4096)
        return bool(ready - {self._read})

    def close(self) -> None:
        """This closes what it has opened; the socket is its owner's."""
        os.close(self._read)
        os.close(self._write)
