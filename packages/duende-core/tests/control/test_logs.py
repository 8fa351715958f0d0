"""Reading logs and events from disk: merged, from behind, across rotations, torn."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from duende.core.control.eventlog import EventLog, last_seq, read_events
from duende.core.control.log_files import LogFiles, Position, WriteIndex
from duende.core.control.logs import (
    LogTail,
    line_to_json,
    log_sources,
    read_logs,
    recorded_sources,
    rfc3339,
)

from .fakes import LogOnDisk, event


def files(state: Path, name: str = "web") -> LogFiles:
    """This is the reader of a log."""
    return log_sources({name: str(state / "logs" / f"{name}.log")}, str(state))[name]


def texts(lines: object) -> list[bytes]:
    """These are the lines alone."""
    return [line for _, _, line in lines]  # type: ignore[attr-defined]


def test_merged_by_time(tmp_path: Path) -> None:
    """Lines of several daemons come in the order in which they were written."""
    web, db = LogOnDisk(tmp_path, "web"), LogOnDisk(tmp_path, "db")
    web.write(b"w1\nw2\n", 10)
    db.write(b"d1\n", 20)
    web.write(b"w3\n", 30)
    sources = [files(tmp_path, "web"), files(tmp_path, "db")]
    assert [
        (10, "web", b"w1"),
        (10, "web", b"w2"),
        (20, "db", b"d1"),
        (30, "web", b"w3"),
    ] == list(read_logs(sources))
    assert [b"d1", b"w3"] == texts(read_logs(sources, lines=2))


def test_a_line_has_the_time_of_its_first_byte(tmp_path: Path) -> None:
    """A line that was written in two pieces counts from the first."""
    log = LogOnDisk(tmp_path, "web")
    log.write(b"be", 1)
    log.write(b"gin\nnext\n", 2)
    assert [(1, "web", b"begin"), (2, "web", b"next")] == list(
        read_logs([files(tmp_path)])
    )


def test_since_leaves_out_what_began_before(tmp_path: Path) -> None:
    """since is inclusive, and finds the first line in a later generation too."""
    log = LogOnDisk(tmp_path, "web")
    log.write(b"a\nhalf", 1)
    log.write(b" b\nc\n", 5)
    assert [b"c"] == texts(read_logs([files(tmp_path)], since=5))
    log.rotate()
    log.write(b"d\n", 9)
    assert [b"c", b"d"] == texts(read_logs([files(tmp_path)], since=5))
    assert [b"d"] == texts(read_logs([files(tmp_path)], since=6))
    assert [] == texts(read_logs([files(tmp_path)], since=10))
    assert [b"d"] == texts(read_logs([files(tmp_path)], lines=5, since=6))


def test_compressed_generations(tmp_path: Path) -> None:
    """What is compressed is read like the rest."""
    log = LogOnDisk(tmp_path, "web", generation=7)
    log.write(b"a\nb\n", 1)
    log.rotate(compress=True)
    log.write(b"c\n", 2)
    log.rotate()
    log.write(b"d\n", 3)
    assert [b"a", b"b", b"c", b"d"] == texts(read_logs([files(tmp_path)]))
    assert [b"b", b"c", b"d"] == texts(read_logs([files(tmp_path)], lines=3))


def test_no_index_no_file_no_lines(tmp_path: Path) -> None:
    """A log without an index is read with the file's time; none at all is empty."""
    assert [] == list(read_logs([files(tmp_path)]))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web.log").write_bytes(b"x\n")
    ((at, name, line),) = read_logs([files(tmp_path)])
    assert ("web", b"x") == (name, line)
    assert at == (tmp_path / "logs" / "web.log").stat().st_mtime_ns


def test_a_fifo_in_place_of_a_log_does_not_hang(tmp_path: Path) -> None:
    """Opening never waits for somebody to write; what is no file has no lines."""
    import os

    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs" / "web.log")
    assert [] == list(read_logs([files(tmp_path)]))


def test_what_is_left_without_a_supervisor(tmp_path: Path) -> None:
    """Recorded logs are found by their names."""
    LogOnDisk(tmp_path, "web").write(b"x\n", 1)
    found = recorded_sources(str(tmp_path), str(tmp_path / "logs"))
    assert ["web"] == list(found)


def test_a_tail_waits_for_whole_lines(tmp_path: Path) -> None:
    """A half line is shown once it is whole."""
    log = LogOnDisk(tmp_path, "web")
    log.write(b"old\nhal", 1)
    tail = LogTail(files(tmp_path))
    assert [] == tail.read()
    log.write(b"f\nmore\nre", 2)
    assert [(1, "web", b"half"), (2, "web", b"more")] == tail.read()
    assert [] == tail.read()
    log.write(b"st\n", 3)
    assert [b"rest"] == texts(tail.read())


def test_a_tail_that_fell_behind_goes_on(tmp_path: Path) -> None:
    """Generations that are gone are skipped, not waited for."""
    log = LogOnDisk(tmp_path, "web")
    log.write(b"a\n", 1)
    tail = LogTail(files(tmp_path), Position(0, 0))
    for number in range(3):
        log.rotate()
        log.write(b"%d\n" % number, 2)
    Path(f"{log.path}.3").unlink()
    assert [b"0", b"1", b"2"] == texts(tail.read())


@given(
    pieces=st.lists(
        st.binary(max_size=12).map(lambda b: b.replace(b"\x00", b"\n")), max_size=25
    ),
    turns=st.lists(st.sampled_from(["", "rotate", "compress"]), max_size=25),
    count=st.integers(0, 8),
)
def test_nothing_is_lost_or_repeated(
    pieces: list[bytes], turns: list[str], count: int
) -> None:
    """Whole, tail and follow agree with the bytes, however they were written."""
    with tempfile.TemporaryDirectory() as folder:
        log = LogOnDisk(Path(folder), "web")
        tail = LogTail(files(Path(folder)), Position(0, 0))
        followed: list[bytes] = []
        expected: list[bytes] = []
        current = b""
        for number, piece in enumerate(pieces):
            log.write(piece, number)
            current += piece
            turn = turns[number] if number < len(turns) else ""
            if number % 3 == 0:
                followed += texts(tail.read())
            if turn:
                # The keeper cuts at line ends where there are any.
                expected += [*current.split(b"\n")[:-1]]
                if current.rpartition(b"\n")[2]:
                    expected.append(current.rpartition(b"\n")[2])
                current = b""
                log.rotate(compress=turn == "compress")
        whole = current.split(b"\n")
        followed += texts(tail.read())
        assert [*expected, *whole[:-1]] == followed
        expected += [*whole[:-1], *([whole[-1]] if whole[-1] else [])]
        assert expected == texts(read_logs([files(Path(folder))]))
        assert (expected[-count:] if count else []) == texts(
            read_logs([files(Path(folder))], lines=count)
        )


def test_the_last_lines_of_a_large_file(tmp_path: Path) -> None:
    """Reading from behind crosses its blocks."""
    log = LogOnDisk(tmp_path, "web")
    wide = [b"%d " % number + b"x" * 50_000 for number in range(30)]
    log.write(b"".join(line + b"\n" for line in wide), 1)
    assert wide[-17:] == texts(read_logs([files(tmp_path)], lines=17))
    assert wide[-3:] == [line for _, line in files(tmp_path).last_lines(0, 3, None)]


def test_index_with_a_torn_record_and_a_clock_set_back() -> None:
    """Half a record is ignored; a later time is found although times fell."""
    import struct

    records = struct.pack("<6Q", 0, 100, 10, 50, 20, 70) + b"torn"
    index = WriteIndex(records, fallback=1)
    assert [100, 100, 50, 70] == [index.time_at(n) for n in (0, 9, 10, 99)]
    assert 20 == index.first_offset_since(60) or 0 == index.first_offset_since(60)
    assert index.first_offset_since(101) is None
    assert 1 == WriteIndex(b"", fallback=1).time_at(5)


def test_rfc3339_and_bytes_that_are_no_text() -> None:
    """Times are UTC with microseconds; bad bytes become U+FFFD."""
    assert "2001-09-09T01:46:40.000001Z" == rfc3339(1_000_000_000_000_001_999)
    assert "a\ufffd" == line_to_json((0, "web", b"a\xff"))["line"]


class TestEvents:
    """STATE/events.jsonl."""

    def test_numbers_go_on(self, tmp_path: Path) -> None:
        """A successor knows the last number, and reading gives back the objects."""
        path = str(tmp_path / "events.jsonl")
        log = EventLog(path)
        assert 0 == log.last_seq
        log.append(event(1), event(2, "x"))
        log.close()
        assert 2 == EventLog(path).last_seq
        assert [event(1).to_json(), event(2, "x").to_json()] == list(read_events(path))
        assert [2] == [e["seq"] for e in read_events(path, after=1)]

    def test_a_torn_tail(self, tmp_path: Path) -> None:
        """Half a line is skipped, and what is appended after it is whole."""
        path = tmp_path / "events.jsonl"
        path.write_bytes(json.dumps(event(4).to_json()).encode() + b'\n{"seq": 5, "at')
        log = EventLog(str(path))
        assert 4 == log.last_seq
        log.append(event(5))
        assert [4, 5] == [e["seq"] for e in read_events(str(path))]

    def test_it_is_bounded(self, tmp_path: Path) -> None:
        """Two files of about the bound are kept, in order."""
        path = tmp_path / "events.jsonl"
        log = EventLog(str(path), most_bytes=2000)
        for number in range(1, 200):
            log.append(event(number))
        size = sum(file.stat().st_size for file in tmp_path.iterdir())
        assert size < 5000
        numbers = [e["seq"] for e in read_events(str(path))]
        assert numbers == list(range(200 - len(numbers), 200))
        assert 199 == last_seq(str(path))

    def test_since(self, tmp_path: Path) -> None:
        """since compares times, whatever their form."""
        path = str(tmp_path / "events.jsonl")
        log = EventLog(path)
        log.append(event(1, at="2026-01-01T00:00:00Z"))
        log.append(event(2, at="2026-01-01T00:00:00.5Z"))
        found = read_events(path, since="2026-01-01T01:00:00.400000+01:00")
        assert [2] == [e["seq"] for e in found]

    def test_a_full_disk_loses_lines_and_nothing_else(self) -> None:
        """What can't be written is counted."""
        log = EventLog("/dev/full/events.jsonl")
        log.append(event(1))
        assert (1, 1) == (log.lost, log.last_seq)
