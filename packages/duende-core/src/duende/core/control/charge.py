"""Who is in charge of a project, and how one comes to be.

What is here runs before a control plane does, so it imports neither the drivers nor
anyio: in the foreground the keeper boots while those are imported, and `up -d` never
needs them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from duende.core.config.codec import config_from_json, config_to_json
from duende.core.config.plan import Plan, plan_project
from duende.core.config.project import ProjectPaths, make_folders
from duende.core.control.unix_socket import check_replaceable
from duende.core.errors import (
    AlreadyRunning,
    ConfigError,
    DaemonError,
    NotFound,
    PlatformError,
)
from duende.core.keeper_client import (
    KeeperConnection,
    KeeperStart,
    begin_keeper,
    keeper_is_alive,
    start_keeper,
)

if TYPE_CHECKING:
    from duende.core.config.model import ProjectConfig
    from duende.core.control.api import Display

__all__ = (
    "Loaded",
    "StartReport",
    "control_plane_lives",
    "load_for_start",
    "read_accepted",
    "run_foreground",
    "socket_of",
    "start_background",
    "take_charge",
    "take_over",
)

LOCK = "control.lock"
_START_TIMEOUT = 30.0
_GLANCE = 0.05
"""Seconds that a `control_plane_lives` elsewhere may hold the lock, and more."""


class Loaded(NamedTuple):
    """This is a file that may be started, and the slots that were named.

    `digest` is the SHA-256 of the file; `names` is empty for all that is enabled.
    """

    config: ProjectConfig
    plan: Plan
    digest: str
    names: tuple[str, ...]


class StartReport(NamedTuple):
    """This is what `up -d` found: a new supervisor, or a living one.

    `changed` says that the file is not what the living one accepted.
    """

    already_running: bool
    changed: bool
    pid: int | None


def load_for_start(paths: ProjectPaths, names: tuple[str, ...]) -> Loaded:
    """This loads the file and looks up the names from the command line.

    Raises:
        ConfigError: With every problem.
        NotFound: There is no daemon of a name.
    """
    config, digest = load_checked(paths)
    plan = plan_project(config)
    return Loaded(config, plan, digest, check_names(plan, names))


# -- the accepted configuration -------------------------------------------------------


def load_checked(paths: ProjectPaths) -> tuple[ProjectConfig, str]:
    """This loads the file, refuses what can't be done yet, and gives its hash.

    Raises:
        ConfigError: With every problem.
    """
    from duende.core.config.load import load_project
    from duende.core.config.support import unsupported

    config = load_project(paths.file)
    problems = unsupported(config)
    if problems:
        raise ConfigError(f"{paths.file}: not supported yet", problems=problems)
    return config, hashlib.sha256(paths.file.read_bytes()).hexdigest()


def accept(
    paths: ProjectPaths, config: ProjectConfig, digest: str, names: tuple[str, ...]
) -> None:
    """This writes down the configuration that is in force from now on."""
    value = config_to_json(config, str(paths.file), digest)
    value["names"] = list(names)
    # Several may start at once: none renames what another has not written yet.
    temporary = paths.accepted.with_name(f"accepted.json.{os.getpid()}")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(temporary, paths.accepted)


def read_accepted(
    paths: ProjectPaths,
) -> tuple[ProjectConfig, str, tuple[str, ...]] | None:
    """This reads what `accept` wrote; None when there is none, or a broken one."""
    try:
        value = json.loads(paths.accepted.read_bytes())
        return (
            config_from_json(value),
            str(value["sha256"]),
            tuple(value.get("names", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def check_names(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """This expands names from the command line to slots.

    Raises:
        NotFound: There is no such daemon in the file.
    """
    found: list[str] = []
    for name in names:
        slots = [slot for slot, spec in plan.specs.items() if name in (slot, spec.base)]
        if not slots:
            known = ", ".join(sorted({s.base for s in plan.specs.values()})) or "none"
            raise NotFound(f"there is no daemon {name!r}", f"the file defines {known}")
        found += slots
    return tuple(found)


def socket_of(paths: ProjectPaths, environ: Mapping[str, str]) -> str:
    """This is where the control socket of the project is, or will be."""
    return environ.get("DUENDE_SOCKET") or str(paths.control_socket)


# -- who is in charge -------------------------------------------------------------------


def control_plane_lives(state: Path) -> bool:
    """Whether a control plane is in charge of the project."""
    try:
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def take_charge(paths: ProjectPaths, wait: float) -> int:
    """This takes the lock of the control plane, waiting `wait` seconds at most.

    Raises:
        AlreadyRunning: Another one holds it.
    """
    descriptor = os.open(
        paths.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"project {paths.name!r} is running already",
                    "see `duende ps`, or end it with `duende down`",
                ) from None
            time.sleep(0.01)  # noqa: TID251 - flock has no time limit of its own
        else:
            return descriptor


# -- foreground ---------------------------------------------------------------------------


def run_foreground(
    paths: ProjectPaths,
    loaded: Loaded,
    display: Display,
    environ: Mapping[str, str],
) -> int:
    """This is `duende up`: everything in this process until it is told to end.

    Returns the exit code: 0, or 1 when a daemon's end brought everything down.

    Raises:
        AlreadyRunning: The project runs already.
        PermissionDenied: A folder can't be used.
        PlatformError: The keeper can't be started.
    """
    config, plan, digest, names = loaded
    make_folders(paths)
    lock = take_charge(paths, wait=_GLANCE)
    try:
        check_replaceable(socket_of(paths, environ))
        start: KeeperStart | None = None
        if keeper_is_alive(paths.state) is None:
            start = begin_keeper(
                paths.state, paths.runtime, environ=environ, mode="foreground"
            )
        try:
            # The keeper boots on another core meanwhile.
            from duende.core.control.plane import Plane, run_plane

            if start is not None:
                start.wait()
        except BaseException:
            if start is not None:
                start.abandon()
            raise
        connection = KeeperConnection.connect(paths.state)
        snapshot = connection.attach()
        if any(slot.get("alive") for slot in snapshot.slots):
            accepted = read_accepted(paths)
            if accepted is not None:
                if accepted[1] != digest:
                    display.note(
                        "taking over what runs, with the configuration it was started "
                        "with: the file has changed since"
                    )
                config, digest, _ = accepted
                plan = plan_project(config)
        accept(paths, config, digest, names)
        plane = Plane(paths, config, plan, names, environ, "foreground", display)
        return run_plane(plane, connection, snapshot)
    finally:
        os.close(lock)


# -- background ---------------------------------------------------------------------------


def start_background(
    paths: ProjectPaths, loaded: Loaded, environ: Mapping[str, str]
) -> StartReport:
    """This is the first half of `duende up -d`: a supervisor that answers.

    Raises:
        PermissionDenied: A folder can't be used.
        PlatformError: The supervisor did not come up.
    """
    digest = loaded.digest
    make_folders(paths)
    accepted = read_accepted(paths)
    if control_plane_lives(paths.state):
        _await_socket(paths, environ)
        changed = accepted is None or accepted[1] != digest
        return StartReport(already_running=True, changed=changed, pid=None)
    alive = keeper_is_alive(paths.state)
    if alive is None or accepted is None:
        accept(paths, loaded.config, digest, loaded.names)
    changed = alive is not None and accepted is not None and accepted[1] != digest
    pid = _start_control_plane(paths, environ)
    return StartReport(already_running=False, changed=changed, pid=pid)


def take_over(paths: ProjectPaths, environ: Mapping[str, str]) -> None:
    """This starts a control plane for a keeper that has none.

    Raises:
        PlatformError: It did not come up.
    """
    if not control_plane_lives(paths.state):
        _start_control_plane(paths, environ)
    _await_socket(paths, environ)


def _start_control_plane(paths: ProjectPaths, environ: Mapping[str, str]) -> int | None:
    """This has the keeper, an old or a new one, start the control plane."""
    try:
        lock = take_charge(paths, wait=_GLANCE)
    except AlreadyRunning:
        _await_socket(paths, environ)
        return None
    started = None
    try:
        # We are in charge: who listens there now is another project's supervisor.
        check_replaceable(socket_of(paths, environ))
        if keeper_is_alive(paths.state) is None:
            started = start_keeper(
                paths.state, paths.runtime, environ=environ, mode="background"
            )
        connection = KeeperConnection.connect(paths.state)
        connection.attach()
        places = [paths.file, paths.name, paths.state, paths.runtime]
        argument = json.dumps([str(place) for place in places])
        argv = [sys.executable, "-m", "duende.core.control.plane", argument]
        reply = connection.request("control", argv=argv, env=dict(environ))
        connection.close()
    except DaemonError:
        if started is not None:
            os.kill(started, signal.SIGKILL)
        raise
    finally:
        os.close(lock)
    _await_socket(paths, environ)
    return reply.get("pid")


def _await_socket(paths: ProjectPaths, environ: Mapping[str, str]) -> None:
    """This waits until the control socket answers.

    Raises:
        PlatformError: It does not, or the control plane says why it can't.
    """
    from duende.core.control.client import ControlClient, NoSupervisor

    client = ControlClient(socket_of(paths, environ))
    until = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            client.get("/v1/version")
        except NoSupervisor:
            # Without a keeper nothing comes any more, unless somebody who holds the
            # lock is just about to start one.
            hopeless = keeper_is_alive(paths.state) is None and not control_plane_lives(
                paths.state
            )
            if hopeless or time.monotonic() > until:
                raise PlatformError(
                    "the supervisor did not come up",
                    f"see {paths.state / 'supervisor.log'}",
                ) from None
            time.sleep(0.005)  # noqa: TID251 - a socket that is not there yet can't be waited for
        else:
            return
