"""Is a daemon ready, or overdue: one start's way to readiness.

Readiness comes once per run. What is watched (a probe, READY=1, nothing at all)
is the driver's business; this machine only decides what a result means.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

import attrs

__all__ = (
    "Begun",
    "DeadlinePassed",
    "Held",
    "Passed",
    "Readiness",
    "ReadinessEvent",
    "ReadinessPhase",
    "Released",
)


class ReadinessPhase(enum.Enum):
    """This is how far one start has come."""

    PENDING = "pending"  # the process does not exist yet
    PROBING = "probing"  # it exists, and is watched until the deadline
    HELD = "held"  # it is paused: the deadline does not run
    READY = "ready"
    OVERDUE = "overdue"


@final
@attrs.frozen
class Begun:
    """The process exists since `now`."""

    now: int


@final
@attrs.frozen
class Passed:
    """The check passed, or READY=1 came."""


@final
@attrs.frozen
class DeadlinePassed:
    """The clock reads `now`."""

    now: int


@final
@attrs.frozen
class Held:
    """The daemon was paused."""


@final
@attrs.frozen
class Released:
    """The daemon goes on since `now`; its time to become ready begins again."""

    now: int


ReadinessEvent: TypeAlias = Begun | Passed | DeadlinePassed | Held | Released


@final
@attrs.frozen
class Readiness:
    """This is the state; `deadline` is monotonic nanoseconds, None when none runs.

    `immediate` is the kind that needs no check: ready as soon as it was started.
    """

    timeout: int
    immediate: bool = False
    phase: ReadinessPhase = ReadinessPhase.PENDING
    deadline: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether this run has become ready."""
        return self.phase is ReadinessPhase.READY

    def on(self, event: ReadinessEvent) -> Readiness:
        """This takes one step; READY and OVERDUE are final."""
        if self.phase in (ReadinessPhase.READY, ReadinessPhase.OVERDUE):
            return self
        match event:
            case Begun(now=now) | Released(now=now):
                if self.immediate:
                    return self._in(ReadinessPhase.READY, None)
                return self._in(ReadinessPhase.PROBING, now + self.timeout)
            case Passed():
                return self._in(ReadinessPhase.READY, None)
            case Held():
                return self._in(ReadinessPhase.HELD, None)
            case DeadlinePassed(now=now):
                if self.deadline is not None and now >= self.deadline:
                    return self._in(ReadinessPhase.OVERDUE, None)
                return self

    def _in(self, phase: ReadinessPhase, deadline: int | None) -> Readiness:
        return attrs.evolve(self, phase=phase, deadline=deadline)
