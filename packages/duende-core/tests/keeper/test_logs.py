"""Captured output: every byte, rotated, compressed, capped, indexed."""

from __future__ import annotations

import array
import fcntl
import gzip
import os
import resource
import struct
import sys
import termios
from pathlib import Path

import pytest

from duende.core import keeper_client

from .helpers import Project, is_alive, wait_until

pytestmark = pytest.mark.real

LINES = """
import sys
for number in range({count}):
    sys.stdout.write("%07d some text of a line\\n" % number)
sys.stdout.flush()
sys.exit(1)
"""


def all_output(folder: Path, base: str) -> bytes:
    """This joins all generations of a log, oldest first."""
    found = {}
    for path in folder.glob(f"{base}.*"):
        number = path.name.removeprefix(f"{base}.").removesuffix(".gz")
        data = path.read_bytes()
        found[int(number)] = (
            gzip.decompress(data) if path.name.endswith(".gz") else data
        )
    older = [found[number] for number in sorted(found, reverse=True)]
    return b"".join([*older, (folder / base).read_bytes()])


def test_a_million_lines_and_then_exit_1(project: Project) -> None:
    """No line is lost, torn or out of order across many rotations."""
    project.python(
        "one", LINES.format(count=1_000_000), log={"max_size": 1 << 20, "keep": 100}
    )
    assert project.wait("exit", "one")["code"] == 1
    project.request("flush", names=None)
    folder = project.state / "logs"
    lines = all_output(folder, "one.log").splitlines()
    assert len(lines) == 1_000_000
    assert all(int(line[:7]) == number for number, line in enumerate(lines))
    for path in folder.iterdir():
        data = path.read_bytes()
        assert len(data) <= 1 << 20
        assert data.endswith(b"\n")


def test_old_generations_are_compressed_and_counted(project: Project) -> None:
    """Renumbering goes on while files are compressed, and nothing gets mixed up."""
    project.python(
        "one",
        LINES.format(count=20_000),
        log={"max_size": 60_000, "keep": 30, "compress": True},
    )
    project.wait("exit", "one")
    project.request("flush", names=None)
    folder = project.state / "logs"
    wait_until(
        lambda: not [p for p in folder.iterdir() if p.name[-1].isdigit()],
        "everything to be compressed",
    )
    text = all_output(folder, "one.log")
    lines = text.splitlines()
    assert [int(line[:7]) for line in lines] == list(range(20_000))
    names = sorted(path.name for path in folder.iterdir())
    count = len(names) - 1
    assert names == sorted(
        ["one.log", *(f"one.log.{n}.gz" for n in range(1, count + 1))]
    )


def test_only_so_many_are_kept(project: Project) -> None:
    """Generations beyond `keep` are removed, and their index with them."""
    project.python(
        "one", LINES.format(count=20_000), log={"max_size": 60_000, "keep": 2}
    )
    project.wait("exit", "one")
    project.request("flush", names=None)
    names = sorted(path.name for path in (project.state / "logs").iterdir())
    assert names == ["one.log", "one.log.1", "one.log.2"]
    gens = sorted(int(p.name) for p in (project.state / "index" / "one").iterdir())
    gen = next(iter(project.connect().peek().slots))["log"]["gen"]
    assert gens == [gen - 2, gen - 1, gen]


def test_all_logs_together_stay_below_the_cap(project: Project) -> None:
    """The total holds over all daemons; the oldest archives go first."""
    for name in ("one", "two"):
        project.python(
            name,
            LINES.format(count=20_000),
            log={"max_size": 50_000, "keep": 100, "total_max": 200_000},
        )
        project.wait("exit", name)
    project.request("flush", names=None)
    folder = project.state / "logs"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 200_000
    assert (folder / "two.log").read_bytes().endswith(b"0019999 some text of a line\n")


def test_the_index_says_when_each_part_was_written(project: Project) -> None:
    """Its records are (offset, wall ns), in order, from the beginning on."""
    project.shell("one", "echo a; sleep 0.2; echo b; sleep 0.2; echo c")
    project.wait("exit", "one")
    assert project.log_text("one") == "a\nb\nc\n"
    data = (project.state / "index" / "one" / "1").read_bytes()
    records = list(struct.iter_unpack("<QQ", data))
    assert [offset for offset, _ in records] == [0, 2, 4]
    times = [at for _, at in records]
    assert times == sorted(times)
    assert times[2] - times[0] > 300_000_000


def test_output_goes_on_across_runs(project: Project) -> None:
    """The next run goes on in the same file, also after an unfinished line."""
    project.shell("one", "printf begun; exit 1")
    project.wait("exit", "one")
    project.shell("one", "echo ' and ended'")
    project.wait("exit", "one")
    assert project.log_text("one") == "begun and ended\n"


def test_without_capture_there_is_no_file(project: Project) -> None:
    """Output that isn't captured goes to /dev/null, and the log folder stays empty."""
    out = project.state / "out"
    script = 'echo lost; found=$(readlink /proc/$$/fd/1); echo "$found" > "$OUT"'
    project.shell("one", script, log=None, env={"OUT": str(out)})
    project.wait("exit", "one")
    assert out.read_text() == "/dev/null\n"
    assert not (project.state / "logs").exists()


def test_a_full_disk_drops_whole_lines_and_counts(project: Project) -> None:
    """The daemon is not blocked, what is lost is counted, what stays is whole."""
    full = project.state / "logs" / "one.log"
    full.parent.mkdir()
    # A file size limit of the keeper stands in for the disk: EFBIG for ENOSPC.
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(project.pid, resource.RLIMIT_FSIZE, (100_000, unlimited))
    project.python("one", LINES.format(count=20_000))
    assert project.wait("exit", "one")["code"] == 1
    project.request("flush", names=None)
    resource.prlimit(project.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    dropped = project.wait("dropped", "one")
    kept = full.read_bytes()
    assert kept.endswith(b"\n")
    total = project.connect().peek().slots[0]["dropped"]
    assert total + len(kept) == 20000 * len(b"0000000 some text of a line\n")
    assert dropped["bytes"] > 0


def test_a_followed_log_tells_its_size(project: Project) -> None:
    """`follow` brings the position after each write, for the names asked for."""
    project.request("follow", names=["one"])
    project.shell("two", "echo silent; sleep 60")
    project.shell("one", "echo hello; sleep 60")
    project.wait("log", "one", size=6, gen=1)
    assert not [
        event
        for event in project.events
        if event.get("name") == "two" and event["ev"] == "log"
    ]


def test_the_death_of_the_reader_hurts_nobody(project: Project) -> None:
    """Without a keeper a writer is not signalled, and what it wrote is read later."""
    script = """
import os, sys, time
os.write(1, b"before\\n")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
os.write(1, b"meanwhile\\n")
os.write(1, b"more\\n")
time.sleep(60)
"""
    flag = project.state.parent / "flag"
    argv = ["-I", "-S", "-c", script, str(flag)]
    pid = project.spawn("one", [sys.executable, *argv])["pid"]
    wait_until(lambda: project.log_text("one") == "before\n", "the first line")
    held = os.open(project.state / "fifo" / "one", os.O_RDONLY | os.O_NONBLOCK)
    project.kill_keeper()
    flag.touch()
    assert is_alive(pid)
    project.start()
    wait_until(
        lambda: project.log_text("one") == "before\nmeanwhile\nmore\n", "all lines"
    )
    os.close(held)


def test_what_lies_in_the_log_folder_is_logs(project: Project) -> None:
    """Nothing foreign is there, not even while files are being compressed."""
    folder = project.state / "logs"
    seen: set[str] = set()
    project.python(
        "one",
        LINES.format(count=200_000),
        log={"max_size": 100_000, "keep": 5, "compress": True},
    )
    reader = project.connect()
    while reader.peek().slots[0]["alive"]:
        if folder.exists():
            seen.update(os.listdir(folder))
    allowed = {"one.log"} | {f"one.log.{n}" for n in range(1, 6)}
    allowed |= {f"{name}.gz" for name in allowed}
    assert seen <= allowed
    assert len(seen) > 3


STUCK = """
import os, sys, time
sys.path.insert(0, {source!r})
import duende.core.keeper as keeper
append = keeper.LogWriter._append
def stuck(self, *arguments):
    while not os.path.exists({flag!r}):
        time.sleep(0.01)
    append(self, *arguments)
keeper.LogWriter._append = stuck
keeper.main(sys.argv)
"""


def test_a_stuck_disk_blocks_nobody(
    folders: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second without a write output is dropped, counted, and all else goes on."""
    flag = tmp_path / "flag"
    source = Path(keeper_client.__file__).parents[2]
    program = tmp_path / "stuck.py"
    program.write_text(STUCK.format(source=str(source), flag=str(flag)))
    monkeypatch.setattr(keeper_client, "keeper_program", lambda: str(program))
    folders.start()
    count = 1_000_000
    folders.python("one", LINES.format(count=count), log={"max_size": 1 << 30})
    assert folders.wait("exit", "one")["code"] == 1
    folders.shell("two", "exit 5", log=None)
    assert folders.wait("exit", "two")["code"] == 5
    flag.touch()
    folders.request("flush", names=None)
    kept = (folders.state / "logs" / "one.log").read_bytes()
    line = len(b"0000000 some text of a line\n")
    assert len(kept) % line == 0
    assert all(part.endswith(b" a line") for part in kept.splitlines())
    dropped = folders.connect_and_peek()["one"]["dropped"]
    assert dropped > 0
    assert dropped + len(kept) == count * line


def test_the_output_is_read_before_the_exit_is_told(project: Project) -> None:
    """When `exit` comes, nothing of that run is in the FIFO any more."""
    for _ in range(20):
        project.shell("one", "for i in 1 2 3 4 5 6 7 8; do echo $i; done; exec true")
        project.wait("exit", "one")
        fifo = os.open(project.state / "fifo" / "one", os.O_RDONLY | os.O_NONBLOCK)
        waiting = array.array("i", [0])
        fcntl.ioctl(fifo, termios.FIONREAD, waiting)
        os.close(fifo)
        assert waiting[0] == 0
