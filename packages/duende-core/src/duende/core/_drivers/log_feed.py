"""Who wants to know when a log grows, and a reader of new bytes.

The keeper tells of growth only for logs that somebody follows. A reader that is
slow finds one note waiting, however much has come since: display never holds up
control.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio

__all__ = ("GrowingFile", "LogFeed")


class _Follower:
    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.grown: set[str] = set()
        self.wake = anyio.Event()


class LogFeed:
    """This hands notes of growth to whoever follows.

    Args:
        follow: Tells the source which names are wanted from now on.
    """

    def __init__(self, follow: Callable[[list[str]], None]) -> None:
        self._follow = follow
        self._followers: list[_Follower] = []

    def grew(self, name: str) -> None:
        """This notes that a daemon's log has grown."""
        for follower in self._followers:
            if name in follower.names and name not in follower.grown:
                follower.grown.add(name)
                follower.wake.set()

    def renew(self) -> None:
        """This tells a new source what is followed."""
        wanted = {name for follower in self._followers for name in follower.names}
        if wanted:
            self._follow(sorted(wanted))

    @asynccontextmanager
    async def follow(self, names: Iterable[str]) -> AsyncIterator[AsyncIterator[str]]:
        """This yields the name of a daemon whenever its log has grown."""
        follower = _Follower(frozenset(names))
        self._followers.append(follower)
        self._tell()
        try:
            yield _notes(follower)
        finally:
            self._followers.remove(follower)
            self._tell()

    def _tell(self) -> None:
        wanted = {name for follower in self._followers for name in follower.names}
        self._follow(sorted(wanted))


async def _notes(follower: _Follower) -> AsyncIterator[str]:
    while True:
        await follower.wake.wait()
        follower.wake = anyio.Event()
        grown, follower.grown = follower.grown, set()
        for name in grown:
            yield name


class GrowingFile:
    """This reads what is appended to a log, across rotations.

    A rotated file is read to its end before the new one is begun: the open
    descriptor follows the old file whatever its name is now.
    """

    def __init__(self, path: str, offset: int) -> None:
        self._path = path
        self._offset = offset
        self._descriptor: int | None = None

    @classmethod
    def at_end(cls, path: str) -> GrowingFile:
        """This begins after what is in the file now."""
        try:
            return cls(path, os.stat(path).st_size)
        except FileNotFoundError:
            return cls(path, 0)

    def read_new(self) -> bytes:
        """This is everything that came since the last call."""
        content = self._drain()
        while self._rotated():
            self.close()
            self._offset = 0
            content += self._drain()
        return content

    def close(self) -> None:
        """This lets go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _drain(self) -> bytes:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
        parts = []
        while block := os.pread(self._descriptor, 1 << 18, self._offset):
            self._offset += len(block)
            parts.append(block)
        return b"".join(parts)

    def _rotated(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            present = os.stat(self._path)
        except FileNotFoundError:
            return False
        return present.st_ino != os.fstat(self._descriptor).st_ino
