"""The keeper's lines, from and to values: both directions, pure.

docs/architecture.md, section 3, says what the lines are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duende.core.config.launch import Launch
from duende.core.config.plan import DaemonSpec
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    MainChanged,
    MainContinued,
    MainStopped,
    Notified,
    OutputDropped,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.reconcile import SlotFacts
from duende.core.types import ExitInfo

__all__ = ("parse_event", "parse_exit", "parse_fields", "parse_slot", "render_spawn")


def render_spawn(
    spec: DaemonSpec,
    launch: Launch,
    *,
    run: str,
    log_dir: Path,
    log_total_max: int | None,
    blob: dict[str, Any],
) -> dict[str, Any]:
    """This is the `spawn` request for one start of a daemon."""
    log = spec.config.log
    return {
        "op": "spawn",
        "name": spec.name,
        "run": run,
        "path": launch.path,
        "argv": launch.argv,
        "env": launch.env,
        "cwd": launch.cwd,
        "umask": launch.umask,
        "uid": launch.uid,
        "gid": launch.gid,
        "groups": launch.groups,
        "capabilities": launch.capabilities,
        "nice": launch.nice,
        "limits": launch.limits,
        "watchdog": launch.watchdog_usec,
        "stop_timeout": spec.config.stop.timeout,
        "log": {
            "path": str(log_dir / f"{spec.name}.log"),
            "max_size": log.max_size,
            "keep": log.keep,
            "compress": log.compress,
            "total_max": log_total_max,
        }
        if log.capture
        else None,
        "blob": blob,
    }


def parse_event(line: dict[str, Any], now: int) -> HostEvent | None:
    """This reads one line; None when it is not about a daemon's body.

    `now` stands in for the time of a line that has none.
    """
    name, run = line.get("name", ""), line.get("run", "")
    at = line["at"][0] if "at" in line else now
    match line.get("ev"):
        case "spawned":
            return Spawned(name, run, line["pid"], at)
        case "spawn-failed":
            text = f"could not start ({line['step']}): {line.get('text') or ''}"
            return SpawnFailed(name, run, line["step"], line["errno"], text, False, at)
        case "exit":
            return Exited(name, run, parse_exit(line), len(line["left"]), at)
        case "empty":
            return TreeGone(name, run, at)
        case "stopped":
            return MainStopped(name, run, at)
        case "continued":
            return MainContinued(name, run, at)
        case "main":
            return MainChanged(name, run, line["pid"], at)
        case "notify":
            return Notified(name, run, parse_fields(line["text"]), at)
        case "dropped":
            return OutputDropped(name, int(line["bytes"]), at)
    return None


def parse_exit(line: dict[str, Any]) -> ExitInfo:
    """This reads the keeper's account of an exit."""
    if line.get("unknown"):
        return ExitInfo()
    return ExitInfo(line.get("code"), line.get("signal"), bool(line.get("oom")))


def parse_fields(text: str) -> tuple[tuple[str, str], ...]:
    """This splits a notification into its assignments; other lines are passed over."""
    pairs = (line.partition("=") for line in text.split("\n"))
    return tuple((key, value) for key, sign, value in pairs if sign)


def parse_slot(slot: dict[str, Any]) -> SlotFacts:
    """This reads a slot of the keeper's snapshot."""
    exited = slot.get("exit")
    return SlotFacts(
        run=slot.get("run"),
        alive=bool(slot.get("alive")),
        pid=slot.get("pid"),
        exit=None if exited is None else parse_exit(exited),
        left=len(slot.get("left") or ()),
        ready=bool(slot.get("ready")),
        paused=bool(slot.get("paused")),
        status_text=str(slot.get("status_text") or ""),
        spawned_at=_monotonic(slot.get("spawned_at")),
        exited_at=_monotonic(slot.get("exited_at")),
    )


def _monotonic(at: list[int] | None) -> int | None:
    return None if not at else at[0]
