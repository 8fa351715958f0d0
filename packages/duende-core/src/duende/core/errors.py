"""The one tree of errors. Each says what failed, why, and what to do."""

from __future__ import annotations

__all__ = (
    "AlreadyRunning",
    "ConfigError",
    "DaemonError",
    "HealthCheckError",
    "InitError",
    "InvalidState",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "PlatformError",
    "ResourceLimitError",
    "ShutdownTimeout",
    "SpawnError",
)


class DaemonError(Exception):
    """This is the root of everything that duende raises on purpose.

    `what` says what was attempted and what was found; `hint` says what to do;
    `fields` is what a subclass knows beyond that, so that the error can be pickled.
    """

    def __init__(self, what: str, hint: str = "", *fields: object) -> None:
        super().__init__(what, hint, *fields)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class ConfigError(DaemonError):
    """A configuration is wrong. `problems` holds every problem found, one line each."""

    def __init__(
        self, what: str, hint: str = "", problems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what, hint, problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems) if self.problems else super().__str__()


class InitError(DaemonError):
    """A daemon's `init` failed."""


class SpawnError(DaemonError):
    """A process could not be started. `errno` and `step` say where it failed."""

    def __init__(
        self, what: str, hint: str = "", errno: int | None = None, step: str = "exec"
    ) -> None:
        super().__init__(what, hint, errno, step)
        self.errno = errno
        self.step = step


class AlreadyRunning(DaemonError):
    """Something with this identity runs already."""


class NotFound(DaemonError):
    """No daemon has this name or id."""


class InvalidState(DaemonError):
    """The daemon's state does not allow the operation."""


class ShutdownTimeout(DaemonError):
    """A daemon did not end within its stop timeout and the kill that follows."""


class HealthCheckError(DaemonError):
    """A health check could not be carried out."""


class ResourceLimitError(DaemonError):
    """A resource limit could not be enforced."""


class PermissionDenied(DaemonError):
    """The operating system, or the control socket, refused the operation."""


class PlatformError(DaemonError):
    """The platform (systemd, a container engine, the kernel) gave an error."""


class NotSupported(DaemonError):
    """The operation can't be done here; the message says which, where and why."""
