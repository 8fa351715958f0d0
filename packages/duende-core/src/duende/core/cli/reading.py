"""The verbs that only look: `ps`, `status`, `ls` and `version`.

On the fast path: neither click, attrs nor anyio is imported here.
"""

from __future__ import annotations

import json
import sys
import time

from duende.core.cli.exits import DONE, NOT_RUNNING, worst
from duende.core.cli.output import duration_text, render_table, size_text
from duende.core.cli.target import Options, error_of
from duende.core.control.client import NoSupervisor, quote
from duende.core.errors import NotFound

__all__ = (
    "read_overview",
    "select_rows",
    "show_daemons",
    "show_projects",
    "show_status",
    "show_version",
)

_WATCH_INTERVAL = 1.0

Row = dict[str, object]


def read_overview(options: Options) -> dict[str, object]:
    """This asks the supervisor, or else the keeper's records, for all daemons.

    Raises:
        NoSupervisor: Nothing of the project runs.
    """
    try:
        reply = options.client.get("/v1/daemons")
    except NoSupervisor:
        if not options.keeper_lives():
            raise options.no_supervisor() from None
        from duende.core.cli.recorded import recorded_overview

        options.printer.note(
            "warning: the supervisor does not run, the daemons do; this is what its "
            f"keeper has recorded. Bring it back with: {options.up_command}"
        )
        return recorded_overview(options.paths)
    if not reply.ok or not isinstance(reply.body, dict):
        raise error_of(reply)
    return reply.body


def rows_of(overview: dict[str, object]) -> list[Row]:
    """This is the list of daemons in an overview."""
    found = overview.get("daemons")
    return found if isinstance(found, list) else []


def select_rows(rows: list[Row], names: list[str]) -> list[Row]:
    """This keeps the rows that names, base names of instances or globs mean.

    Raises:
        NotFound: One of them means none.
    """
    if not names:
        return rows
    from fnmatch import fnmatchcase

    chosen: set[str] = set()
    for pattern in names:
        found = {
            name
            for row in rows
            for name in (str(row["name"]),)
            if pattern in (name, _base_of(row)) or fnmatchcase(name, pattern)
        }
        if not found:
            known = ", ".join(str(row["name"]) for row in rows[:8]) or "none"
            raise NotFound(f"there is no daemon {pattern!r}", f"known: {known}")
        chosen |= found
    return [row for row in rows if row["name"] in chosen]


def _base_of(row: Row) -> str:
    name, instance = str(row["name"]), row.get("instance")
    return name.removesuffix(f"-{instance}")


def show_daemons(options: Options, names: list[str], *, watch: bool = False) -> int:
    """This is `duende ps`."""
    while True:
        overview = read_overview(options)
        overview["daemons"] = select_rows(rows_of(overview), names)
        if watch and options.printer.is_terminal and not options.json:
            # Home, then erase to the end of each line and of the screen.
            table = _daemon_table(options, rows_of(overview))
            cleared = table.replace("\n", "\x1b[K\n")
            options.printer.data(f"\x1b[H{cleared}\x1b[K\x1b[J")
        elif options.json:
            options.printer.data(json.dumps(overview, indent=None if watch else 2))
        else:
            options.printer.data(_daemon_table(options, rows_of(overview)))
        if not watch:
            return DONE
        sys.stdout.flush()
        time.sleep(_WATCH_INTERVAL)  # a person's refresh rate, not a wait


def show_status(options: Options, names: list[str]) -> int:
    """This is `duende status`: like `ps`, or some daemons in detail.

    The exit code tells whether they run and are ready, once daemons are named.
    """
    if not names:
        return show_daemons(options, names)
    overview = read_overview(options)
    rows = select_rows(rows_of(overview), names)
    details = [_detail(options, row) for row in rows]
    if options.json:
        overview["daemons"] = details
        options.printer.data(json.dumps(overview, indent=2))
    else:
        options.printer.data("\n\n".join(_detail_text(options, row) for row in details))
    return worst([DONE if _is_up(row) else NOT_RUNNING for row in details])


def _is_up(row: Row) -> bool:
    return row.get("state") == "running" and row.get("ready") is True


def _detail(options: Options, row: Row) -> Row:
    try:
        reply = options.client.get(f"/v1/daemons/{quote(str(row['name']))}")
    except NoSupervisor:
        return row  # recorded: there is no more to tell
    return reply.body if reply.ok and isinstance(reply.body, dict) else row


def _daemon_table(options: Options, rows: list[Row]) -> str:
    if not rows:
        return "no daemon is defined"
    cells = [
        (
            str(row["name"]),
            str(row.get("state")),
            _ready_text(row),
            _text(row.get("pid")),
            duration_text(_number(row.get("uptime"))),
            _text(row.get("restarts")),
            _percent_text(row.get("cpu_percent")),
            size_text(_whole(row.get("rss_bytes"))),
            note_of(row),
        )
        for row in rows
    ]
    headings = ("NAME", "STATE", "READY", "PID", "UPTIME", "RESTARTS", "CPU%", "MEMORY")
    return render_table((*headings, "NOTE"), cells, options.printer)


def note_of(row: Row) -> str:
    """This says in a few words what is special about a daemon now."""
    from duende.core.cli.output import escaped

    notes = []
    if row.get("state") == "backoff" and row.get("next_restart_in") is not None:
        left = duration_text(_number(row["next_restart_in"]))
        notes.append(f"restarts in {left}")
    if row.get("reason"):
        notes.append(str(row["reason"]))
    elif row.get("exit") and row.get("state") != "running":
        notes.append(exit_text(row["exit"]))
    if row.get("healthy") is False:
        notes.append("unhealthy")
    if row.get("status_text"):
        notes.append(str(row["status_text"]))
    return escaped("; ".join(notes))


def exit_text(exit_: object) -> str:
    """This words the `exit` of a row."""
    if not isinstance(exit_, dict):
        return "-"
    if "signal" in exit_:
        text = f"killed by {exit_['signal']}"
    elif "code" in exit_:
        text = f"exit code {exit_['code']}"
    else:
        text = "exit status unknown"
    return text + (" (out of memory)" if exit_.get("oom") else "")


def _ready_text(row: Row) -> str:
    if row.get("state") not in ("running", "starting", "paused"):
        return "-"
    return "yes" if row.get("ready") else "no"


def _percent_text(value: object) -> str:
    number = _number(value)
    return "-" if number is None else f"{number:.1f}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


_DETAILS = (
    ("description", "about"),
    ("pid", "pid"),
    ("started_at", "started"),
    ("command", "command"),
    ("entry", "entry"),
    ("cwd", "folder"),
    ("working_dir", "folder"),
    ("log", "log"),
    ("platform", "platform"),
    ("kill_scope", "kill scope"),
    ("depends_on", "depends on"),
    ("waits_for", "waits for"),
    ("restart", "restart policy"),
    ("restarts", "restarts"),
    ("attempts", "attempts in a row"),
    ("tree", "process tree"),
    ("id", "id"),
)


def _detail_text(options: Options, row: Row) -> str:
    from duende.core.cli.output import escaped

    state = options.printer.state(str(row.get("state")))
    head = f"{escaped(str(row['name']))}: {state}"
    if row.get("since"):
        head += f" since {escaped(str(row['since']))}"
    lines = [head]
    facts = [("ready", "yes" if row.get("ready") else "no")]
    if row.get("healthy") is not None:
        facts.append(("healthy", "yes" if row["healthy"] else "no"))
    note = note_of(row)
    if note:
        facts.append(("note", note))
    if row.get("uptime") is not None:
        facts.append(("uptime", duration_text(_number(row["uptime"]))))
    if row.get("exit"):
        facts.append(("last exit", exit_text(row["exit"])))
    if row.get("rss_bytes") is not None:
        facts.append(("memory", size_text(_whole(row["rss_bytes"]))))
    facts += [
        (label, escaped(_fact_text(row[key])))
        for key, label in _DETAILS
        if row.get(key) not in (None, "", [], {})
    ]
    width = max(len(label) for label, _ in facts)
    lines += [f"  {label.ljust(width)}  {text}" for label, text in facts]
    return "\n".join(lines)


def _fact_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} ({item})" for key, item in value.items())
    if isinstance(value, list):
        if all(isinstance(item, (str, int)) for item in value):
            import shlex

            return shlex.join(str(item) for item in value)
        return json.dumps(value)
    return str(value)


def show_projects(options: Options) -> int:
    """This is `duende ls`: the user's projects on this machine."""
    from duende.core.config.project import list_projects, read_record
    from duende.core.keeper_client import keeper_is_alive

    found = []
    for paths in list_projects(options.environ):
        record = read_record(paths.supervisor_record)
        alive = bool(keeper_is_alive(paths.state))
        count, running = _count(paths, record, alive)
        found.append(
            {
                "project": paths.name,
                "file": str(paths.file),
                "state": count,
                "daemons": running,
                "supervisor_pid": record.pid if record is not None and alive else None,
                "state_folder": str(paths.state),
                "runtime_folder": str(paths.runtime),
            }
        )
    if options.json:
        options.printer.data(json.dumps({"projects": found}, indent=2))
        return DONE
    if not found:
        options.printer.note("no project of this user is known on this machine")
        return DONE
    from duende.core.cli.output import escaped

    rows = [
        (
            escaped(str(item["project"])),
            str(item["state"]),
            _text(item["daemons"]),
            escaped(str(item["file"])),
        )
        for item in found
    ]
    headings = ("PROJECT", "STATE", "DAEMONS", "FILE")
    options.printer.data(render_table(headings, rows, options.printer))
    return DONE


def _count(paths: object, record: object, alive: bool) -> tuple[str, str | None]:
    """This asks one project's supervisor how it is, without waiting for long."""
    from duende.core.control.client import ControlClient
    from duende.core.errors import DaemonError

    if not alive:
        return "stopped", None
    named = getattr(record, "socket", "") or str(getattr(paths, "control_socket", ""))
    try:
        reply = ControlClient(named).request("GET", "/v1/daemons", timeout=2.0)
    except NoSupervisor:
        return "no supervisor", None
    except DaemonError:
        return "not answering", None
    rows = rows_of(reply.body) if isinstance(reply.body, dict) else []
    return "running", f"{sum(_is_up(row) for row in rows)}/{len(rows)}"


def show_version(options: Options) -> int:
    """This is `duende version`."""
    version = installed_version()
    if options.json:
        import platform

        options.printer.data(
            json.dumps({"duende": version, "python": platform.python_version()})
        )
    else:
        options.printer.data(f"duende {version}")
    return DONE


def installed_version() -> str:
    """This is the version of the installed distribution."""
    from duende.core import _version

    return _version.installed_version() or "unknown (not installed)"
