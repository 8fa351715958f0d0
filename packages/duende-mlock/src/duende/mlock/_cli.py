"""The command `python -m duende.mlock status|test|diagnose`."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from duende.mlock.config import MlockConfig
from duende.mlock.diagnose import diagnose
from duende.mlock.errors import MlockError
from duende.mlock.forecast import forecast
from duende.mlock.limits import has_ipc_lock, memlock_limit, raise_soft_limit
from duende.mlock.locking import lock_with_config

__all__ = ("main",)

GOOD, NOT_LOCKED, USAGE, UNSUPPORTED = 0, 1, 2, 3
FIELDS = {
    "VmLck": "locked",
    "VmSwap": "swapped",
    "VmRSS": "resident",
    "VmSize": "mapped",
}


def main(arguments: Sequence[str]) -> int:
    """This runs the command and gives its exit code.

    0: locked, or can be. 1: not. 2: wrong usage. 3: the platform can't.
    """
    options = _parser().parse_args(arguments)
    try:
        code, found = COMMANDS[options.command](options)
        if options.output == "json":
            print(json.dumps(found, indent=2))
        else:
            print("\n".join(RENDERERS[options.command](found)))
        return code
    except MlockError as error:
        print(f"duende.mlock: {error.strerror}", file=sys.stderr)
        return UNSUPPORTED
    except BrokenPipeError:
        sys.stderr.close()
        return NOT_LOCKED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m duende.mlock",
        description="Memory locking: what is locked, does it work, what mends it.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("status", "what a process has locked and swapped"),
        ("test", "lock all memory of a process of its own, and measure"),
        ("diagnose", "limit, capability, container, and the line that mends it"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("-o", "--output", choices=("text", "json"), default="text")
        if name == "status":
            command.add_argument(
                "pid", nargs="?", type=_pid, help="default: this command itself"
            )
        if name == "test":
            command.add_argument("--onfault", action="store_true")
    return parser


def _pid(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no pid")
    return int(text)


def _status(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    place = options.pid or "self"
    try:
        with open(f"/proc/{place}/status", encoding="utf-8", errors="replace") as file:
            parts = (line.partition(":") for line in file)
            lines = {name: value.strip() for name, _, value in parts}
    except FileNotFoundError:
        raise MlockError(
            errno.ESRCH, f"there is no process {place}, or no /proc"
        ) from None
    except OSError as error:
        raise MlockError(error.errno, f"can't read {place}: {error.strerror}") from None
    found: dict[str, Any] = {"pid": int(lines["Pid"]), "name": lines.get("Name", "")}
    for field, name in FIELDS.items():
        words = lines.get(field, "").split()
        found[f"{name}_bytes"] = int(words[0]) * 1024 if words else None
    if options.pid is None:
        soft, hard = memlock_limit()
        found |= {
            "limit_soft": soft,
            "limit_hard": hard,
            "has_ipc_lock": has_ipc_lock(),
        }
    return GOOD, found


def _test(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """This locks in a child where there can be one, so that nothing of it stays here."""
    if sys.platform == "win32":
        found = _lock(options.onfault)
    else:
        found = _in_child(lambda: _lock(options.onfault))
    code = {"locked": GOOD, "failed": NOT_LOCKED}.get(found["state"], UNSUPPORTED)
    return code, found


def _lock(onfault: bool) -> dict[str, Any]:
    raise_soft_limit()
    status = lock_with_config(MlockConfig(required=False, onfault=onfault))
    return dataclasses.asdict(status)


if sys.platform != "win32":

    def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, json.dumps(work()).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        if not text:
            ended = os.waitstatus_to_exitcode(status)
            raise MlockError(errno.EIO, f"the process that locked ended with {ended}")
        found: dict[str, Any] = json.loads(text)
        return found


def _diagnose(_: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    found = diagnose()
    data = dataclasses.asdict(found)
    if sys.platform == "linux":
        cost = forecast()
        data["forecast"] = {**dataclasses.asdict(cost), "fits": cost.fits}
    if found.facts.platform != "linux":
        return UNSUPPORTED, data
    return (GOOD if found.can_lock else NOT_LOCKED), data


def _mib(count: int | None) -> str:
    return "no limit" if count is None else f"{count / 2**20:.1f} MiB"


def _render_status(found: dict[str, Any]) -> list[str]:
    # A process names itself as it likes: nothing of that may act on the terminal.
    name = "".join(char if char.isprintable() else "?" for char in found["name"])
    lines = [f"process {found['pid']} ({name})"]
    for name in FIELDS.values():
        count = found[f"{name}_bytes"]
        lines.append(f"  {name:9} {'-' if count is None else _mib(count)}")
    if "limit_soft" in found:
        limit = f"{_mib(found['limit_soft'])}, at most {_mib(found['limit_hard'])}"
        lines.append(f"  limit     {limit}")
        has = "yes: the limit does not count" if found["has_ipc_lock"] else "no"
        lines.append(f"  CAP_IPC_LOCK {has}")
    return lines


def _render_test(found: dict[str, Any]) -> list[str]:
    if found["state"] == "locked":
        return [f"locked: {_mib(found['bytes_locked'])} ({', '.join(found['flags'])})"]
    lines = [f"not locked: {found['reason']}"]
    return lines + ([f"  {found['hint']}"] if found["hint"] else [])


def _render_diagnosis(found: dict[str, Any]) -> list[str]:
    lines = [found["verdict"], ""]
    lines += [f"  - {finding}" for finding in found["findings"]]
    cost = found.get("forecast")
    if cost:
        lines.append(
            f"  - locking takes {_mib(cost['resident_now'])} of memory, and each further "
            f"thread {_mib(cost['locked_per_thread'])} of the limit and "
            f"{_mib(cost['resident_per_thread'])} of memory"
        )
    for number, remedy in enumerate(found["remedies"]):
        lines += ["", f"{'here' if number == 0 else 'elsewhere'}: {remedy['place']}"]
        lines += [f"    {line}" for line in remedy["lines"]]
        lines.append(f"  {remedy['note']}")
    return lines


COMMANDS = {"status": _status, "test": _test, "diagnose": _diagnose}
RENDERERS = {
    "status": _render_status,
    "test": _render_test,
    "diagnose": _render_diagnosis,
}
