"""P10: no line that a daemon wrote is lost or torn."""

from __future__ import annotations

import gzip
import os
import signal
from pathlib import Path

import pytest

from .project import Project, child, until
from .world import lives

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.slow]

LOG = 'log = { max_size = "4MiB", keep = 50, compress = %s }\n'


def read(path: Path) -> bytes:
    """This reads a file of a log, compressed or not."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def everything(folder: Path, name: str) -> bytes:
    """This puts a rotated log together, the oldest file first."""
    files = sorted(
        folder.glob(f"{name}.log.*"), key=lambda path: -int(path.name.split(".")[2])
    )
    return b"".join(map(read, [*files, folder / f"{name}.log"]))


def assert_counts(data: bytes, total: int | None = None) -> int:
    """This fails unless the lines are numbered without a gap, a double or a tear."""
    lines = data.splitlines(keepends=True)
    if total is not None:
        assert total == len(lines)
    wrong = [
        (number, line)
        for number, line in enumerate(lines)
        if line != b"line %08d of a stream\n" % number
    ]
    assert [] == wrong[:3]
    return len(lines)


def is_settled(folder: Path) -> bool:
    """Whether no compression is under way: .1 and older are packed."""
    return not [path for path in folder.iterdir() if path.name.split(".")[-1].isdigit()]


@pytest.mark.parametrize("compress", ["true", "false"])
def test_p10_a_million_lines_then_exit_1(project: Project, compress: str) -> None:
    """A daemon that writes a million lines and dies has said all of them."""
    total = 1_000_000
    project.write(
        f"[daemon.a]\ncommand = {child('lines', total, 1)}\nrestart = 'never'\n"
        + LOG % compress
    )
    project.run("up", "-d")
    row = project.is_in("a", "failed")
    assert {"code": 1} == row["exit"]
    logs = project.state / "logs"
    if compress == "true":
        until(lambda: is_settled(logs), "older files are compressed")
    assert_counts(everything(logs, "a"), total)
    assert [] == project.events("a", "log_dropped")
    assert [] == [
        path.name for path in logs.iterdir() if not read(path).endswith(b"\n")
    ]
    assert all(path.stat().st_size <= 4 * 1024 * 1024 for path in logs.iterdir())


def test_p10_logs_shows_what_was_written(project: Project) -> None:
    """`duende logs` prints every line, across rotated files, whatever is written now."""
    total = 200_000
    project.write(
        f"[daemon.a]\ncommand = {child('lines', total, 'stay')}\n" + LOG % "true"
    )
    project.up()
    until((project.root / "written").exists, "it has written everything")
    shown = project.ok("logs", "a").out.splitlines()
    assert total == len(shown)
    assert [f"line {n:08d} of a stream" for n in (0, total - 1)] == [
        text.split("| ")[-1].strip()[-len("line 00000000 of a stream") :]
        for text in (shown[0], shown[-1])
    ]
    assert 10 == len(project.ok("logs", "-n", "10", "a").out.splitlines())


def test_p10_kill_of_the_control_plane_in_mid_stream(project: Project) -> None:
    """Killing the supervisor again and again loses and tears nothing."""
    total = 1_500_000
    project.write(
        f"[daemon.a]\ncommand = {child('lines', total, 'stay')}\n"
        f"[daemon.b]\ncommand = {child('counting')}\n" + LOG % "true"
    )
    with project.file.open("a") as stream:
        stream.write("[daemon.c]\ncommand = 'sleep 1000'\n")
    project.up()
    pids = {name: project.pid(name) for name in ("a", "b", "c")}
    for _ in range(2):
        project.answers_again(project.kill_control_plane())
    until((project.root / "written").exists, "it has written everything", 60.0)
    assert pids == {name: project.pid(name) for name in pids}
    project.ok("stop", "b")
    logs = project.state / "logs"
    project.ok("logs", "-n", "1", "a")  # flushes
    until(lambda: is_settled(logs), "older files are compressed")
    assert_counts(everything(logs, "a"), total)
    assert assert_counts(everything(logs, "b")) > 0


def test_p10_kill_of_the_keeper_in_mid_stream(project: Project) -> None:
    """A new keeper goes on reading where the dead one stopped; nobody gets SIGPIPE."""
    project.write(
        f"[daemon.b]\ncommand = {child('counting')}\nrestart = 'never'\n" + LOG % "true"
    )
    project.up()
    pid = project.pid("b")
    seen = 0
    for _ in range(2):
        until(lambda: len(project.log("b")) > seen + 50, "it writes")  # noqa: B023
        seen = len(project.log("b"))
        project.kill_keeper()
        until(lambda: project.run("up", "-d").code == 0, "up works again")
        project.is_in("b", "running")
        assert pid == project.pid("b")
    until(lambda: len(project.log("b")) > seen + 50, "it still writes")
    os.kill(pid, signal.SIGKILL)
    project.is_in("b", "failed")
    # What a killed keeper had read and not yet written dies with it; nothing may be
    # torn or doubled, and what came before and after is there.
    lines = everything(project.state / "logs", "b").decode().splitlines()
    numbers = [int(line.split()[1]) for line in lines]
    assert [f"line {number:08d} of a stream" for number in numbers] == lines
    assert sorted(set(numbers)) == numbers


def test_p10_last_words_of_the_dying_are_kept(project: Project) -> None:
    """What is in the pipe when a daemon is killed is still written down."""
    script = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done; kill -9 $$"
    project.write(
        f"[daemon.a]\ncommand = ['/bin/sh', '-c', '{script}']\nrestart = 'never'\n"
    )
    project.run("up", "-d")
    row = project.is_in("a", "failed")
    assert {"signal": "SIGKILL"} == row["exit"]
    assert [str(n) for n in range(300)] == project.log("a")
    assert row["pid"] is None or not lives(row["pid"])
