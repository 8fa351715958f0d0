"""Which path and method mean what: the table of the control API. Pure."""

from __future__ import annotations

from typing import final

import attrs

from duende.core.control.api import COMMAND_VERBS
from duende.core.control.http import HttpError

__all__ = ("Route", "find_route")


@final
@attrs.frozen
class Route:
    """This is what a request asks for: an action, and the daemon in the path."""

    action: str
    name: str | None = None
    verb: str | None = None


_FIXED: dict[str, dict[str, str]] = {
    "/v1/version": {"GET": "version"},
    "/v1/daemons": {"GET": "overview"},
    "/v1/commands": {"POST": "command"},
    "/v1/events": {"GET": "events"},
    "/v1/logs": {"GET": "logs"},
    "/v1/logs/flush": {"POST": "flush"},
    "/v1/logs/growth": {"GET": "growth"},
    "/v1/wait": {"GET": "wait"},
    "/v1/shutdown": {"POST": "shutdown"},
}
_LATER = frozenset({"/metrics", "/v1/metrics", "/v1/apply", "/v1/scale"})


def find_route(method: str, path: str) -> Route:
    """This reads a method and a decoded path.

    Raises:
        HttpError: 404, 405 (with Allow) or 501.
    """
    if path in _LATER:
        raise HttpError(
            501, f"{path} is not supported yet", "see the list of verbs in the README"
        )
    fixed = _FIXED.get(path)
    if fixed is not None:
        return Route(_allowed(method, path, fixed))
    parts = path.split("/")
    if parts[:3] == ["", "v1", "daemons"] and all(parts[3:]):
        match parts[3:]:
            case [name]:
                return Route(_allowed(method, path, {"GET": "detail"}), name)
            case [name, "signal"]:
                return Route(_allowed(method, path, {"POST": "signal"}), name)
            case [name, verb] if verb in COMMAND_VERBS:
                return Route(_allowed(method, path, {"POST": "command"}), name, verb)
            case _:
                pass
    raise HttpError(404, f"there is nothing at {path}", "GET /v1/daemons lists daemons")


def _allowed(method: str, path: str, methods: dict[str, str]) -> str:
    # What may be GET may be HEAD (RFC 9110, section 9.3.2); the body is left out.
    action = methods.get("GET" if method == "HEAD" else method)
    if action is None:
        allow = ", ".join(methods)
        raise HttpError(
            405,
            f"{path} can't be used with {method}",
            f"use {allow}",
            (("Allow", allow),),
        )
    return action
