"""Which status follows which: the one table of a daemon's life.

Every state has a cell for every trigger. A cell is the next status, `None` (the
trigger changes nothing here) or absent from `TABLE` only through `ILLEGAL`, which
is written too: reaching it is a bug of the caller and raises.
"""

from __future__ import annotations

import enum
from typing import Final

from duende.core.errors import InvalidState
from duende.core.types import DaemonStatus

__all__ = ("ILLEGAL", "TABLE", "Trigger", "next_status")


class Trigger(enum.Enum):
    """This is what may move a daemon from one status to another."""

    HOLD = "hold"  # it may run, but has to wait for a dependency or for its turn
    LAUNCH = "launch"  # its process is being started
    READY = "ready"  # it is ready
    PAUSE = "pause"  # it was stopped by a signal
    RESUME = "resume"  # it goes on, and was ready before
    RESUME_UNREADY = "resume-unready"  # it goes on, and was not ready before
    HALT = "halt"  # its processes are being ended
    REST = "rest"  # nothing of it runs, and nothing is to follow
    FAIL = "fail"  # nothing of it runs, because it failed for good
    RETRY = "retry"  # nothing of it runs, and it will be started again later


class _Illegal(enum.Enum):
    ILLEGAL = "illegal"


ILLEGAL: Final = _Illegal.ILLEGAL

_S = DaemonStatus
_T = Trigger

TABLE: Final[dict[DaemonStatus, dict[Trigger, DaemonStatus | _Illegal | None]]] = {
    _S.CREATED: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: ILLEGAL,
        _T.PAUSE: ILLEGAL,
        _T.RESUME: ILLEGAL,
        _T.RESUME_UNREADY: ILLEGAL,
        _T.HALT: ILLEGAL,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: ILLEGAL,
    },
    _S.WAITING: {
        _T.HOLD: None,
        _T.LAUNCH: _S.STARTING,
        _T.READY: ILLEGAL,
        _T.PAUSE: ILLEGAL,
        _T.RESUME: ILLEGAL,
        _T.RESUME_UNREADY: ILLEGAL,
        _T.HALT: ILLEGAL,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: ILLEGAL,
    },
    _S.STARTING: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: _S.RUNNING,
        _T.PAUSE: _S.PAUSED,
        _T.RESUME: None,
        _T.RESUME_UNREADY: None,
        _T.HALT: _S.STOPPING,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: _S.BACKOFF,
    },
    _S.RUNNING: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: None,
        _T.PAUSE: _S.PAUSED,
        _T.RESUME: None,
        _T.RESUME_UNREADY: None,
        _T.HALT: _S.STOPPING,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: _S.BACKOFF,
    },
    _S.PAUSED: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: None,
        _T.PAUSE: None,
        _T.RESUME: _S.RUNNING,
        _T.RESUME_UNREADY: _S.STARTING,
        _T.HALT: _S.STOPPING,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: _S.BACKOFF,
    },
    _S.STOPPING: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: None,
        _T.PAUSE: None,
        _T.RESUME: None,
        _T.RESUME_UNREADY: None,
        _T.HALT: None,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: _S.BACKOFF,
    },
    _S.STOPPED: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: ILLEGAL,
        _T.PAUSE: ILLEGAL,
        _T.RESUME: ILLEGAL,
        _T.RESUME_UNREADY: ILLEGAL,
        _T.HALT: ILLEGAL,
        _T.REST: None,
        _T.FAIL: ILLEGAL,
        _T.RETRY: ILLEGAL,
    },
    _S.FAILED: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: ILLEGAL,
        _T.PAUSE: ILLEGAL,
        _T.RESUME: ILLEGAL,
        _T.RESUME_UNREADY: ILLEGAL,
        _T.HALT: ILLEGAL,
        _T.REST: _S.STOPPED,
        _T.FAIL: None,
        _T.RETRY: ILLEGAL,
    },
    _S.BACKOFF: {
        _T.HOLD: _S.WAITING,
        _T.LAUNCH: _S.STARTING,
        _T.READY: ILLEGAL,
        _T.PAUSE: ILLEGAL,
        _T.RESUME: ILLEGAL,
        _T.RESUME_UNREADY: ILLEGAL,
        _T.HALT: ILLEGAL,
        _T.REST: _S.STOPPED,
        _T.FAIL: _S.FAILED,
        _T.RETRY: None,
    },
}


def next_status(status: DaemonStatus, trigger: Trigger) -> DaemonStatus:
    """This looks the next status up; an ignored trigger gives the same status.

    Raises:
        InvalidState: The table calls the pair illegal.
    """
    cell = TABLE[status][trigger]
    if isinstance(cell, _Illegal):
        raise InvalidState(f"a daemon that is {status.value} can't {trigger.value}")
    return status if cell is None else cell
