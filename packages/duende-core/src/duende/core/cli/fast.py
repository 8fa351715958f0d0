"""The verbs that are read by hand: `ps`, `status`, `ls`, `version`, `up`.

They are typed often and by scripts, and take less time than importing click; and
what waits for `up` waits for every import before it. What is not understood at first
sight (`--help`, a wrong flag) is left to click.
"""

from __future__ import annotations

from duende.core.cli.target import Options

__all__ = ("run_fast",)

_VERBS = ("ps", "status", "ls", "version", "up")
_VALUES = {
    "--file": "file",
    "--socket": "socket",
    "--project": "project",
    "--output": "output",
    "-o": "output",
}
_SWITCHES = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--no-color": "no_color",
}


class _Line:
    """This is a command line as far as it was understood."""

    def __init__(self) -> None:
        self.options = Options()
        self.verb = ""
        self.names: list[str] = []
        self.watch = False
        self.detach = False


def run_fast(arguments: list[str]) -> int | None:
    """This runs one of these verbs; None when click has to look at the line."""
    line = _parse(arguments)
    if line is None or line.options.output not in ("table", "json"):
        return None
    from duende.core.cli.exits import exit_code_of
    from duende.core.errors import DaemonError

    try:
        if line.verb == "up":
            return _start_up(line)
        return _read(line)
    except DaemonError as err:
        line.options.printer.refusal(err)
        return exit_code_of(err)


def _start_up(line: _Line) -> int:
    from duende.core.cli.exits import FAILED
    from duende.core.cli.starting import start_up
    from duende.core.errors import DaemonError

    try:
        return start_up(line.options, line.names, detach=line.detach)
    except (DaemonError, BrokenPipeError):
        raise
    except Exception as err:
        if line.options.verbose:
            import traceback

            traceback.print_exc()
        line.options.printer.error(
            f"{type(err).__name__}: {err}; this is a fault in duende, "
            "-v shows where it comes from"
        )
        return FAILED


def _read(line: _Line) -> int:
    from duende.core.cli import reading

    match line.verb:
        case "version":
            return reading.show_version(line.options)
        case "ls":
            return reading.show_projects(line.options)
        case "status":
            return reading.show_status(line.options, line.names)
        case _:
            return reading.show_daemons(line.options, line.names, watch=line.watch)


def _parse(arguments: list[str]) -> _Line | None:
    line = _Line()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "-f" and line.verb in ("", "up"):
            word = "--file"
        flag, equals, value = word.partition("=")
        if flag in _VALUES and (flag.startswith("--") or not equals):
            if not equals:
                if not rest:
                    return None
                value = rest.pop(0)
            setattr(line.options, _VALUES[flag], value)
        elif word in _SWITCHES:
            setattr(line.options, _SWITCHES[word], True)
        elif word == "--watch" and line.verb == "ps":
            line.watch = True
        elif word in ("-d", "--detach") and line.verb == "up":
            line.detach = True
        elif word.startswith("-"):
            return None
        elif not line.verb:
            if word not in _VERBS:
                return None
            line.verb = word
        else:
            line.names.append(word)
    if not line.verb or (line.names and line.verb in ("ls", "version")):
        return None
    if line.verb == "up" and line.options.output == "json" and not line.detach:
        return None
    return line
