"""Which exit code says what (the contract's table), and which error has which."""

from __future__ import annotations

from duende.core.errors import (
    ConfigError,
    DaemonError,
    NotFound,
    PermissionDenied,
    ShutdownTimeout,
)

__all__ = (
    "DONE",
    "FAILED",
    "NOT_PERMITTED",
    "NOT_RUNNING",
    "NO_SUCH_DAEMON",
    "NO_SUPERVISOR",
    "BAD_CONFIG",
    "TIMED_OUT",
    "USAGE",
    "UsageError",
    "exit_code_of",
    "worst",
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NO_SUCH_DAEMON = 4
NO_SUPERVISOR = 69
NOT_PERMITTED = 77
BAD_CONFIG = 78
TIMED_OUT = 124

# What one wants to hear of first, when several daemons ended differently.
_GRAVITY = (NOT_PERMITTED, NO_SUCH_DAEMON, FAILED, TIMED_OUT, NOT_RUNNING)


class UsageError(DaemonError):
    """The command line is wrong."""


def exit_code_of(err: DaemonError) -> int:
    """This is the exit code that stands for an error."""
    from duende.core.control.client import NoSupervisor

    for kind, code in (
        (UsageError, USAGE),
        (NoSupervisor, NO_SUPERVISOR),
        (ConfigError, BAD_CONFIG),
        (PermissionDenied, NOT_PERMITTED),
        (NotFound, NO_SUCH_DAEMON),
        (ShutdownTimeout, TIMED_OUT),
    ):
        if isinstance(err, kind):
            return code
    return FAILED


def worst(codes: list[int]) -> int:
    """This picks the code for a command that did several things."""
    for code in _GRAVITY:
        if code in codes:
            return code
    return max(codes, default=DONE)
