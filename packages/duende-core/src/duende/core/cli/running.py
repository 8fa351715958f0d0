"""The verb `run`: one daemon in the foreground, its exit code.

A Python target lives in this very process (`duende.core.runner`). A command becomes
a child: signals are forwarded, and what it leaves behind is ended with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from duende.core.cli.exits import FAILED, UsageError
from duende.core.cli.target import Options

__all__ = ("run_command", "run_target")

STOP_TIMEOUT = 10.0
"""Seconds between a forwarded SIGTERM and SIGKILL: the default of `stop.timeout`."""

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_SI_KERNEL = 0x80
"""si_code of a signal that the terminal sent (sigaction(2)): the child has it too."""

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4


def run_target(options: Options, target: str, arguments: Sequence[str]) -> NoReturn:
    """This is `duende run module:Class`.

    Raises:
        UsageError: The target is none.
    """
    if ":" not in target:
        raise UsageError(
            f"{target!r} is no target",
            "write module:Class or path/file.py:Class, or a command after --",
        )
    from duende.core.runner import main

    folder = os.getcwd()
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    sys.argv = [target, *arguments]
    main(target)


def run_command(options: Options, command: Sequence[str]) -> int:
    """This is `duende run -- COMMAND`; a death by signal N gives 128+N."""
    signals = {*_FORWARDED, signal.SIGCHLD}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _become_subreaper()
    try:
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(options.environ),
                setsigmask=previous,
                setsigdef=[*_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ],
            )
        except FileNotFoundError:
            options.printer.error(f"{command[0]}: there is no such program")
            return NOT_FOUND
        except PermissionError:
            options.printer.error(f"{command[0]}: this can't be executed")
            return NOT_EXECUTABLE
        except OSError as err:
            options.printer.error(f"{command[0]}: {err.strerror}")
            return FAILED
        status = _accompany(pid, signals)
        _end_leftovers(signals)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _accompany(pid: int, signals: set[signal.Signals]) -> int:
    """This forwards signals until the child has ended, and returns its wait status."""
    deadline: float | None = None
    interrupts = 0
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        found = (
            signal.sigwaitinfo(signals)
            if left is None
            else signal.sigtimedwait(signals, left)
        )
        if found is None:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        elif found.si_signo == signal.SIGCHLD:
            status = _reap(pid)
            if status is not None:
                return status
        else:
            if found.si_code != _SI_KERNEL:
                os.kill(pid, found.si_signo)
            if found.si_signo == signal.SIGTERM and deadline is None:
                deadline = time.monotonic() + STOP_TIMEOUT
            interrupts += found.si_signo in (signal.SIGINT, signal.SIGTERM)
            if interrupts > 2:
                os.kill(pid, signal.SIGKILL)


def _reap(main: int | None) -> int | None:
    """This waits for everything that has ended; the main child's status, if it has."""
    status = None
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == main:
            status = found


def _end_leftovers(signals: set[signal.Signals]) -> None:
    """This ends what the command left behind, and waits for it."""
    deadline = time.monotonic() + STOP_TIMEOUT
    number = signal.SIGTERM
    told: set[int] = set()
    while True:
        _reap(None)
        alive = _children()
        if not alive:
            return
        for pid in alive:
            if pid not in told:
                told.add(pid)
                _kill_quietly(pid, number)
                if number == signal.SIGTERM:
                    _kill_quietly(pid, signal.SIGCONT)
        left = deadline - time.monotonic()
        if left <= 0:
            if number == signal.SIGKILL:
                return  # in uninterruptible sleep: nobody can end it now
            number, deadline = signal.SIGKILL, time.monotonic() + 2.0
            told.clear()
            continue
        signal.sigtimedwait(signals, left)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []  # no such file without CONFIG_PROC_CHILDREN: nothing is known


def _kill_quietly(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _become_subreaper() -> None:
    """Orphans of the command then come to us, and can be ended with it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
