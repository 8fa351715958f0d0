"""The verbs that look at this machine: `doctor` and `platform`."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import pwd
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from duende.core.cli.exits import DONE, FAILED
from duende.core.cli.output import colored, escaped
from duende.core.cli.target import Options
from duende.core.errors import ConfigError, DaemonError, PlatformError

__all__ = ("examine", "show_platform")

_PR_GET_CHILD_SUBREAPER = 37  # prctl(2), Linux 3.4
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), Linux 6.13
_COMFORTABLE_FILES = 4096

Finding = tuple[str, str, str]
"""What was looked at; ok, warning or problem; what was found."""


def examine(options: Options) -> int:
    """This is `duende doctor`. The exit code is 1 when something can't work."""
    findings: list[Finding] = []
    for look in (_python, _system, _subreaper, _pidfd, _pidfd_info, _files, _user):
        findings.append(_carefully(look))
    findings.append(_carefully(_linger))
    findings += _folders(options)
    findings += _project(options)
    others = _other_projects(options)
    if options.json:
        report = {
            "checks": [
                {"name": name, "result": result, "text": text}
                for name, result, text in findings
            ],
            "other_projects": others,
        }
        options.printer.data(json.dumps(report, indent=2))
    else:
        width = max(len(name) for name, _, _ in findings)
        for name, result, text in findings:
            mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[result]
            if options.printer.colors:
                color = {"ok": "green", "warning": "yellow", "problem": "red"}[result]
                mark = colored(mark, color)
            options.printer.data(f"{mark}  {name.ljust(width)}  {escaped(text)}")
        names = ", ".join(others) or "none"
        options.printer.data(f"other projects of this user: {escaped(names)}")
    return FAILED if any(result == "problem" for _, result, _ in findings) else DONE


def show_platform(options: Options) -> int:
    """This is `duende platform`: where this runs, and what works here."""
    from duende.platform import PlatformInfoError, survey

    try:
        found = survey()
    except ValueError as err:
        raise ConfigError(str(err), "correct or unset DUENDE_PLATFORM") from None
    except PlatformInfoError as err:
        raise PlatformError(str(err.strerror), "run where /proc is mounted") from None
    options.printer.data(found.as_json() if options.json else found.as_text())
    return DONE


def _carefully(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except OSError as err:
        name = look.__name__.strip("_").replace("_", " ")
        return name, "warning", f"could not be examined: {err}"


def _python() -> Finding:
    text = f"{platform.python_version()} at {sys.executable}"
    return "python", "ok" if sys.version_info >= (3, 11) else "problem", text


def _system() -> Finding:
    text = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return "system", "ok" if sys.platform == "linux" else "problem", text


def _subreaper() -> Finding:
    flag = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = getattr(libc, "prctl", None)
    if prctl is None or prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0):
        return (
            "child subreaper",
            "problem",
            "not here: what a daemon leaves behind can't be found; kill scope: group",
        )
    return "child subreaper", "ok", "a daemon's whole tree ends with it"


def _pidfd() -> Finding:
    opened = getattr(os, "pidfd_open", None)
    if opened is None:
        return "pidfd", "warning", "this Python has none; signals go by pid"
    fd = opened(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
    return "pidfd", "ok", "a signal never reaches a stranger"


def _pidfd_info() -> Finding:
    import fcntl
    import struct

    name = "pidfd info"
    fd = os.pidfd_open(os.getpid())
    try:
        request = bytearray(64)
        struct.pack_into("Q", request, 0, 0xFF)
        fcntl.ioctl(fd, _PIDFD_GET_INFO, request)
    except OSError:
        return (
            name,
            "warning",
            "not in this kernel: after a kill of the keeper, exits read 'unknown'",
        )
    finally:
        os.close(fd)
    return name, "ok", "exit codes are known even after a kill of the keeper"


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} (hard limit {hard})"
    if hard != resource.RLIM_INFINITY and hard < _COMFORTABLE_FILES:
        text += "; with hundreds of daemons raise it: ulimit -n 65536"
        return "open files", "warning", text
    return "open files", "ok", text


def _user() -> Finding:
    uid = os.geteuid()
    try:
        return "user", "ok", f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return "user", "warning", f"uid {uid} has no entry in the user database"


def _linger() -> Finding:
    uid = os.geteuid()
    if uid == 0 or not os.path.isdir("/run/systemd/system"):
        return "linger", "ok", "not needed here"
    name = pwd.getpwuid(uid).pw_name
    if os.path.exists(f"/var/lib/systemd/linger/{name}"):
        return "linger", "ok", "daemons outlive the last logout"
    return (
        "linger",
        "warning",
        f"off: logging out may end everything; loginctl enable-linger {name}",
    )


def _folders(options: Options) -> list[Finding]:
    try:
        paths = options.paths
    except DaemonError as err:
        return [("folders", "problem", str(err))]
    return [
        _folder("state folder", paths.state),
        _folder("runtime folder", paths.runtime),
    ]


def _folder(name: str, folder: Path) -> Finding:
    """This tries to write, in the folder or in the nearest one that exists."""
    existing = folder
    # os.path, unlike Path, takes what may not be looked at for missing.
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
    except OSError as err:
        return name, "problem", f"{folder} can't be written: {err.strerror}"
    space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize // 1024**2
    return name, "ok" if free > 100 else "warning", f"{folder} ({free} MiB free)"


def _project(options: Options) -> list[Finding]:
    from duende.core.cli.reading import read_overview, rows_of

    try:
        paths = options.paths
        text = f"{paths.name}, of {paths.file}"
        found: list[Finding] = [
            ("project", "ok" if os.path.isfile(paths.file) else "warning", text)
        ]
        overview = read_overview(options)
    except DaemonError as err:
        return [("supervisor", "ok", err.what)]
    rows = rows_of(overview)
    supervisor = overview.get("supervisor")
    known = supervisor if isinstance(supervisor, dict) else {}
    pids = f"pid {known.get('pid')}, keeper {known.get('keeper_pid')}"
    scopes = {str(row["kill_scope"]) for row in rows if row.get("kill_scope")}
    found.append(("supervisor", "ok", f"{pids}, {len(rows)} daemons"))
    if scopes:
        found.append(("kill scope in force", "ok", ", ".join(sorted(scopes))))
    bad = [str(row["name"]) for row in rows if row.get("state") == "failed"]
    if bad:
        found.append(("daemons", "warning", f"failed: {', '.join(bad)}"))
    return found


def _other_projects(options: Options) -> list[str]:
    from duende.core.config.project import list_projects

    try:
        own = options.paths.name
        projects = list_projects(options.environ)
    except DaemonError:
        return []
    return [paths.name for paths in projects if paths.name != own]
