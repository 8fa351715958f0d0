"""Whom a verb talks to: the project, its control socket, and the common flags."""

from __future__ import annotations

import os

from duende.core.cli.exits import UsageError
from duende.core.cli.output import Printer
from duende.core.control.client import ControlClient, NoSupervisor, Reply
from duende.core.control.unix_socket import LONGEST_PATH, is_too_long
from duende.core.errors import (
    ConfigError,
    DaemonError,
    InvalidState,
    NotFound,
    NotSupported,
    PermissionDenied,
    ShutdownTimeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from duende.core.config.project import ProjectPaths

__all__ = ("Options", "error_of", "names_of")


class Options:
    """This holds the common flags of one command line, and what follows from them."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.file: str | None = None
        self.project: str | None = None
        self.socket: str | None = None
        self.output = "table"
        self.quiet = False
        self.verbose = False
        self.no_color = False
        self._paths: ProjectPaths | None = None
        self._printer: Printer | None = None

    @property
    def json(self) -> bool:
        """Whether `-o json` was given."""
        return self.output == "json"

    @property
    def printer(self) -> Printer:
        """The way to stdout and stderr that the flags ask for."""
        if self._printer is None:
            self._printer = Printer(
                quiet=self.quiet, no_color=self.no_color, environ=self.environ
            )
        return self._printer

    @property
    def paths(self) -> ProjectPaths:
        """Where the project's files are.

        Raises:
            ConfigError: `--project` can't be a name.
        """
        if self._paths is None:
            from pathlib import Path

            from duende.core.config.project import locate_project

            self._paths = locate_project(
                self.file, self.project, self.environ, Path(_current_folder())
            )
        return self._paths

    @property
    def given_socket(self) -> str | None:
        """The socket that `--socket` or DUENDE_SOCKET names, absolute.

        Raises:
            UsageError: It is longer than a socket address may be.
        """
        named = self.socket or self.environ.get("DUENDE_SOCKET")
        if not named:
            return None
        path = os.path.abspath(os.path.join(_current_folder(), named))
        if is_too_long(path):
            flag = "--socket" if self.socket else "DUENDE_SOCKET"
            raise UsageError(
                f"{flag}: the path is {len(os.fsencode(path))} bytes long, and a "
                f"socket's may have {LONGEST_PATH}: {path}",
                "give a shorter one",
            )
        return path

    @property
    def control_socket(self) -> str:
        """Where the supervisor answers, if there is one."""
        given = self.given_socket
        if given is not None:
            return given
        from duende.core.config.project import read_record

        record = read_record(self.paths.supervisor_record)
        if record is not None and record.socket:
            return record.socket
        return str(self.paths.control_socket)

    @property
    def client(self) -> ControlClient:
        """A client of the project's supervisor."""
        return ControlClient(self.control_socket)

    @property
    def command(self) -> str:
        """How this project's `duende` is typed, for hints."""
        words = ["duende"]
        for flag, value in (
            ("-f", self.file),
            ("--project", self.project),
            ("--socket", self.socket),
        ):
            if value:
                import shlex

                words += [flag, shlex.quote(value)]
        return " ".join(words)

    @property
    def up_command(self) -> str:
        """What to type to start this project."""
        return f"{self.command} up -d"

    def keeper_lives(self) -> bool:
        """This says whether daemons of the project may run without a supervisor."""
        if self.given_socket is not None and self.file is None and not self.project:
            return False
        from duende.core.keeper_client import keeper_is_alive

        return bool(keeper_is_alive(self.paths.state))

    def no_supervisor(self) -> NoSupervisor:
        """This is the error that says that nothing of the project runs."""
        given = self.given_socket
        if given is not None:
            return NoSupervisor(
                f"no supervisor answers at {given}", f"start one: {self.up_command}"
            )
        return NoSupervisor(
            f"no supervisor is running for project {self.paths.name} "
            f"({self.paths.file})",
            f"start it with: {self.up_command}",
        )


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError as err:
        raise UsageError(
            "the current folder does not exist any more", "cd somewhere else"
        ) from err


_ERROR_OF_STATUS: dict[int, type[DaemonError]] = {
    400: UsageError,
    403: PermissionDenied,
    404: NotFound,
    409: InvalidState,
    422: ConfigError,
    501: NotSupported,
    504: ShutdownTimeout,
}


def error_of(reply: Reply) -> DaemonError:
    """This turns the supervisor's refusal into the error that it stands for."""
    what = str(reply.field("error") or f"the supervisor answered {reply.status}")
    kind = _ERROR_OF_STATUS.get(reply.status, DaemonError)
    return kind(what, str(reply.field("hint") or ""))


def names_of(rows: list[dict[str, object]]) -> list[str]:
    """This lists the names in rows of the overview."""
    return [str(row.get("name", "")) for row in rows]
