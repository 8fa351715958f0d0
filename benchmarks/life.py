"""The figures of a supervisor's life: start, respawn, idle, listing, stop."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Collection

from peers import Peer
from results import Results
from workplace import Workplace
from world import TooSlow, cpu_nanoseconds, proportional_size

__all__ = ("measure_empty", "measure_first", "measure_life")

_MS = 1e6
_SETTLE = 3.0
"""Seconds after a start: supervisord counts a child as started after one."""


def measure_first(kind: type[Peer], place: Workplace, results: Results) -> None:
    """This measures the time from the command to its first child."""
    peer = kind(place, 1)
    try:
        peer.prepare()
        peer.up()
        began = peer.marks.slot(0).began
        results.add("first", peer.name, (began - peer.started_at) / _MS)
        peer.settle()
    finally:
        peer.end()


def measure_empty(kind: type[Peer], place: Workplace, results: Results) -> None:
    """This measures the memory of a supervisor that has nothing to do."""
    peer = kind(place, 0)
    try:
        peer.prepare()
        peer.start()
        peer.settle()
        time.sleep(_SETTLE)
        results.add("pss-0", peer.name, proportional_size(peer.pids()))
    finally:
        peer.end()


def measure_life(
    kind: type[Peer],
    place: Workplace,
    results: Results,
    count: int,
    wanted: Collection[str],
    *,
    idle_seconds: float,
    trials: int,
) -> None:
    """This starts `count` children and measures what is wanted until they are gone."""
    peer = kind(place, count)
    try:
        peer.prepare()
        peer.up()
        began = max(slot.began for slot in peer.marks.slots(count))
        results.add(f"running-{count}", peer.name, (began - peer.started_at) / _MS)
        peer.settle()
        time.sleep(_SETTLE)
        if "pss" in wanted:
            results.add(f"pss-{count}", peer.name, proportional_size(peer.pids()))
        if "idle" in wanted:
            _measure_idle(peer, results, idle_seconds)
        if "ps" in wanted:
            _measure_listing(peer, results)
        if "respawn" in wanted:
            _measure_respawn(peer, results, trials)
        if "all-back" in wanted:
            _measure_all_back(peer, results)
        if "stop" in wanted:
            _measure_stop(peer, results)
    finally:
        peer.end()


def _measure_idle(peer: Peer, results: Results, seconds: float) -> None:
    pids = peer.pids()
    before, began = cpu_nanoseconds(pids), time.monotonic()
    time.sleep(seconds)
    used = cpu_nanoseconds(pids) - before
    minutes = (time.monotonic() - began) / 60
    results.add("idle", peer.name, used / _MS / minutes)


def _measure_listing(peer: Peer, results: Results) -> None:
    command = peer.status_command()
    if command is None:
        return
    for _ in range(7):
        before = time.monotonic_ns()
        subprocess.run(
            command,
            cwd=peer.folder,
            env=peer.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        spent = (time.monotonic_ns() - before) / _MS
        results.add(f"ps-{peer.count}", peer.name, spent)


def _measure_respawn(peer: Peer, results: Results, trials: int) -> None:
    """This kills one child at a time; then the same one, each time it is back."""
    dice = random.Random(1)
    figure = f"respawn-{peer.count}"
    until = time.monotonic() + 20
    chosen = dice.sample(range(peer.count), min(trials, peer.count))
    try:
        for number in chosen:
            results.add(figure, peer.name, _respawn(peer, number))
            # A person's, or a fault's, pace; it also lets the machine go quiet.
            time.sleep(0.01)
            if time.monotonic() > until:
                break
    except TooSlow as err:
        results.fail(figure, peer.name, str(err))
    try:
        number = chosen[0]
        time.sleep(_SETTLE)
        _respawn(peer, number)
        for _ in range(10):
            results.add(f"{figure}-again", peer.name, _respawn(peer, number))
    except TooSlow as err:
        results.fail(f"{figure}-again", peer.name, str(err))
    time.sleep(_SETTLE)


def _respawn(peer: Peer, number: int) -> float:
    peer.marks.expect(1)
    pid = peer.marks.slot(number).pid
    before = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    peer.marks.wait(30)
    return (peer.marks.slot(number).began - before) / _MS


def _measure_all_back(peer: Peer, results: Results) -> None:
    pids = [slot.pid for slot in peer.marks.slots(peer.count)]
    peer.marks.expect(peer.count)
    before = time.monotonic_ns()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    try:
        peer.marks.wait(60)
    except TooSlow as err:
        results.fail("all-back", peer.name, str(err))
        return
    last = max(slot.began for slot in peer.marks.slots(peer.count))
    results.add("all-back", peer.name, (last - before) / _MS)
    time.sleep(_SETTLE)


def _measure_stop(peer: Peer, results: Results) -> None:
    peer.before_stop()
    before = time.monotonic_ns()
    peer.ask_to_stop()
    children = peer.alive.wait(60)
    gone = peer.wait_gone(60)
    results.add("stop-children", peer.name, (children - before) / _MS)
    results.add("stop-supervisor", peer.name, (gone - before) / _MS)
