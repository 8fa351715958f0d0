"""One daemon's log on disk: its generations, and when each byte was written.

The keeper writes LOG_DIR/NAME.log (generation GEN), renames it to .log.1 (then
GEN-1), .log.2 and so on, and may compress what is old. STATE/index/NAME/GEN holds
16-byte records (offset, wall-clock ns; little-endian u64) of each write. Files move
while we read, so each is opened by its generation and the number is checked after.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, final

import attrs

__all__ = ("LogFiles", "Position", "WriteIndex")

_BLOCK = 1 << 18
_ATTEMPTS = 20


@final
@attrs.frozen
class Position:
    """This is a place in a log that rotation does not move."""

    generation: int
    offset: int


@final
class WriteIndex:
    """This tells when the byte at an offset of one generation was written.

    `fallback` (wall-clock ns) is the answer where no record covers the offset.
    """

    def __init__(self, records: bytes, fallback: int) -> None:
        numbers = array("Q")
        numbers.frombytes(records[: len(records) // 16 * 16])
        if sys.byteorder == "big":
            numbers.byteswap()
        self._offsets = numbers[0::2]
        self._times = numbers[1::2]
        self._fallback = fallback

    def time_at(self, offset: int) -> int:
        """This is the wall-clock time (ns) at which the byte at `offset` was written."""
        position = bisect_right(self._offsets, offset) - 1
        return self._times[position] if position >= 0 else self._fallback

    def first_offset_since(self, wall_ns: int) -> int | None:
        """This is where the first write at or after a time begins; None if none is.

        A wall clock that was set back makes times fall; what counts then is the
        first write from which on a later time is seen.
        """
        if not self._times:
            return 0 if self._fallback >= wall_ns else None
        if self._times[-1] >= wall_ns and _is_sorted(self._times):
            return self._offsets[bisect_left(self._times, wall_ns)]
        for offset, time in zip(self._offsets, self._times, strict=True):
            if time >= wall_ns:
                return offset
        return None


def _is_sorted(times: array[int]) -> bool:
    return all(times[i] <= times[i + 1] for i in range(len(times) - 1))


@final
@attrs.frozen
class LogFiles:
    """This finds and reads the generations of one daemon's log.

    `path` is the current file, `index` the folder of its write indexes.
    """

    name: str
    path: str
    index: str

    def current(self) -> int:
        """This is the number of the generation that is being written."""
        try:
            numbers = [
                int(entry) for entry in os.listdir(self.index) if entry.isdigit()
            ]
        except OSError:
            numbers = []
        return max(numbers, default=0)

    def exists(self) -> bool:
        """This says whether anything was ever captured."""
        return os.path.exists(self.path) or os.path.exists(self.path + ".1")

    def oldest(self) -> int:
        """This is the number of the oldest generation that is still there."""
        current = self.current()
        age = 1
        while self._is_there(age):
            age += 1
        return current - age + 1

    def _is_there(self, age: int) -> bool:
        plain = f"{self.path}.{age}"
        return os.path.exists(plain) or os.path.exists(plain + ".gz")

    def open(self, generation: int) -> BinaryIO | None:
        """This opens a generation; None when it is gone or not begun."""
        for _ in range(_ATTEMPTS):
            current = self.current()
            found = self._open_age(current - generation)
            if self.current() == current:
                return found
            if found is not None:
                found.close()
        return None

    def _open_age(self, age: int) -> BinaryIO | None:
        if age < 0:
            return None
        path = self.path if age == 0 else f"{self.path}.{age}"
        try:
            return _open_regular(path)
        except FileNotFoundError:
            pass
        if age == 0 or not os.path.isfile(path + ".gz"):
            return None
        import gzip

        try:
            return gzip.GzipFile(path + ".gz", "rb")  # type: ignore[return-value]  # a readable, seekable binary file in all but its declared type
        except FileNotFoundError:
            return None

    def times(self, generation: int, file: BinaryIO) -> WriteIndex:
        """This reads the write index of a generation that is open as `file`."""
        try:
            with open(os.path.join(self.index, str(generation)), "rb") as records:
                content = records.read()
        except OSError:
            content = b""
        return WriteIndex(content, os.fstat(file.fileno()).st_mtime_ns)

    def end(self, *, whole_lines: bool) -> Position:
        """This is where the log ends now; `whole_lines`: after its last newline."""
        generation = self.current()
        file = self.open(generation)
        if file is None:
            return Position(generation, 0)
        with file:
            size = file.seek(0, io.SEEK_END)
            if whole_lines:
                size = _after_last_newline(file, size)
        return Position(generation, size)

    def lines(
        self, generation: int, start: int, end: int | None
    ) -> Iterator[tuple[int, bytes]]:
        """This yields (wall ns, line without newline) from offset `start` to `end`."""
        file = self.open(generation)
        if file is None:
            return
        with file:
            times = self.times(generation, file)
            for offset, line in _forward(file, start, end):
                yield times.time_at(offset), line

    def last_lines(
        self, generation: int, count: int, end: int | None
    ) -> list[tuple[int, bytes]]:
        """This is the last `count` lines before offset `end`, oldest first."""
        file = self.open(generation)
        if file is None:
            return []
        with file:
            times = self.times(generation, file)
            if isinstance(file, io.BufferedReader):
                size = file.seek(0, io.SEEK_END)
                stop = size if end is None else min(end, size)
                start = _start_of_last_lines(file, stop, count)
                found = list(_forward(file, start, stop))
            else:
                # A compressed file can only be read from its beginning.
                found = list(deque(_forward(file, 0, end), maxlen=count))
        return [(times.time_at(offset), line) for offset, line in found]

    def start_since(self, generation: int, wall_ns: int) -> int | None:
        """This is where the first line at or after a time begins; None if none does."""
        file = self.open(generation)
        if file is None:
            return None
        with file:
            offset = self.times(generation, file).first_offset_since(wall_ns)
            if not offset:
                return offset
            file.seek(offset - 1)
            # A line counts by its first byte: one that began before is left out.
            return offset - 1 + len(file.readline())


def _open_regular(path: str) -> BinaryIO | None:
    """This opens a file; what is none (a FIFO, a device) is never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _forward(
    file: BinaryIO, start: int, end: int | None
) -> Iterator[tuple[int, bytes]]:
    """This yields (offset, line without newline); the last may be incomplete."""
    file.seek(start)
    offset = position = start
    pending: list[bytes] = []
    while end is None or position < end:
        block = file.read(_BLOCK if end is None else min(_BLOCK, end - position))
        if not block:
            break
        position += len(block)
        first, newline, rest = block.partition(b"\n")
        pending.append(first)
        if not newline:
            continue
        line = b"".join(pending)
        yield offset, line
        offset += len(line) + 1
        *lines, last = rest.split(b"\n")
        for line in lines:
            yield offset, line
            offset += len(line) + 1
        pending = [last]
    tail = b"".join(pending)
    if tail:
        yield offset, tail


def _start_of_last_lines(file: BinaryIO, end: int, count: int) -> int:
    """This is where the last `count` lines before `end` begin, read from behind."""
    if count <= 0:
        return end
    position = end
    # The newline that ends the last line is no boundary between two.
    wanted = count
    if end > 0:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            wanted += 1
    while position > 0:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        block = file.read(position - begin)
        found = block.count(b"\n")
        if found >= wanted:
            at = len(block)
            for _ in range(wanted):
                at = block.rindex(b"\n", 0, at)
            return begin + at + 1
        wanted -= found
        position = begin
    return 0


def _after_last_newline(file: BinaryIO, end: int) -> int:
    position = end
    while position > 0:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        at = file.read(position - begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        position = begin
    return 0
