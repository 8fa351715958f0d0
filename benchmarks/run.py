"""This measures duende beside its peers, in one run: `python benchmarks/run.py`.

Peers take turns, so that whatever else the machine does meets all of them. Nothing is
judged by time here: figures are printed, next to what duende is to reach.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from life import measure_empty, measure_first, measure_life
from machine import describe_machine, load_average, versions
from output import measure_steady, measure_throughput
from peer_duende import Duende, DuendeBackground
from peers import FloorC, FloorPython, Peer, Runit, Supervisord
from python_daemon import measure_daemon, measure_interpreter
from results import Results
from workplace import Workplace
from world import TooSlow

PEERS: dict[str, type[Peer]] = {
    kind.name: kind
    for kind in (FloorC, FloorPython, Runit, Supervisord, Duende, DuendeBackground)
}
ROWS = (
    "first",
    "running",
    "respawn",
    "all-back",
    "stop",
    "idle",
    "pss",
    "ps",
    "blocks",
    "lines",
    "steady",
    "python",
)
_LIFE = frozenset(("running", "respawn", "all-back", "stop", "idle", "pss", "ps"))
_SLOW = "supervisord"
"""Its lives take a minute each: one of them tells enough."""


def main() -> int:
    """This runs what the command line asks for."""
    options = _parse()
    signal.signal(signal.SIGTERM, _interrupt)
    place = Workplace(options.folder)
    results = Results()
    about = describe_machine()
    try:
        peers = _available(options.peer or list(PEERS), place)
        about["versions"] = versions(place, peers)
        _measure_all(options, peers, place, results)
    except KeyboardInterrupt:
        print("interrupted; what was measured so far:", file=sys.stderr)
    finally:
        place.close()
    about["load_average_after"] = round(load_average(), 2)
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print()
    print(results.table(list(PEERS) if not options.peer else options.peer))
    if options.json is not None:
        report = {"environment": about, **results.as_json()}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=ROWS, help="only this row (repeatable)"
    )
    parser.add_argument(
        "--peer", action="append", choices=list(PEERS), help="only this (repeatable)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and 10 s for idle CPU"
    )
    parser.add_argument("--rounds", type=int, help="how often each is started")
    parser.add_argument(
        "--count",
        action="append",
        type=int,
        choices=(100, 1000),
        help="how many children (repeatable; both unless given)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--folder", type=Path, help="work below this folder, not the temporary one"
    )
    return parser.parse_args()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _available(names: list[str], place: Workplace) -> list[str]:
    found = list(names)
    if "runit" in found and place.program("runsvdir") is None:
        print("runit is not installed (Debian: runit): left out", file=sys.stderr)
        found.remove("runit")
    if "supervisord" in found:
        try:
            place.supervisor_programs()
        except subprocess.CalledProcessError:
            print("supervisor can't be installed: left out", file=sys.stderr)
            found.remove("supervisord")
    return found


def _measure_all(
    options: argparse.Namespace, peers: list[str], place: Workplace, results: Results
) -> None:
    wanted = set(options.only or ROWS)
    rounds = options.rounds or (2 if options.quick else 5)
    kinds = [PEERS[name] for name in peers]

    def take_turns(
        figure: str, times: int, measure: Callable[[type[Peer], int], None]
    ) -> None:
        for turn in range(times):
            for kind in kinds:
                if kind.name == _SLOW and turn and figure != "first":
                    continue
                print(f"{figure}: {kind.name}, {turn + 1}/{times}", file=sys.stderr)
                try:
                    measure(kind, turn)
                except (OSError, TooSlow, subprocess.SubprocessError) as err:
                    results.fail(figure, kind.name, f"{type(err).__name__}: {err}")

    def life(kind: type[Peer], turn: int, count: int) -> None:
        steps = wanted & _LIFE
        if turn:
            steps -= {"idle", "ps"}
        if count < 1000:
            steps -= {"idle", "all-back", "stop", "pss"}
        idle = 10.0 if options.quick else 60.0
        trials = 20 if options.quick else 50
        measure_life(
            kind, place, results, count, steps, idle_seconds=idle, trials=trials
        )

    if "first" in wanted:
        take_turns("first", rounds * 3, lambda k, _: measure_first(k, place, results))
    if "pss" in wanted:
        take_turns("pss-0", 1, lambda kind, _: measure_empty(kind, place, results))
    if wanted & _LIFE:
        for count in options.count or (100, 1000):
            take_turns(
                f"running-{count}", rounds, lambda k, turn, n=count: life(k, turn, n)
            )
    megabytes = 100 if options.quick else 400
    for figure in ("blocks", "lines"):
        if figure in wanted:
            take_turns(
                figure,
                rounds,
                lambda k, _, f=figure: measure_throughput(
                    k, place, results, f, megabytes
                ),
            )
    if "steady" in wanted:
        seconds = 5.0 if options.quick else 15.0
        take_turns(
            "steady",
            max(1, rounds // 2),
            lambda k, _: measure_steady(k, place, results, seconds),
        )
    if "python" in wanted and "duende" in peers:
        for _ in range(rounds * 3):
            measure_interpreter(results)
            measure_daemon(place, results)


if __name__ == "__main__":
    sys.exit(main())
