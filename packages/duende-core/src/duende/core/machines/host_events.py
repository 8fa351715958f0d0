"""What a host tells the supervisor about the daemons' bodies, as frozen values.

Processes (through the keeper) and tasks of this process are reported by the same
events, so that nothing above the hosts can tell one from the other. Every `at` is
monotonic nanoseconds; `run` is the id of one start; `name` is a slot.
"""

from __future__ import annotations

from typing import TypeAlias, final

import attrs

from duende.core.types import ExitInfo

__all__ = (
    "Exited",
    "HostEvent",
    "MainChanged",
    "MainContinued",
    "MainStopped",
    "Notified",
    "OutputDropped",
    "SpawnFailed",
    "Spawned",
    "TreeGone",
)


@final
@attrs.frozen
class Spawned:
    """This run has begun. `pid` is None for a task, which has no process of its own."""

    name: str
    run: str
    pid: int | None
    at: int


@final
@attrs.frozen
class SpawnFailed:
    """This run could not begin; `step` and `errno` say where the attempt ended.

    `permanent` is True when trying again would end the same way (a bad
    configuration), so that nobody retries.
    """

    name: str
    run: str
    step: str
    errno: int | None
    text: str
    permanent: bool
    at: int


@final
@attrs.frozen
class Exited:
    """This run's main process or task has ended.

    `left` counts the processes of its tree that still live. `text` is the last
    line of the error that ended a task, else empty.
    """

    name: str
    run: str
    exit: ExitInfo
    left: int
    at: int
    text: str = ""


@final
@attrs.frozen
class TreeGone:
    """This follows an `Exited` that left processes behind: now none is left."""

    name: str
    run: str
    at: int


@final
@attrs.frozen
class Notified:
    """This run spoke the sd_notify protocol: READY, STATUS, … as (key, value) pairs."""

    name: str
    run: str
    fields: tuple[tuple[str, str], ...]
    at: int


@final
@attrs.frozen
class MainStopped:
    """This run's main process was stopped by a signal."""

    name: str
    run: str
    at: int


@final
@attrs.frozen
class MainContinued:
    """This run's main process, stopped before, was continued."""

    name: str
    run: str
    at: int


@final
@attrs.frozen
class MainChanged:
    """This run's main process is now another one (MAINPID= was accepted)."""

    name: str
    run: str
    pid: int
    at: int


@final
@attrs.frozen
class OutputDropped:
    """This many more bytes of the daemon's output could not be written."""

    name: str
    bytes: int
    at: int


HostEvent: TypeAlias = (
    Spawned
    | SpawnFailed
    | Exited
    | TreeGone
    | Notified
    | MainStopped
    | MainContinued
    | MainChanged
    | OutputDropped
)
