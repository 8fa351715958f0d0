"""The verbs that show what was said and what happened: `logs` and `events`.

The log files are read here, not in the supervisor: it only says that all that was
written is in them, and when they grow.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from duende.core.cli.exits import DONE, UsageError
from duende.core.cli.output import LINE_COLORS, colored, escaped
from duende.core.cli.target import Options, error_of
from duende.core.control.client import (
    NoSupervisor,
    ProtocolError,
    Reply,
    StreamRefused,
)
from duende.core.control.log_files import LogFiles
from duende.core.control.logs import (
    LogLine,
    LogTail,
    line_to_json,
    log_sources,
    read_logs,
    recorded_sources,
    rfc3339,
)
from duende.core.errors import NotFound

__all__ = ("show_events", "show_logs")

FOLLOWED_LINES = 100
"""How much of the past `-f` shows, unless `-n` or `--since` says otherwise."""

_RECONNECT = 30.0
"""Seconds that `-f` waits for a supervisor that is being started again."""


def show_logs(
    options: Options,
    names: Sequence[str],
    *,
    follow: bool,
    lines: int | None,
    since: float | None,
    timestamps: bool,
) -> int:
    """This is `duende logs`. `since` is seconds ago; `lines` counts merged lines."""
    _allow_many_files()
    after = None if since is None else time.time_ns() - round(since * 1e9)
    if follow and lines is None and since is None:
        lines = FOLLOWED_LINES
    if follow:
        return _follow_logs(options, names, lines, after, timestamps)
    sources = _flushed(options, names)
    writer = _LineWriter(options, sources, names, timestamps)
    writer.write(read_logs(sources.values(), lines, after))
    return DONE


def _flushed(options: Options, names: Sequence[str]) -> dict[str, LogFiles]:
    """This finds the logs, after everything that was written has got there.

    Raises:
        NoSupervisor: Nothing runs, and nothing is recorded.
    """
    try:
        reply = options.client.request("POST", "/v1/logs/flush", {"names": list(names)})
    except NoSupervisor:
        return _recorded(options, names)
    if not reply.ok:
        raise error_of(reply)
    if reply.field("flushed") is False:
        options.printer.note("warning: the newest lines may be missing")
    return _sources_of(options, reply)


def _sources_of(options: Options, reply: Reply) -> dict[str, LogFiles]:
    paths = reply.field("paths")
    state = reply.field("state")
    chosen = paths if isinstance(paths, dict) else {}
    folder = state if isinstance(state, str) else str(options.paths.state)
    return log_sources(chosen, folder)


def _recorded(options: Options, names: Sequence[str]) -> dict[str, LogFiles]:
    if options.given_socket is not None and not options.file and not options.project:
        raise options.no_supervisor()
    alive = options.keeper_lives()
    if alive:
        from duende.core.cli.recorded import log_paths

        sources = log_sources(log_paths(options.paths), str(options.paths.state))
    else:
        sources = recorded_sources(str(options.paths.state), _log_folder(options))
        if not sources:
            raise options.no_supervisor()
    options.printer.note(
        "warning: the supervisor does not run"
        + (", the daemons do" if alive else "")
        + "; this is what was recorded"
    )
    return _selected(sources, names)


def _log_folder(options: Options) -> str:
    """This is where the logs were, by the configuration that was last in force."""
    try:
        with open(options.paths.accepted, encoding="utf-8") as file:
            accepted = json.load(file)
        named = accepted["supervisor"]["log_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    if isinstance(named, str) and named:
        return os.path.join(os.path.dirname(options.paths.file), named)
    return str(options.paths.logs)


def _selected(
    sources: dict[str, LogFiles], patterns: Sequence[str]
) -> dict[str, LogFiles]:
    if not patterns:
        return sources
    from fnmatch import fnmatchcase

    chosen: dict[str, LogFiles] = {}
    for pattern in patterns:
        found = {
            name: source
            for name, source in sources.items()
            if pattern in (name, name.rpartition("-")[0]) or fnmatchcase(name, pattern)
        }
        if not found:
            known = ", ".join(list(sources)[:8]) or "none"
            raise NotFound(f"there is no log of {pattern!r}", f"known: {known}")
        chosen |= found
    return chosen


def _follow_logs(
    options: Options,
    names: Sequence[str],
    lines: int | None,
    after: int | None,
    timestamps: bool,
) -> int:
    """This shows the last lines, then new ones, also those of a supervisor's successor."""
    tails: dict[str, LogTail] = {}
    writer: _LineWriter | None = None
    while True:
        growth = _growth(options, names)
        first = next(growth, None)
        if first is None:
            return DONE
        # From here on growth is told, so what was written before is not missed.
        sources = _flushed(options, names)
        if writer is None:
            ends = {n: source.end(whole_lines=True) for n, source in sources.items()}
            writer = _LineWriter(options, sources, names, timestamps)
            writer.write(read_logs(sources.values(), lines, after, ends))
            tails = {n: LogTail(source, ends[n]) for n, source in sources.items()}
        for name, source in sources.items():
            tails.setdefault(name, LogTail(source))
        _write_new(writer, tails.values())
        try:
            for grown in growth:
                _write_new(writer, [tails[n] for n in grown if n in tails])
        except ProtocolError:
            pass  # the supervisor has gone; its keeper may bring it back
        _write_new(writer, tails.values())
        if not _comes_back(options):
            options.printer.note("the supervisor has ended")
            return DONE


def _growth(options: Options, names: Sequence[str]) -> Iterator[list[str]]:
    try:
        for line in options.client.stream("/v1/logs/growth", {"name": list(names)}):
            grown = line.get("grown")
            yield grown if isinstance(grown, list) else []
    except StreamRefused as err:
        raise error_of(err.reply) from err
    except NoSupervisor:
        if not options.keeper_lives():
            raise options.no_supervisor() from None
        raise


def _comes_back(options: Options) -> bool:
    """This waits for the supervisor that the keeper starts in place of a dead one."""
    deadline = time.monotonic() + _RECONNECT
    pause = 0.05
    while time.monotonic() < deadline and options.keeper_lives():
        try:
            options.client.request("GET", "/v1/version", timeout=2.0)
        except (NoSupervisor, ProtocolError):
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        else:
            return True
    return False


def _write_new(writer: _LineWriter, tails: Iterable[LogTail]) -> None:
    found: list[LogLine] = []
    for tail in tails:
        found += tail.read()
    found.sort(key=lambda line: line[0])
    if found:
        writer.write(iter(found))
        sys.stdout.flush()


class _LineWriter:
    """This writes log lines: bare for one daemon, with its name before it for many."""

    def __init__(
        self,
        options: Options,
        sources: dict[str, LogFiles],
        names: Sequence[str],
        timestamps: bool,
    ) -> None:
        self._json = options.json
        self._terminal = options.printer.is_terminal
        self._timestamps = timestamps
        alone = len(sources) == 1 and len(names) == 1 and names[0] in sources
        width = max((len(name) for name in sources), default=0)
        self._prefixes: dict[str, bytes] = {}
        for number, name in enumerate(sources):
            prefix = "" if alone else f"{name.ljust(width)} | "
            if prefix and options.printer.colors:
                prefix = colored(prefix, LINE_COLORS[number % len(LINE_COLORS)])
            self._prefixes[name] = prefix.encode()

    def write(self, lines: Iterator[LogLine]) -> None:
        stream = sys.stdout.buffer
        sys.stdout.flush()
        if self._json:
            for line in lines:
                stream.write(json.dumps(line_to_json(line)).encode() + b"\n")
        else:
            for line in lines:
                stream.write(self._rendered(line))
        stream.flush()

    def _rendered(self, line: LogLine) -> bytes:
        at, name, text = line
        if self._terminal:
            text = escaped(text.decode("utf-8", "replace"), keep_tabs=True).encode(
                sys.stdout.encoding or "utf-8", "backslashreplace"
            )
        time_ = rfc3339(at).encode() + b" " if self._timestamps else b""
        return time_ + self._prefixes.get(name, b"") + text + b"\n"


def _allow_many_files() -> None:
    """This raises the limit of open files: a thousand logs are merged at once."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # then only as many as the limit allows


def show_events(
    options: Options, *, follow: bool, since: str | None, names: Sequence[str]
) -> int:
    """This is `duende events`. `since` is the number of an event, or a duration."""
    query: dict[str, object | None] = {"since": since, "follow": follow}
    last = 0
    if follow and since is None:
        query["since"] = _start_of_followed(options)
    while True:
        try:
            for event in options.client.stream("/v1/events", query):
                if "error" in event and "seq" not in event:
                    options.printer.note(f"warning: {event['error']}")
                    continue
                number = event.get("seq")
                last = number if isinstance(number, int) else last
                _write_event(options, event, names)
                if follow:
                    sys.stdout.flush()
        except StreamRefused as err:
            raise error_of(err.reply) from err
        except NoSupervisor:
            _recorded_events(options, since, names)
            return DONE
        except ProtocolError:
            if not follow:
                raise
        if not follow:
            return DONE
        if not _comes_back(options):
            options.printer.note("the supervisor has ended")
            return DONE
        query["since"] = last


def _start_of_followed(options: Options) -> int:
    from duende.core.control.eventlog import last_seq

    return max(0, last_seq(str(options.paths.events)) - FOLLOWED_LINES)


def _recorded_events(options: Options, since: str | None, names: Sequence[str]) -> None:
    from duende.core.control.eventlog import last_seq, read_events

    path = str(options.paths.events)
    alive = options.keeper_lives()
    if not alive and not last_seq(path):
        raise options.no_supervisor() from None
    options.printer.note(
        "warning: the supervisor does not run; this is what was recorded"
    )
    after, moment = None, None
    if since is not None and since.isdigit():
        after = int(since)
    elif since is not None:
        from duende.core.config.units import parse_duration

        try:
            moment = rfc3339(time.time_ns() - round(parse_duration(since) * 1e9))
        except ValueError as err:
            raise UsageError(f"--since: {err}") from err
    for event in read_events(path, after, moment):
        _write_event(options, event, names)


def _write_event(
    options: Options, event: dict[str, object], names: Sequence[str]
) -> None:
    if names:
        from fnmatch import fnmatchcase

        daemon = str(event.get("daemon") or "")
        if not any(
            daemon == name
            or daemon.rpartition("-")[0] == name
            or fnmatchcase(daemon, name)
            for name in names
        ):
            return
    if options.json:
        options.printer.data(json.dumps(event))
    else:
        options.printer.data(event_text(event))


def event_text(event: dict[str, object]) -> str:
    """This words one event for a person."""
    daemon = event.get("daemon")
    what = str(event.get("type"))
    if what == "state":
        what = f"{event.get('from')} -> {event.get('to')}"
    else:
        known = ("seq", "at", "daemon", "type", "reason", "from", "to")
        extra = " ".join(
            f"{key}={json.dumps(value) if isinstance(value, (dict, list)) else value}"
            for key, value in event.items()
            if key not in known
        )
        what = f"{what} {extra}".rstrip()
    reason = f" ({event['reason']})" if event.get("reason") else ""
    return escaped(f"{event.get('at')}  {daemon or '-'}  {what}{reason}")
