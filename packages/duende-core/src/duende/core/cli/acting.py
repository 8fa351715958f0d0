"""The verbs that change something running: start, stop, … signal, wait and down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from duende.core.cli.exits import DONE, TIMED_OUT, exit_code_of, worst
from duende.core.cli.output import duration_text
from duende.core.cli.target import Options, error_of
from duende.core.control.client import NoSupervisor, ProtocolError, Reply
from duende.core.errors import DaemonError, InvalidState

__all__ = ("command_daemons", "shut_down", "signal_daemons", "wait_for")

_DONE_WORDS = {
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "reload": "reloaded",
    "pause": "paused",
    "resume": "resumed",
}
_COMING_BACK = 3.0
"""Seconds in which a keeper has started a dead supervisor again (its first delay is 1)."""

_PATIENCE = 20.0
"""Seconds that a supervisor may need to end after it has stopped everything."""


def command_daemons(
    options: Options,
    verb: str,
    names: Sequence[str],
    *,
    all_: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """This is `duende start`, `stop`, `restart`, `reload`, `pause` and `resume`."""
    if verb == "stop":
        _take_over_if_alone(options)
    body = {
        "verb": verb,
        "names": list(names),
        "all": all_,
        "wait": wait,
        "timeout": timeout,
    }
    what = f"{verb} {' '.join(names) or '--all'}"
    reply = _ask(options, "POST", "/v1/commands", body, what)
    done = _DONE_WORDS[verb] if wait else f"{verb} was asked for"
    return _report(options, reply, done)


def signal_daemons(
    options: Options, signal_text: str, names: Sequence[str], *, all_: bool
) -> int:
    """This is `duende signal`."""
    body = {"verb": "signal", "signal": signal_text, "names": list(names), "all": all_}
    reply = _ask(options, "POST", "/v1/commands", body, f"signal {signal_text}")
    return _report(options, reply, f"{_signal_name(signal_text)} was sent")


def _signal_name(text: str) -> str:
    if text.isdigit():
        from duende.core.types import signal_name

        return signal_name(int(text))
    return "SIG" + text.upper().removeprefix("SIG")


def wait_for(
    options: Options,
    names: Sequence[str],
    *,
    all_: bool,
    state: str,
    timeout: float | None,
) -> int:
    """This is `duende wait`. Without a timeout it waits for as long as it takes."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        query = {"name": list(names), "all": all_, "for": state, "timeout": left}
        reply = _ask(
            options, "GET", "/v1/wait", None, f"waiting for {state}", query=query
        )
        codes = [_code_of(outcome) for outcome in _outcomes(reply)]
        # The server bounds each wait; we have no bound of our own: ask again.
        if deadline is not None or TIMED_OUT not in codes or worst(codes) != TIMED_OUT:
            return _report(options, reply, f"is {state}")


def shut_down(options: Options, timeout: float | None) -> int:
    """This is `duende down`: everything is stopped, then the supervisor ends."""
    _take_over_if_alone(options)
    try:
        reply = _ask(
            options, "POST", "/v1/shutdown", {"timeout": timeout}, "stopping everything"
        )
    except ProtocolError:
        # It may end before its last answer is out; whether it did is what counts.
        if not _wait_until(lambda: not options.keeper_lives()):
            raise
        options.printer.note("everything is stopped")
        return DONE
    code = _report(options, reply, "stopped", quiet_success=True)
    if code != DONE:
        return code
    if not _wait_until(lambda: not _answers(options) and not options.keeper_lives()):
        options.printer.error(
            "all daemons are stopped, but the supervisor has not ended; look at it "
            f"with: {options.command} doctor"
        )
        return TIMED_OUT
    if not options.json:
        options.printer.note("everything is stopped, and the supervisor has ended")
    return DONE


def _answers(options: Options) -> bool:
    try:
        options.client.request("GET", "/v1/version", timeout=1.0)
    except DaemonError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], patience: float = _PATIENCE) -> bool:
    """This asks again and again: the end of a process that isn't ours tells nobody."""
    deadline = time.monotonic() + patience
    pause = 0.002
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return True


def _take_over_if_alone(options: Options) -> None:
    """This starts a supervisor when daemons run without one: they need one to stop.

    Raises:
        NoSupervisor: Nothing of the project runs.
    """
    try:
        options.client.request("GET", "/v1/version", timeout=5.0)
    except NoSupervisor:
        if not options.keeper_lives():
            raise options.no_supervisor() from None
        from duende.core.control.charge import take_over

        options.printer.note(
            "the supervisor does not run, the daemons do; taking them over first"
        )
        take_over(options.paths, options.environ)


def _ask(
    options: Options,
    method: str,
    path: str,
    body: object,
    what: str,
    query: dict[str, object] | None = None,
) -> Reply:
    def show(waited: float) -> None:
        if waited >= 0.5:
            options.printer.progress(f"{what} … {duration_text(waited)}")

    def request() -> Reply:
        return options.client.request(
            method,
            path,
            body,
            query=query or {},
            timeout=None,
            while_waiting=show if options.printer.progress_is_shown else None,
        )

    try:
        try:
            reply = request()
        except NoSupervisor:
            if not options.keeper_lives():
                raise options.no_supervisor() from None
            _wait_until(lambda: _answers(options), _COMING_BACK)
            reply = request()
    except NoSupervisor:
        if not options.keeper_lives():
            raise options.no_supervisor() from None
        # Not 69, which says that no daemon runs.
        raise InvalidState(
            "the supervisor does not run, though daemons do",
            f"bring it back with: {options.up_command}",
        ) from None
    finally:
        options.printer.clear_progress()
    if not _outcomes(reply) and not reply.ok:
        raise error_of(reply)
    return reply


def _outcomes(reply: Reply) -> list[dict[str, object]]:
    found = reply.field("outcomes")
    return found if isinstance(found, list) else []


def _code_of(outcome: dict[str, object]) -> int:
    code = outcome.get("code")
    return code if isinstance(code, int) else exit_code_of(DaemonError(""))


def _report(
    options: Options, reply: Reply, done: str, *, quiet_success: bool = False
) -> int:
    outcomes = _outcomes(reply)
    if options.json:
        options.printer.data(json.dumps({"outcomes": outcomes}, indent=2))
    for outcome in outcomes:
        name, message = outcome.get("name"), outcome.get("message")
        if not outcome.get("ok"):
            options.printer.error(f"{name}: {message or outcome.get('state')}")
        elif not quiet_success and not options.json:
            options.printer.note(f"{name}: {message or done}")
    return worst([_code_of(outcome) for outcome in outcomes])
