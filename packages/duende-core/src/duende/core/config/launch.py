"""From a daemon's configuration to exactly what is executed.

`render_launch` is called at every start, since it reads what may have changed in
between: env files, the user database, the program's place. It starts nothing.

What is wrong with the configuration (an unknown user, a missing folder, a bad env
file) is a ConfigError, and not tried again; a program that isn't there, or can't be
executed, is a SpawnError, which the restart policy tries again.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import attrs

from duende.core.config.accounts import Account, find_account
from duende.core.config.environment import build_environment, check_strings
from duende.core.config.model import DaemonConfig, LockMemory
from duende.core.config.plan import DaemonSpec
from duende.core.errors import ConfigError, SpawnError

__all__ = ("Launch", "render_launch")

MLOCK_VARIABLE: Final = "DUENDE_MLOCK"
"""What overrides lock_memory; entry daemons inherit it from the supervisor."""

CAP_IPC_LOCK: Final = 14
"""linux/capability.h: its owner locks memory whatever RLIMIT_MEMLOCK says."""

_FALLBACK_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for when the daemon's environment has no PATH."""


@final
@attrs.frozen(kw_only=True)
class Launch:
    """This is what the keeper is told to execute.

    `path` is the absolute program, `argv` includes argv[0], `env` is the whole
    environment but for NOTIFY_SOCKET. None means "leave it as it is". `limits` maps
    a resource to [soft, hard], `capabilities` are those that another user keeps of
    the supervisor's (capabilities(7)), `watchdog_usec` is microseconds.
    """

    path: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    umask: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    capabilities: tuple[int, ...] = ()
    nice: int | None = None
    limits: dict[str, list[int]] = attrs.Factory(dict)
    watchdog_usec: int | None = None


def render_launch(
    spec: DaemonSpec,
    *,
    base_dir: Path,
    project: str,
    run_id: str,
    environ: Mapping[str, str],
    file: Path | None = None,
    own_program: str = sys.executable,
) -> Launch:
    """This works out what one start of a daemon executes.

    `base_dir` is the folder of the file, `environ` the environment that the
    supervisor was started with, `file` the configuration that an entry daemon reads
    its new settings from when it reloads, and `own_program` duende's own interpreter: beside
    it, programs are looked for last.

    Raises:
        ConfigError: The configuration can't be carried out on this machine.
        SpawnError: The program isn't there, or can't be executed.
    """
    config = spec.config
    where = f"daemon {spec.name!r}"
    account = find_account(config.user, config.group, where)
    working_dir = os.path.abspath(base_dir / os.path.expanduser(config.working_dir))
    _check_working_dir(working_dir, where, account)
    own = {
        "DUENDE_PROJECT": project,
        "DUENDE_NAME": spec.name,
        "DUENDE_INSTANCE": str(spec.instance),
        "DUENDE_RUN_ID": run_id,
    }
    if config.entry is not None:
        own["DUENDE_RUNNER"] = _runner_settings(spec, file)
    env = build_environment(
        config,
        base_dir=base_dir,
        environ=environ,
        account=account,
        own=own,
        where=where,
    )
    capabilities: tuple[int, ...] = ()
    if config.entry is not None:
        if MLOCK_VARIABLE in environ:
            env.setdefault(MLOCK_VARIABLE, environ[MLOCK_VARIABLE])
        if account.uid is not None and _locks_memory(config, env, where):
            capabilities = (CAP_IPC_LOCK,)
        entry = _absolute_entry(config.entry, working_dir, base_dir, where)
        program = config.python or own_program
        argv = [program, "-m", "duende.core.runner", entry]
    else:
        assert config.command is not None, "DaemonConfig has either"
        argv = list(config.command)
    path = _find_program(argv[0], working_dir, env, own_program, where)
    check_strings(argv, env, where)
    return Launch(
        path=path,
        argv=tuple(argv),
        env=env,
        cwd=working_dir,
        umask=config.umask,
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        capabilities=capabilities,
        nice=config.resources.nice,
        limits=_limits(config),
        watchdog_usec=_watchdog(config),
    )


def _check_working_dir(path: str, where: str, account: Account) -> None:
    problem = None
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            problem = "is no folder"
        # Another user's rights are for the keeper to find out, as that user.
        elif account.uid is None and not os.access(path, os.X_OK):
            problem = "may not be entered"
    except (OSError, ValueError) as err:
        problem = f"can't be used: {getattr(err, 'strerror', None) or err}"
    if problem:
        raise ConfigError(
            f"{where}: working_dir {path} {problem}", "make it, or change working_dir"
        )


def _runner_settings(spec: DaemonSpec, file: Path | None) -> str:
    config = spec.config
    settings = {
        "name": spec.name,
        "daemon": spec.base,
        "file": None if file is None else str(file),
        "settings": config.settings,
        "stop_timeout": config.stop.timeout,
        "lock_memory": config.resources.lock_memory.value,
    }
    try:
        return json.dumps(settings, separators=(",", ":"))
    except (TypeError, ValueError) as err:
        raise ConfigError(
            f"daemon {spec.name!r}: its settings can't be written as JSON: {err}",
            "use texts, numbers, booleans, lists and tables",
        ) from err


def _absolute_entry(entry: str, working_dir: str, base_dir: Path, where: str) -> str:
    """This makes the path form of an entry absolute; a module stays as it is."""
    place, _, attribute = entry.rpartition(":")
    if not place.endswith(".py"):
        return entry
    expanded = os.path.expanduser(place)
    candidates = [
        os.path.normpath(os.path.join(folder, expanded))
        for folder in (working_dir, os.path.abspath(base_dir))
    ]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return f"{candidate}:{attribute}"
    raise SpawnError(
        f"{where}: there is no file {candidates[0]}",
        "correct entry; its path is relative to working_dir",
        errno=errno.ENOENT,
    )


def _find_program(
    program: str,
    working_dir: str,
    env: Mapping[str, str],
    own_program: str,
    where: str,
) -> str:
    """This finds a program: on the daemon's PATH, then beside duende's own."""
    if not program:
        raise SpawnError(
            f"{where}: there is no program to run",
            "set python, since duende doesn't know its own interpreter",
            errno=errno.ENOENT,
        )
    if "/" in program:
        path = os.path.normpath(os.path.join(working_dir, os.path.expanduser(program)))
        problem = _not_executable(path)
        if problem is not None:
            raise _cannot_run(where, path, problem)
        return path
    searched = env.get("PATH", _FALLBACK_PATH)
    folders = [
        os.path.join(working_dir, folder) for folder in searched.split(os.pathsep)
    ]
    if own_program:
        folders.append(os.path.dirname(os.path.abspath(own_program)))
    nearly: SpawnError | None = None
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, program))
        problem = _not_executable(path)
        if problem is None:
            return path
        # Like execvp(3): go on, but tell of a file that was there at the end.
        if problem not in (errno.ENOENT, errno.ENOTDIR) and nearly is None:
            nearly = _cannot_run(where, path, problem)
    if nearly is not None:
        raise nearly
    raise SpawnError(
        f"{where}: program {program!r} was not found; looked in {searched}"
        + (f" and {folders[-1]}" if own_program else ""),
        "install it, correct command, or add its folder to PATH in env",
        errno=errno.ENOENT,
    )


def _not_executable(path: str) -> int | None:
    """This gives the errno that executing a file would fail with, or None."""
    try:
        found = os.stat(path)
    except OSError as err:
        return err.errno or errno.ENOENT
    except ValueError:
        return errno.ENOENT
    if stat.S_ISDIR(found.st_mode):
        return errno.EISDIR
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        return errno.EACCES
    return None


def _cannot_run(where: str, path: str, number: int) -> SpawnError:
    match number:
        case errno.EISDIR:
            text, hint = "is a folder, not a program", "correct command"
        case errno.EACCES if os.path.exists(path):
            text, hint = "is not executable", f"chmod +x {path}, or correct command"
        case errno.ENOENT:
            text, hint = "does not exist", "correct command, or install it"
        case _:
            text, hint = f"can't be executed: {os.strerror(number)}", "correct command"
    return SpawnError(f"{where}: {path} {text}", hint, errno=number)


def _limits(config: DaemonConfig) -> dict[str, list[int]]:
    files = config.resources.open_files
    return {} if files is None else {"nofile": [files, files]}


def _locks_memory(config: DaemonConfig, env: dict[str, str], where: str) -> bool:
    """This says whether the runner will try to lock the daemon's memory."""
    declared = config.resources.lock_memory
    if declared is LockMemory.OFF and MLOCK_VARIABLE not in env:
        return False
    from duende.mlock import LockMode, resolve_mode

    try:
        return resolve_mode(declared.value, env) is not LockMode.OFF
    except ValueError as err:
        raise ConfigError(
            f"{where}: {err}", f"correct or unset {MLOCK_VARIABLE}"
        ) from err


def _watchdog(config: DaemonConfig) -> int | None:
    health = config.health
    if health is None or not health.notify:
        return None
    return max(1, round(health.interval * 1_000_000))
