"""What is known about one daemon, and its form on disk.

The record is what a new control plane needs to go on where a dead one stopped, so
`to_blob` and `from_blob` must carry all of it except what the keeper knows better.
"""

from __future__ import annotations

from typing import Any

from duende.core.config.plan import DaemonSpec
from duende.core.machines.effects import TimerKind
from duende.core.machines.readiness import Readiness, ReadinessPhase
from duende.core.machines.restart import NANOSECONDS, End, RestartState
from duende.core.machines.stopping import StopPhase, Stopping
from duende.core.types import DaemonStatus, ExitInfo, FailureReason, new_daemon_id

__all__ = ("Goal", "Record")

Goal = End | None
"""What follows a stop: an `End` to judge, or None when it was asked for."""


class Record:
    """This is the state of one daemon; `Supervision` alone changes it."""

    __slots__ = (
        "by_hand",
        "completed",
        "exit",
        "failure",
        "first_try_failed",
        "goal",
        "healthy",
        "id",
        "is_stopped",
        "main_told",
        "next_restart_at",
        "pid",
        "readiness",
        "reason",
        "relaunch",
        "reloading",
        "reloads",
        "restarts",
        "retry",
        "run",
        "signalled_at",
        "spawned_at",
        "spec",
        "started_at",
        "status",
        "status_text",
        "stopping",
        "timers",
        "waits_for",
        "wanted",
    )

    def __init__(self, spec: DaemonSpec) -> None:
        self.spec = spec
        self.id = str(new_daemon_id())
        self.by_hand = False
        self.completed = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """This forgets a life that is over, but not whose it was or who stopped it."""
        self.status = DaemonStatus.CREATED
        self.wanted = False
        self.run: str | None = None
        self.pid: int | None = None
        self.readiness = self.new_readiness()
        self.healthy: bool | None = None
        self.is_stopped = False  # as the host has seen it, not as it was ordered
        self.restarts = 0
        self.retry = RestartState()
        self.exit: ExitInfo | None = None
        self.failure: FailureReason | None = None
        self.reason: str | None = None
        self.first_try_failed = False
        self.stopping: Stopping | None = None
        self.goal: Goal = None
        self.relaunch = False
        self.main_told = False
        self.reloading = False
        self.reloads = 0
        self.next_restart_at: int | None = None
        self.spawned_at: int | None = None
        self.started_at: float | None = None
        self.signalled_at = 0
        self.status_text = ""
        self.waits_for: str | None = None
        self.timers: dict[TimerKind, int] = {}

    @property
    def name(self) -> str:
        """The slot's name."""
        return self.spec.name

    @property
    def ready(self) -> bool:
        """Whether this run is ready and still there."""
        return self.readiness.is_ready and self.status in (
            DaemonStatus.RUNNING,
            DaemonStatus.PAUSED,
        )

    def new_readiness(self) -> Readiness:
        """This is the readiness of a start that has not begun."""
        ready = self.spec.config.readiness
        return Readiness(
            timeout=round(ready.timeout * NANOSECONDS),
            immediate=ready.kind == "started",
        )

    def to_blob(self) -> dict[str, Any]:
        """This renders the record as JSON values."""
        stopping = self.stopping
        goal = self.goal
        return {
            "id": self.id,
            "status": self.status.value,
            "wanted": self.wanted,
            "by_hand": self.by_hand,
            "run": self.run,
            "ready": self.readiness.is_ready,
            "restarts": self.restarts,
            "attempts": self.retry.attempts,
            "recent": list(self.retry.recent),
            "exit": None
            if self.exit is None
            else [self.exit.code, self.exit.signal, self.exit.oom],
            "failure": None if self.failure is None else self.failure.value,
            "reason": self.reason,
            "completed": self.completed,
            "first_try_failed": self.first_try_failed,
            "stopping": None
            if stopping is None
            else [
                stopping.phase.value,
                stopping.deadline,
                stopping.main_gone,
                stopping.killed,
            ],
            "goal": None
            if goal is None
            else [
                None if goal.failure is None else goal.failure.value,
                goal.text,
                goal.permanent,
            ],
            "relaunch": self.relaunch,
            "main_told": self.main_told,
            "next_restart_at": self.next_restart_at,
            "spawned_at": self.spawned_at,
            "started_at": self.started_at,
            "status_text": self.status_text,
        }

    @classmethod
    def from_blob(cls, spec: DaemonSpec, blob: dict[str, Any]) -> Record:
        """This reads what `to_blob` rendered.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        record = cls(spec)
        record.id = blob["id"]
        record.status = DaemonStatus(blob["status"])
        record.wanted = bool(blob["wanted"])
        record.by_hand = bool(blob["by_hand"])
        record.run = blob["run"]
        if blob["ready"]:
            record.readiness = Readiness(
                timeout=record.readiness.timeout,
                immediate=record.readiness.immediate,
                phase=ReadinessPhase.READY,
            )
        record.restarts = int(blob["restarts"])
        record.retry = RestartState(int(blob["attempts"]), tuple(blob["recent"]))
        if blob["exit"] is not None:
            record.exit = ExitInfo(*blob["exit"])
        if blob["failure"] is not None:
            record.failure = FailureReason(blob["failure"])
        record.reason = blob["reason"]
        record.completed = bool(blob["completed"])
        record.first_try_failed = bool(blob["first_try_failed"])
        if blob["stopping"] is not None:
            phase, deadline, main_gone, killed = blob["stopping"]
            record.stopping = Stopping(StopPhase(phase), deadline, main_gone, killed)
        if blob["goal"] is not None:
            failure, text, permanent = blob["goal"]
            record.goal = End(failure and FailureReason(failure), text, permanent)
        record.relaunch = bool(blob["relaunch"])
        record.main_told = bool(blob["main_told"])
        record.next_restart_at = blob["next_restart_at"]
        record.spawned_at = blob["spawned_at"]
        record.started_at = blob["started_at"]
        record.status_text = str(blob["status_text"])
        return record
