"""The values that every part of duende shares: states, policies, exits, health.

Nothing here does I/O, reads a clock or imports a driver.
"""

from __future__ import annotations

import enum
import signal
import uuid
from typing import NewType, final

import attrs

__all__ = (
    "BackoffConfig",
    "DaemonId",
    "DaemonInfo",
    "DaemonStatus",
    "Event",
    "ExitInfo",
    "ExitReason",
    "FailureReason",
    "HealthCheck",
    "HealthStatus",
    "Outcome",
    "RELOAD_FAILED",
    "RestartPolicy",
    "new_daemon_id",
)

DaemonId = NewType("DaemonId", uuid.UUID)

RELOAD_FAILED = "reload failed: "
"""How the status text of a hosted daemon begins that could not reload."""


def new_daemon_id() -> DaemonId:
    """This makes a new random identity (UUID version 4, RFC 9562)."""
    return DaemonId(uuid.uuid4())


class DaemonStatus(enum.Enum):
    """This says where a daemon is in its life; one machine owns the transitions."""

    CREATED = "created"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    BACKOFF = "backoff"

    @property
    def has_process(self) -> bool:
        """Whether a process (or task) of the daemon may exist in this state."""
        return self in _WITH_PROCESS


_WITH_PROCESS = frozenset(
    {
        DaemonStatus.STARTING,
        DaemonStatus.RUNNING,
        DaemonStatus.PAUSED,
        DaemonStatus.STOPPING,
    }
)


class ExitReason(enum.Enum):
    """This is what a daemon's `run` returns to say why it ended."""

    GRACEFUL = "graceful"
    SIGNAL = "signal"
    ERROR = "error"
    RESOURCE_EXHAUSTED = "resource-exhausted"
    POLICY_VIOLATION = "policy-violation"


class FailureReason(enum.Enum):
    """This classes an end that the restart policy counts as a failure."""

    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    OOM = "oom"
    WATCHDOG = "watchdog"
    UNHEALTHY = "unhealthy"
    NOT_READY = "not-ready"
    SPAWN = "could-not-start"
    UNKNOWN = "unknown"
    BAD_CONFIG = "bad-config"
    DAEMONIZED = "daemonized"
    DEPENDENCY = "dependency"
    INTENSITY = "restart-intensity"


class RestartPolicy(enum.Enum):
    """This says which ends of a daemon are followed by a restart."""

    NEVER = "never"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"


def _non_negative(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be a finite number >= 0, not {value}")


def _at_least_one(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 1 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be a finite number >= 1, not {value}")


def _fraction(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, not {value}")


@final
@attrs.frozen(kw_only=True)
class BackoffConfig:
    """This is the delay before restart n: min(initial * multiplier**n, max) ± jitter.

    Times are seconds. `jitter` is the largest relative deviation (0.1 is ±10 %).
    A daemon that ran ready for `reset_after` begins again at n = 0.
    """

    initial: float = attrs.field(default=1.0, converter=float, validator=_non_negative)
    multiplier: float = attrs.field(
        default=2.0, converter=float, validator=_at_least_one
    )
    max: float = attrs.field(default=60.0, converter=float, validator=_non_negative)
    jitter: float = attrs.field(default=0.1, converter=float, validator=_fraction)
    reset_after: float = attrs.field(
        default=10.0, converter=float, validator=_non_negative
    )


@final
@attrs.frozen
class ExitInfo:
    """This is how a process ended: by code, by signal, or unknown.

    `code` and `signal` are both None when nobody could learn it (the keeper that
    was its parent died, and the kernel could not tell the next one).
    """

    code: int | None = None
    signal: int | None = None
    oom: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether the real exit status could not be learnt."""
        return self.code is None and self.signal is None

    def to_json(self) -> dict[str, object]:
        """This renders `{"code": 1}`, `{"signal": "SIGSEGV"}` or `{"unknown": true}`."""
        rendered: dict[str, object]
        if self.signal is not None:
            rendered = {"signal": signal_name(self.signal)}
        elif self.code is not None:
            rendered = {"code": self.code}
        else:
            rendered = {"unknown": True}
        if self.oom:
            rendered["oom"] = True
        return rendered

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "exit status unknown" if self.code is None else f"exit code {self.code}"


def signal_name(number: int) -> str:
    """This names a signal (`SIGTERM`); real-time and unknown ones are `SIG<number>`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


@final
@attrs.frozen
class HealthCheck:
    """This is one named check inside a `HealthStatus`."""

    name: str
    passed: bool
    message: str | None = None


@final
@attrs.frozen(kw_only=True)
class HealthStatus:
    """This is the result of a health check.

    `latency_ms` is how long the check took, in milliseconds; `last_check` is the
    wall-clock time of it, in seconds since the epoch, or None before the first.
    """

    is_healthy: bool
    reason: str | None = None
    checks: tuple[HealthCheck, ...] = attrs.field(default=(), converter=tuple)
    latency_ms: float = 0.0
    last_check: float | None = None

    @classmethod
    def healthy(cls, latency_ms: float = 0) -> HealthStatus:
        """This is a passed check."""
        return cls(is_healthy=True, latency_ms=latency_ms)

    @classmethod
    def unhealthy(cls, reason: str, latency_ms: float = 0) -> HealthStatus:
        """This is a failed check, with the reason a person will read."""
        return cls(is_healthy=False, reason=reason, latency_ms=latency_ms)


@final
@attrs.frozen(kw_only=True)
class DaemonInfo:
    """This is one row of `duende ps -o json`.

    `uptime` and `next_restart_in` are seconds, `rss_bytes` bytes, `cpu_percent`
    per cent of one core, `started_at` RFC 3339. What is not known is None.
    """

    name: str
    instance: int
    id: str
    platform: str
    state: DaemonStatus
    ready: bool
    healthy: bool | None
    pid: int | None
    uptime: float | None
    restarts: int
    next_restart_in: float | None
    exit: ExitInfo | None
    reason: str | None
    kill_scope: str | None
    cpu_percent: float | None
    rss_bytes: int | None
    started_at: str | None
    status_text: str

    def to_json(self) -> dict[str, object]:
        """This renders the object that `ps -o json` lists, keys in the same order."""
        row: dict[str, object] = {
            field.name: getattr(self, field.name) for field in attrs.fields(DaemonInfo)
        }
        row["state"] = self.state.value
        row["exit"] = None if self.exit is None else self.exit.to_json()
        return row


@final
@attrs.frozen
class Outcome:
    """This is what a command did to one daemon.

    `state` is the daemon's status afterwards, `code` the exit code that a verb would
    give for it alone: 0 done, 1 failed, 3 not running, 124 timed out.
    """

    name: str
    ok: bool
    state: str
    message: str = ""
    code: int = 0

    def to_json(self) -> dict[str, object]:
        """This renders the outcome as JSON values."""
        return {
            "name": self.name,
            "ok": self.ok,
            "state": self.state,
            "message": self.message,
            "code": self.code,
        }


@final
@attrs.frozen(kw_only=True)
class Event:
    """This is one line of `duende events`: something that happened.

    `type` is state, exit, health, ready, restart_scheduled, signal, log_dropped,
    config, limit or supervisor. `from_` and `to` are set for state events only;
    `data` holds what else the type has to say.
    """

    seq: int
    at: str
    daemon: str | None
    type: str
    from_: str | None = None
    to: str | None = None
    reason: str | None = None
    data: dict[str, object] = attrs.Factory(dict)

    def to_json(self) -> dict[str, object]:
        """This renders the JSON object of the event line."""
        line: dict[str, object] = {
            "seq": self.seq,
            "at": self.at,
            "daemon": self.daemon,
            "type": self.type,
        }
        if self.type == "state":
            line["from"] = self.from_
            line["to"] = self.to
        line["reason"] = self.reason
        line.update(self.data)
        return line
