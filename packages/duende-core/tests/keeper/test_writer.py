"""The log writer without its thread: rotation while files are being compressed."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from duende.core.keeper import LogFile, LogWriter


class Bench:
    """This drives a `LogWriter` by hand and keeps what it says."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.logs = folder / "logs"
        self.state.mkdir()
        self.said: list[tuple[Any, ...]] = []
        self.writer = LogWriter(str(self.state), lambda *m: self.said.append(m))

    def open(self, **settings: Any) -> LogFile:
        """This opens a log of 10-byte generations."""
        log = LogFile(
            "one",
            {
                "path": str(self.logs / "one.log"),
                "max_size": 10,
                "keep": 5,
                "compress": True,
                "total_max": None,
                **settings,
            },
        )
        self.writer.open([(log, "ticket")])
        return log

    def write(self, log: LogFile, text: str) -> None:
        """This writes as the thread would."""
        data = bytearray(text.encode())
        self.writer.queued += len(data)
        self.writer._write(log, data, len(data), 1)

    def compress(self) -> None:
        """This does the work of the niced child, for the file that was asked for."""
        _, source, target = next(m for m in self.said if m[0] == "pack")
        self.said = [message for message in self.said if message[0] != "pack"]
        os.write(target, gzip.compress(os.read(source, 1 << 20)))
        os.close(source)

    def names(self) -> dict[str, str]:
        """This maps what lies in the log folder to its (plain) text."""
        found = {}
        for path in self.logs.iterdir():
            data = path.read_bytes()
            packed = path.name.endswith(".gz")
            found[path.name] = (gzip.decompress(data) if packed else data).decode()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A log writer in an empty folder."""
    return Bench(tmp_path)


def test_renumbering_while_a_file_is_compressed(bench: Bench) -> None:
    """The compressed file gets the number that its plain one has by then."""
    log = bench.open()
    bench.write(log, "one......\ntwo......\n")
    bench.compress()
    bench.write(log, "three....\nfour.....\n")
    bench.writer.packed(0)
    assert bench.names() == {
        "one.log": "four.....\n",
        "one.log.1": "three....\n",
        "one.log.2": "two......\n",
        "one.log.3.gz": "one......\n",
    }


def test_a_file_removed_while_it_is_compressed_stays_away(bench: Bench) -> None:
    """What was rotated out meanwhile does not come back compressed."""
    log = bench.open(keep=1)
    bench.write(log, "one......\ntwo......\n")
    bench.compress()
    bench.write(log, "three....\n")
    bench.writer.packed(0)
    assert bench.names() == {"one.log": "three....\n", "one.log.1": "two......\n"}


def test_a_failed_compression_leaves_the_plain_file(bench: Bench) -> None:
    """Nothing is lost, and nothing partial is left."""
    log = bench.open()
    bench.write(log, "one......\ntwo......\n")
    bench.compress()
    bench.writer.packed(1 << 8)
    assert bench.names() == {"one.log": "two......\n", "one.log.1": "one......\n"}


def test_without_unnamed_files_it_compresses_beside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems without O_TMPFILE the half-done file is in the state folder."""
    real = os.open

    def refuse(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    log = bench.open()
    bench.write(log, "one......\ntwo......\n")
    bench.compress()
    assert set(bench.names()) == {"one.log", "one.log.1"}
    bench.writer.packed(0)
    assert bench.names() == {"one.log": "two......\n", "one.log.1.gz": "one......\n"}
    assert not [path for path in bench.state.iterdir() if path.is_file()]


def test_the_numbers_go_on_after_a_restart(bench: Bench) -> None:
    """Another writer finds the generation, the archives and the unfinished line."""
    log = bench.open(compress=False)
    bench.write(log, "one......\ntwo......\nthr")
    assert log.gen == 3
    bench.writer.close(log)
    again = bench.open(compress=False)
    assert (again.gen, again.size, sorted(again.archives)) == (3, 3, [1, 2])
    bench.write(again, "ee....\nfour.....\n")
    assert bench.names()["one.log.1"] == "three....\n"
    assert again.gen == 4


def test_what_cannot_be_opened_is_told(bench: Bench) -> None:
    """A folder in the log's place is an error of the start, not of the writer."""
    (bench.logs / "one.log").mkdir(parents=True)
    bench.open()
    kind, results = bench.said[-1]
    assert kind == "opened"
    assert results[0][2] == errno.EISDIR


def test_a_removed_folder_is_made_again(bench: Bench) -> None:
    """After somebody removed all logs, the next rotation starts a new folder."""
    log = bench.open(compress=False)
    bench.write(log, "one......\n")
    (bench.logs / "one.log").unlink()
    bench.logs.rmdir()
    bench.write(log, "two......\nthree....\n")
    assert bench.names()["one.log"] == "three....\n"
