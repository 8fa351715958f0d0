"""What each request does: the supervisor is asked, its answer becomes JSON."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from typing import Any, final

import anyio
import attrs

from duende.core.config.units import parse_duration
from duende.core.config.values import signal_number as number_of
from duende.core.control.api import COMMAND_VERBS, Outcome, SupervisorApi
from duende.core.control.http import HttpError, Limits, Request, error_body
from duende.core.control.routes import Route
from duende.core.errors import (
    AlreadyRunning,
    ConfigError,
    DaemonError,
    InvalidState,
    NotFound,
    NotSupported,
    PermissionDenied,
    ShutdownTimeout,
)

__all__ = ("Answer", "answer_now", "answer_waiting", "http_error")

WAIT_STATES = ("running", "ready", "healthy", "stopped", "completed", "failed")
"""What `wait --for` may name (contract, section 4)."""

_STATUS_OF_ERROR: tuple[tuple[type[DaemonError], int], ...] = (
    (NotFound, 404),
    (InvalidState, 409),
    (AlreadyRunning, 409),
    (ConfigError, 400),
    (PermissionDenied, 403),
    (NotSupported, 501),
    (ShutdownTimeout, 504),
)
_STATUS_OF_CODE = {0: 200, 1: 409, 2: 400, 3: 409, 4: 404, 77: 403, 124: 504}


@final
@attrs.frozen
class Answer:
    """This is a status and the JSON that goes with it."""

    status: int
    body: object


def http_error(err: DaemonError) -> HttpError:
    """This gives an error of ours the HTTP status that says the same."""
    for kind, status in _STATUS_OF_ERROR:
        if isinstance(err, kind):
            return HttpError(status, err.what, err.hint)
    return HttpError(500, err.what, err.hint)


def answer_now(api: SupervisorApi, route: Route, request: Request) -> Answer | None:
    """This answers what needs no waiting; None for everything else."""
    match route.action:
        case "overview":
            return Answer(200, api.overview())
        case "detail":
            assert route.name is not None  # the route has one
            return Answer(200, api.detail(route.name))
        case "version":
            return Answer(200, _version())
        case _:
            return None


@functools.cache
def _version() -> dict[str, object]:
    # Not from the overview: this is how one asks whether anybody is there at all.
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("duende-core")
    except PackageNotFoundError:
        installed = "unknown"
    return {"api": "v1", "version": installed, "pid": os.getpid()}


async def answer_waiting(
    api: SupervisorApi, route: Route, request: Request, limits: Limits, state: str
) -> Answer:
    """This does what was asked and waits for it, no longer than its deadline."""
    match route.action:
        case "command":
            return await _command(api, route, request, limits)
        case "signal":
            body = request.json()
            number = signal_number(body.get("signal"))
            assert route.name is not None  # the route has one
            names = api.resolve([route.name])
            with anyio.fail_after(limits.quick):
                return _outcomes(await api.signal(number, names))
        case "wait":
            names = _names(api, _texts(request, "name"), _flag(request, "all"))
            awaited = _text(request, "for") or ""
            timeout = _seconds(_text(request, "timeout"), "timeout")
            return await _wait(api, names, awaited, timeout, limits)
        case "flush":
            return await _flush(api, request.json(), limits, state)
        case "shutdown":
            timeout = _timeout(request.json(), request)
            with _deadline(timeout, limits):
                return _outcomes(await api.shutdown(timeout))
        case _:
            raise HttpError(404, f"there is no action {route.action}")


async def _command(
    api: SupervisorApi, route: Route, request: Request, limits: Limits
) -> Answer:
    body = request.json()
    verb = route.verb or body.get("verb")
    timeout = _timeout(body, request)
    if route.name is not None:
        names = api.resolve([route.name])
    else:
        names = _names(api, _string_list(body, "names"), _boolean(body, "all", False))
    if verb == "signal":
        number = signal_number(body.get("signal"))
        with anyio.fail_after(limits.quick):
            return _outcomes(await api.signal(number, names))
    if verb not in COMMAND_VERBS:
        raise HttpError(
            400, f"{verb!r} is no command", f"use one of {', '.join(COMMAND_VERBS)}"
        )
    wait = _boolean(body, "wait", _flag(request, "wait", True))
    with _deadline(timeout, limits):
        outcomes = await api.command(verb, names, wait=wait, timeout=timeout)
    return _outcomes(outcomes, good=200 if wait else 202)


async def _wait(
    api: SupervisorApi,
    names: Sequence[str],
    state: str,
    timeout: float | None,
    limits: Limits,
) -> Answer:
    if state not in WAIT_STATES:
        raise HttpError(
            400,
            f"{state!r} can't be waited for",
            f"use one of {', '.join(WAIT_STATES)}",
        )
    bound = limits.longest_wait if timeout is None else timeout
    with _deadline(bound, limits):
        return _outcomes(await api.wait(names, state, bound))


async def _flush(
    api: SupervisorApi, body: dict[str, Any], limits: Limits, state: str
) -> Answer:
    names = _string_list(body, "names")
    chosen = api.resolve(names, all=not names)
    with anyio.move_on_after(limits.quick) as scope:
        await api.flush_logs(chosen)
    paths = api.log_paths()
    return Answer(
        200,
        {
            "paths": {name: paths[name] for name in chosen if name in paths},
            "state": state,
            "flushed": not scope.cancelled_caught,
        },
    )


def _deadline(timeout: float | None, limits: Limits) -> Any:
    # The supervisor keeps to the timeout itself and says how far it came; this is
    # for one that does not.
    bound = limits.longest_wait if timeout is None else timeout
    return anyio.fail_after(bound + limits.quick)


def _outcomes(outcomes: Sequence[Outcome], good: int = 200) -> Answer:
    rendered = [outcome.to_json() for outcome in outcomes]
    bad = next((outcome for outcome in outcomes if not outcome.ok), None)
    if bad is None:
        return Answer(good, {"outcomes": rendered})
    message = f"{bad.name}: {bad.message}" if bad.message else f"{bad.name} failed"
    return Answer(
        _STATUS_OF_CODE.get(bad.code, 500),
        {**error_body(message), "outcomes": rendered},
    )


def _names(api: SupervisorApi, patterns: Sequence[str], all: bool) -> tuple[str, ...]:
    if not patterns and not all:
        raise HttpError(400, "no daemon is named", 'name one, or say "all": true')
    return api.resolve(patterns, all)


def signal_number(value: object) -> int:
    """This reads a signal by name or number, as `SIGUSR1`, `usr1`, `"10"` or `10`.

    Raises:
        HttpError: There is no such signal.
    """
    if isinstance(value, (str, int)):
        try:
            return number_of(value)
        except ValueError:
            pass
    raise HttpError(400, f"{value!r} is no signal", "use a name such as SIGUSR1")


def _timeout(body: dict[str, Any], request: Request) -> float | None:
    value = body.get("timeout")
    if value is None:
        value = _text(request, "timeout")
    return _seconds(value, "timeout")


def _seconds(value: object, key: str) -> float | None:
    if value is None:
        return None
    try:
        if not isinstance(value, (str, int, float)):
            raise ValueError(f"{value!r} is no duration")
        seconds = parse_duration(value)
    except ValueError as err:
        raise HttpError(400, f"{key}: {err}") from err
    if not math.isfinite(seconds) or seconds < 0:
        raise HttpError(400, f"{key}: {value!r} is no duration")
    return seconds


def _texts(request: Request, key: str) -> list[str]:
    return [part for part in request.query.get(key, []) if part]


def _text(request: Request, key: str) -> str | None:
    found = _texts(request, key)
    return found[-1] if found else None


def _flag(request: Request, key: str, default: bool = False) -> bool:
    values = request.query.get(key)
    if not values:
        return default
    match values[-1].lower():
        case "" | "1" | "true" | "yes":
            return True
        case "0" | "false" | "no":
            return False
        case other:
            raise HttpError(400, f"{key}: {other!r} is neither 1 nor 0")


def _boolean(body: dict[str, Any], key: str, default: bool) -> bool:
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise HttpError(400, f"{key}: {value!r} is neither true nor false")
    return value


def _string_list(body: dict[str, Any], key: str) -> list[str]:
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise HttpError(400, f"{key}: must be a list of texts")
    return value
