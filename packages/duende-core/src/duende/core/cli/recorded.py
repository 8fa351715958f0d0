"""What can be told without a supervisor: the keeper's records, and the log files."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from duende.core.config.project import ProjectPaths

__all__ = ("log_paths", "recorded_overview")


def recorded_overview(paths: ProjectPaths) -> dict[str, object]:
    """This is the object of `ps -o json`, as far as a living keeper knows it."""
    snapshot, slots = _peek(paths)
    started = snapshot.get("started_at")
    return {
        "supervisor": {
            "pid": None,
            "keeper_pid": snapshot.get("keeper_pid"),
            "uptime": _age(started),
            "version": None,
            "project": paths.name,
        },
        "daemons": [_row(slot) for slot in slots],
    }


def log_paths(paths: ProjectPaths) -> dict[str, str]:
    """This maps daemons to their log files, as a living keeper knows them."""
    _, slots = _peek(paths)
    found = {}
    for slot in slots:
        log = slot.get("log")
        if isinstance(log, dict) and isinstance(log.get("path"), str):
            found[str(slot["name"])] = str(log["path"])
    return found


def _peek(
    paths: ProjectPaths,
) -> tuple[Mapping[str, object], list[dict[str, object]]]:
    from duende.core.keeper_client import KeeperConnection

    with KeeperConnection(paths.state) as connection:
        snapshot = connection.peek()
    return snapshot.attached, list(snapshot.slots)


def _row(slot: dict[str, object]) -> dict[str, object]:
    alive = bool(slot.get("alive"))
    name = str(slot["name"])
    tail = name.rpartition("-")[2]
    blob = slot.get("blob")
    record: Mapping[str, object] = blob if isinstance(blob, dict) else {}
    ready = bool(slot.get("ready")) or bool(record.get("ready"))
    return {
        "name": name,
        "instance": int(tail) if tail.isdigit() and tail != name else 0,
        "id": record.get("id"),
        "platform": "native",
        "state": _state(slot, record),
        "ready": alive and ready,
        "healthy": None,
        "pid": slot.get("pid") if alive else None,
        "uptime": _age(slot.get("spawned_at")) if alive else None,
        "restarts": record.get("restarts", 0),
        "next_restart_in": None,
        "exit": _exit(slot.get("exit")),
        "reason": record.get("reason"),
        "kill_scope": slot.get("kill_scope"),
        "cpu_percent": None,
        "rss_bytes": None,
        "started_at": _wall(slot.get("spawned_at")),
        "status_text": slot.get("status_text") or "",
    }


_WITH_PROCESS = ("starting", "running", "paused", "stopping")


def _state(slot: Mapping[str, object], record: Mapping[str, object]) -> str:
    """This is the state that was recorded, unless what the keeper saw says more."""
    status = str(record.get("status", "running"))
    if slot.get("alive"):
        if slot.get("paused"):
            return "paused"
        if slot.get("stopping"):
            return "stopping"
        return status if status in _WITH_PROCESS else "running"
    if status not in _WITH_PROCESS:
        return status
    exit_ = slot.get("exit")
    return "failed" if isinstance(exit_, dict) and not _is_clean(exit_) else "stopped"


def _is_clean(exit_: dict[str, object]) -> bool:
    return exit_.get("code") == 0


def _exit(exit_: object) -> dict[str, object] | None:
    if not isinstance(exit_, dict):
        return None
    if exit_.get("signal") is not None:
        from duende.core.types import signal_name

        return {"signal": signal_name(int(exit_["signal"]))}
    if exit_.get("unknown") or exit_.get("code") is None:
        return {"unknown": True}
    return {"code": exit_["code"]}


def _age(at: object) -> float | None:
    """This is how long ago a keeper's time [monotonic ns, wall ns] was, in seconds."""
    if not isinstance(at, (list, tuple)) or len(at) != 2:
        return None
    return round(max(0, time.monotonic_ns() - int(at[0])) / 1e9, 3)


def _wall(at: object) -> str | None:
    if not isinstance(at, (list, tuple)) or len(at) != 2:
        return None
    from duende.core.control.logs import rfc3339

    return rfc3339(int(at[1]))
