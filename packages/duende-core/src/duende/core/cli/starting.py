"""The verb `up`, in the foreground and with `-d`."""

from __future__ import annotations

import json
import time

from duende.core.cli.exits import DONE, FAILED
from duende.core.cli.output import escaped_lines
from duende.core.cli.target import Options, error_of
from duende.core.control.charge import load_for_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duende.core.cli.reading import Row
    from duende.core.config.plan import Plan
    from duende.core.control.client import ControlClient

__all__ = ("start_up",)

LAST_LINES = 10
"""How many lines of a failed daemon's output `up` shows."""

_INTERVAL = 0.05
_LONGEST_QUIET = 60.0
"""Seconds without any change after which a supervisor counts as stuck."""


def start_up(options: Options, names: Sequence[str], *, detach: bool) -> int:
    """This is `duende up`."""
    if detach:
        return _start_detached(options, tuple(names))
    from duende.core.cli.display import TerminalDisplay
    from duende.core.control.charge import run_foreground

    loaded = load_for_start(options.paths, tuple(names))
    display = TerminalDisplay(options.printer, list(loaded.plan.specs), options.command)
    try:
        return run_foreground(options.paths, loaded, display, environ_of(options))
    finally:
        display.close()


def environ_of(options: Options) -> dict[str, str]:
    """This is the supervisor's environment: `--socket` goes there as DUENDE_SOCKET."""
    environ = dict(options.environ)
    socket = options.given_socket
    if socket is not None:
        environ["DUENDE_SOCKET"] = socket
    return environ


def _start_detached(options: Options, names: tuple[str, ...]) -> int:
    from duende.core.control.charge import start_background

    loaded = load_for_start(options.paths, names)
    report = start_background(options.paths, loaded, environ_of(options))
    if report.changed:
        options.printer.error(
            f"the project runs already, and {options.paths.file} has changed since; "
            f"run: {options.command} apply"
        )
        return FAILED
    client = options.client
    wanted = _wanted(loaded.plan, names)
    never_started: list[Row] = []
    if not names:
        # What keeps its intent from before a `down` has not even been started.
        never_started = [row for row in _rows(client) if _waits_for_start(row, wanted)]
        by_hand = _stopped_by_hand(client, never_started, ())
        wanted = wanted.difference(by_hand)
    if report.already_running:
        first = names or [
            str(row["name"]) for row in never_started if row["name"] in wanted
        ]
        if first:
            body = {"verb": "start", "names": list(first), "wait": False}
            reply = client.request("POST", "/v1/commands", body)
            if not reply.ok:
                raise error_of(reply)
    rows, failures = _wait_for_ready(options, client, wanted, names)
    for name in _stopped_by_hand(client, rows, names):
        options.printer.note(
            f"{name} stays stopped, as it was stopped by hand; "
            f"start it with: {options.command} start {name}"
        )
    if options.json:
        _print_json(options, rows, failures)
    if failures:
        _print_failures(options, client, failures)
        return FAILED
    ready = sum(1 for row in rows if row.get("ready"))
    noun = "daemon is" if ready == 1 else "daemons are"
    duende = options.command
    options.printer.note(
        f"{ready} {noun} ready (see {duende} ps, {duende} logs; end with {duende} down)"
    )
    return DONE


def _wait_for_ready(
    options: Options,
    client: ControlClient,
    wanted: frozenset[str],
    names: Sequence[str],
) -> tuple[list[Row], dict[str, str]]:
    """This waits until everything is ready or has failed once."""
    waiting = _Expectation(wanted)
    interval = _INTERVAL
    while True:
        asked = time.monotonic()
        rows = _rows(client)
        if names:
            rows = [row for row in rows if row["name"] in wanted]
        pending = waiting.judge(rows, asked)
        if not pending:
            options.printer.clear_progress()
            return rows, waiting.failures
        shown = ", ".join(pending[:4]) + (" …" if len(pending) > 4 else "")
        done = len(rows) - len(pending)
        options.printer.progress(f"{done}/{len(rows)} ready, waiting for {shown}")
        # A thousand daemons cost the supervisor more to list: ask it less often.
        interval = min(max(interval, 10 * (time.monotonic() - asked)), 1.0)
        time.sleep(interval)


def _rows(client: ControlClient) -> list[Row]:
    from duende.core.cli.reading import rows_of

    reply = client.get("/v1/daemons")
    if not reply.ok or not isinstance(reply.body, dict):
        raise error_of(reply)
    return rows_of(reply.body)


def _waits_for_start(row: Row, wanted: frozenset[str]) -> bool:
    return row.get("state") == "created" and row["name"] in wanted


def _wanted(plan: Plan, names: Sequence[str]) -> frozenset[str]:
    """These are the daemons that start by themselves."""
    chosen = [
        spec.name
        for spec in plan.specs.values()
        if (spec.name in names or spec.base in names if names else spec.config.enabled)
    ]
    wanted: set[str] = set()
    while chosen:
        name = chosen.pop()
        if name not in wanted:
            wanted.add(name)
            chosen += plan.specs[name].depends_on
    return frozenset(wanted)


class _Expectation:
    """This judges, from one look to the next, who is ready and who has failed."""

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self._wanted = wanted
        self._seen_restarts: dict[str, int] = {}
        self._good: set[str] = set()
        self._last: object = None
        self._changed_at: float | None = None
        self.failures: dict[str, str] = {}

    def judge(self, rows: Sequence[Row], now: float) -> list[str]:
        """This takes a look and returns whom to wait for."""
        pending: list[Row] = []
        for row in rows:
            name = str(row["name"])
            if name in self._good:
                continue
            verdict = self._verdict(name, row)
            if verdict is None:
                pending.append(row)
            elif verdict:
                self.failures[name] = verdict
            else:
                self._good.add(name)
                self.failures.pop(name, None)
        if pending and all(row["state"] == "waiting" for row in pending):
            for row in pending:
                reason = str(row.get("reason") or "")
                if "turn" not in reason:
                    self.failures[str(row["name"])] = reason or "its dependency failed"
            pending = [row for row in pending if row["name"] not in self.failures]
        self._give_up_on_standstill(pending, now)
        return [
            str(row["name"]) for row in pending if str(row["name"]) not in self.failures
        ]

    def _verdict(self, name: str, row: Row) -> str | None:
        """This is "" for good, a reason for failed, None for not yet."""
        state = row.get("state")
        if row.get("ready") or state == "paused":
            return ""
        if state in ("failed", "backoff"):
            return str(row.get("reason") or state)
        restarts = row.get("restarts")
        count = restarts if isinstance(restarts, int) else 0
        if count > self._seen_restarts.setdefault(name, count):
            return str(row.get("reason") or "it was restarted before it was ready")
        if state == "stopped":
            return ""
        if state == "created" and self._wanted is not None and name not in self._wanted:
            return ""
        return None

    def _give_up_on_standstill(self, pending: Sequence[Row], now: float) -> None:
        # What is starting has a timeout of its own; a row that is not is stuck.
        idle = [row for row in pending if row["state"] != "starting"]
        look = [(row["name"], row["state"]) for row in idle]
        if look != self._last or len(idle) < len(pending):
            self._last, self._changed_at = look, now
        elif self._changed_at is not None and now - self._changed_at > _LONGEST_QUIET:
            for row in idle:
                self.failures[str(row["name"])] = f"it stays {row['state']}"


def _stopped_by_hand(
    client: ControlClient, rows: Sequence[Row], names: Sequence[str]
) -> list[str]:
    from duende.core.control.client import quote

    found = []
    for row in rows:
        if row.get("state") not in ("stopped", "created") or row["name"] in names:
            continue
        reply = client.get(f"/v1/daemons/{quote(str(row['name']))}")
        if reply.field("stopped_by_hand"):
            found.append(str(row["name"]))
    return found


def _print_json(
    options: Options, rows: Sequence[Row], failures: Mapping[str, str]
) -> None:
    options.printer.data(
        json.dumps({"daemons": list(rows), "failures": dict(failures)}, indent=2)
    )


def _print_failures(
    options: Options, client: ControlClient, failures: Mapping[str, str]
) -> None:
    from duende.core.cli.display import failure_text
    from duende.core.control.logs import log_sources, read_logs

    reply = client.request("POST", "/v1/logs/flush", {"names": list(failures)})
    paths, state = reply.field("paths"), reply.field("state")
    sources = log_sources(paths if isinstance(paths, dict) else {}, str(state))
    for name, reason in failures.items():
        source = sources.get(name)
        lines = [] if source is None else read_logs([source], LAST_LINES)
        last = [line for _, _, line in lines]
        text = failure_text(name, reason, last, options.command)
        options.printer.error(escaped_lines(text))
