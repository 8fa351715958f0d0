"""The figures of captured output: throughput, cost, and whether a line was lost."""

from __future__ import annotations

import time
from pathlib import Path

from peers import Peer
from results import Results
from workplace import Workplace
from world import cpu_nanoseconds

__all__ = ("check_lines", "measure_steady", "measure_throughput")

_WRITERS = 100
_EVERY = 10_000_000
"""Nanoseconds between a steady writer's lines: 100 a second."""

_LINE = 100
_BLOCK = 4096


def check_lines(files: list[Path], size: int, expected: int, at_least: int) -> str:
    """This reads a child's output back; "" when every line is there, whole, in order.

    A line is its number in ten digits and then letters, `size` bytes with its end.
    Of a writer that was killed there may be fewer than `expected`, but `at_least`.
    """
    number = 0
    tail = b"x" * (size - 11) + b"\n"
    for path in files:
        with open(path, "rb") as stream:
            while line := stream.read(size):
                if line != b"%010d%s" % (number, tail):
                    return f"line {number} is {line[:24]!r} … in {path.name}"
                number += 1
    if not at_least <= number <= expected:
        return f"{number} lines are there, {expected} were written"
    return ""


def measure_throughput(
    kind: type[Peer], place: Workplace, results: Results, figure: str, megabytes: int
) -> None:
    """This lets one child write as fast as it can, and reads all of it back."""
    size = _BLOCK if figure == "blocks" else _LINE
    lines = megabytes * 1_000_000 // size
    peer = kind(place, 1, "all", size, lines)
    try:
        peer.prepare()
        peer.start(events=2)
        peer.marks.wait(120)
        slot = peer.marks.slot(0)
        seconds = (slot.last_write - slot.first_write) / 1e9
        _await_size(peer.log_files(0), size * lines)
        problem = check_lines(peer.log_files(0), size, lines, lines)
        if problem:
            results.fail(figure, peer.name, problem)
        results.add(figure, peer.name, size * lines / 1e6 / seconds)
        peer.settle()
    finally:
        peer.end()
        for path in peer.log_files(0):
            path.unlink(missing_ok=True)


def _await_size(files: list[Path], size: int) -> None:
    """This waits until what is on its way is in the files; the clock has stopped."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if sum(path.stat().st_size for path in files) >= size:
                return
        except OSError:
            pass
        time.sleep(0.02)


def measure_steady(
    kind: type[Peer], place: Workplace, results: Results, seconds: float
) -> None:
    """This measures what 100 writers of 100 lines a second each cost."""
    peer = kind(place, _WRITERS, "steady", _LINE, _EVERY)
    try:
        peer.prepare()
        peer.up()
        peer.settle()
        time.sleep(2)
        pids = peer.pids()
        before, began = cpu_nanoseconds(pids), time.monotonic()
        wrote = sum(slot.written for slot in peer.marks.slots(_WRITERS))
        time.sleep(seconds)
        used = cpu_nanoseconds(pids) - before
        passed = time.monotonic() - began
        wrote = sum(slot.written for slot in peer.marks.slots(_WRITERS)) - wrote
        results.add("steady", peer.name, used / 1e7 / passed)
        rate = wrote / passed / (_WRITERS * 1e9 / _EVERY)
        if rate < 0.99:
            results.fail("steady", peer.name, f"writers came to {rate:.0%} only")
        peer.before_stop()
        peer.ask_to_stop()
        peer.alive.wait(60)
        peer.wait_gone(60)
        for number in range(_WRITERS):
            count = peer.marks.slot(number).written
            # Killed between the write and the note of it, there is one more.
            problem = check_lines(peer.log_files(number), _LINE, count + 1, count)
            if problem:
                results.fail("steady", peer.name, problem)
    finally:
        peer.end()
