"""What the supervision machine wants done, as frozen values.

The driver carries them out in order and turns what comes of them into events.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

import attrs

__all__ = (
    "AllDown",
    "Arm",
    "Deliver",
    "Disarm",
    "Effect",
    "Publish",
    "Spawn",
    "StartProbe",
    "StopProbe",
    "TimerKind",
)


class TimerKind(enum.Enum):
    """This names a daemon's timers; there is one of each kind at most."""

    READY = "ready"  # the time to become ready is over
    RESTART = "restart"  # the back-off is over
    STOP = "stop"  # the present rung of the stop ladder is over
    STABLE = "stable"  # it ran long enough for its attempts to be forgotten
    SHUTDOWN = "shutdown"  # the time for stopping everything is over


@final
@attrs.frozen
class Spawn:
    """Start this run."""

    name: str
    run: str


@final
@attrs.frozen
class Deliver:
    """Send a signal, by its name, to this run; `scope` is main, tree or rest."""

    name: str
    run: str
    signal: str
    scope: str


@final
@attrs.frozen
class StartProbe:
    """Watch this run for readiness until it passes or `StopProbe`."""

    name: str
    run: str


@final
@attrs.frozen
class StopProbe:
    """Stop watching this daemon."""

    name: str


@final
@attrs.frozen
class Arm:
    """Fire this timer at `at` (monotonic ns), instead of any earlier setting."""

    name: str
    kind: TimerKind
    at: int


@final
@attrs.frozen
class Disarm:
    """Forget this timer."""

    name: str
    kind: TimerKind


@final
@attrs.frozen
class Publish:
    """Tell whoever listens that this happened; see `types.Event` for the fields."""

    daemon: str | None
    type: str
    from_: str | None = None
    to: str | None = None
    reason: str | None = None
    data: dict[str, object] = attrs.Factory(dict)


@final
@attrs.frozen
class AllDown:
    """Everything has ended after a shutdown."""


Effect: TypeAlias = (
    Spawn | Deliver | StartProbe | StopProbe | Arm | Disarm | Publish | AllDown
)
