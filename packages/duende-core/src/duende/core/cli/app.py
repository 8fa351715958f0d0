"""The command line in click: which verbs and flags there are, and their help.

What a verb does is in its own module, imported when it is run.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable
from typing import Any

import click

from duende.core.cli.exits import FAILED, USAGE, exit_code_of
from duende.core.cli.target import Options
from duende.core.errors import DaemonError

__all__ = ("run_app",)

LATER_VERBS = frozenset(
    {
        "health",
        "why",
        "apply",
        "scale",
        "top",
        "metrics",
        "trace",
        "export",
        "install",
        "uninstall",
        "upgrade",
    }
)
"""Verbs that are spoken for, and refused until they do what they say."""

_COMMON = (
    click.Option(["--file"], metavar="FILE", help="The configuration."),
    click.Option(["--project"], metavar="NAME", help="The project, by its name."),
    click.Option(
        ["--socket"], metavar="PATH", help="The control socket (DUENDE_SOCKET)."
    ),
    click.Option(["-q", "--quiet"], is_flag=True, help="Nothing but errors."),
    click.Option(["-v", "--verbose"], is_flag=True, help="Say more."),
    click.Option(["--no-color"], is_flag=True, help="No colours (NO_COLOR)."),
)
_FILE = click.Option(["-f", "--file"], metavar="FILE", help="The configuration.")
_OUTPUT = click.Option(
    ["-o", "--output"],
    type=click.Choice(["table", "json"]),
    help="How data is printed.",
)
_COMMON_NAMES = ("file", "project", "socket", "quiet", "verbose", "no_color", "output")


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from duende.core.config.units import parse_duration

        try:
            return parse_duration(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


_DURATION = _Duration()


class _Verb(click.Command):
    """This is a verb: it has the common flags, and gives them to its function."""

    def __init__(self, *args: Any, output: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {param.name for param in self.params}
        self.params += [param for param in _COMMON if param.name not in taken]
        if output:
            self.params.append(_OUTPUT)

    def invoke(self, ctx: click.Context) -> Any:
        options: Options = ctx.obj
        for name in _COMMON_NAMES:
            value = ctx.params.pop(name, None)
            if value:
                setattr(options, name, value)
        if options.output == "json" and _OUTPUT not in self.params:
            raise click.UsageError(f"{self.name} has no JSON output", ctx)
        assert self.callback is not None  # every verb has one
        return self.callback(options, **ctx.params)


class _Group(click.Group):
    """This is `duende`: it knows later verbs and suggests near ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb = args[0]
        if verb in LATER_VERBS:
            raise click.UsageError(f"{verb} is not supported yet", ctx)
        if verb not in self.commands:
            near = difflib.get_close_matches(verb, self.commands, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "; see duende --help"
            raise click.UsageError(f"there is no verb {verb!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


class _Run(_Verb):
    """This is `run`, whose words after `--` are a command, or arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        command: list[str] = []
        if "--" in args:
            at = args.index("--")
            args, command = args[:at], args[at + 1 :]
        rest = super().parse_args(ctx, args)
        ctx.params["command"] = tuple(command)
        return rest


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[_FILE, *_COMMON[1:], _OUTPUT],
)
@click.version_option(
    None, "--version", package_name="duende-core", message="duende %(version)s"
)
@click.pass_context
def app(ctx: click.Context, /, **common: Any) -> None:
    """Daemons, started, watched and restarted, from one file."""
    options = ctx.obj = Options()
    for name in _COMMON_NAMES:
        if common.get(name):
            setattr(options, name, common[name])


def _verb(
    name: str, *params: click.Parameter, cls: type[_Verb] = _Verb, output: bool = True
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    def add(function: Callable[..., int]) -> Callable[..., int]:
        command = cls(
            name,
            callback=function,
            params=list(params),
            help=function.__doc__,
            output=output,
        )
        app.add_command(command)
        return function

    return add


def _names(required: bool = False) -> click.Argument:
    return click.Argument(["names"], nargs=-1, required=required, metavar="[NAME]...")


def _flag(*declarations: str, help: str) -> click.Option:
    return click.Option(list(declarations), is_flag=True, help=help)


def _duration(declaration: str, help: str) -> click.Option:
    return click.Option([declaration], type=_DURATION, metavar="D", help=help)


_ALL = ("--all", "all_")


@_verb("init", output=False)
def init(options: Options) -> int:
    """Write a small commented duende.toml, from what is here."""
    from duende.core.cli.initializing import init_project

    return init_project(options)


@_verb(
    "run",
    click.Argument(["target"], required=False),
    cls=_Run,
    output=False,
)
def run(options: Options, target: str | None, command: tuple[str, ...]) -> int:
    """Run one daemon in the foreground: module:Class, or a command after --."""
    from duende.core.cli.running import run_command, run_target

    if target is not None:
        run_target(options, target, command)
    if not command:
        raise click.UsageError("name a target: module:Class, or -- and a command")
    return run_command(options, command)


@_verb(
    "up",
    _FILE,
    _flag("-d", "--detach", help="In the background; returns when all are ready."),
    _names(),
)
def up(options: Options, names: tuple[str, ...], detach: bool) -> int:
    """Start the supervisor and the daemons."""
    from duende.core.cli.starting import start_up

    if options.json and not detach:
        raise click.UsageError("up has JSON output with -d only")
    return start_up(options, names, detach=detach)


@_verb("down", _duration("--timeout", "Then what is left is killed."))
def down(options: Options, timeout: float | None) -> int:
    """Stop every daemon, in reverse order, then the supervisor."""
    from duende.core.cli.acting import shut_down

    return shut_down(options, timeout)


@_verb("ps", _flag("--watch", help="Again every second."), _names())
def ps(options: Options, names: tuple[str, ...], watch: bool) -> int:
    """List the daemons."""
    from duende.core.cli.reading import show_daemons

    return show_daemons(options, list(names), watch=watch)


@_verb("status", _names())
def status(options: Options, names: tuple[str, ...]) -> int:
    """List the daemons, or show some in detail; the exit code tells if they are up."""
    from duende.core.cli.reading import show_status

    return show_status(options, list(names))


@_verb("ls")
def ls(options: Options) -> int:
    """List this user's projects on this machine."""
    from duende.core.cli.reading import show_projects

    return show_projects(options)


def _add_command(verb: str, text: str) -> None:
    def command(
        options: Options,
        names: tuple[str, ...],
        all_: bool,
        no_wait: bool,
        timeout: float | None,
    ) -> int:
        from duende.core.cli.acting import command_daemons

        _need_names(names, all_)
        return command_daemons(
            options, verb, names, all_=all_, wait=not no_wait, timeout=timeout
        )

    command.__doc__ = text
    _verb(
        verb,
        _flag(*_ALL, help="Every daemon."),
        _flag("--no-wait", help="Return at once."),
        _duration("--timeout", "How long to wait at most."),
        _names(),
    )(command)


_add_command("start", "Start daemons, and wait until they are ready.")
_add_command("stop", "Stop daemons; they stay stopped until started again.")
_add_command("restart", "Stop daemons and start them again.")
_add_command("reload", "Have daemons read their configuration again.")
_add_command("pause", "Stop daemons where they are (SIGSTOP).")
_add_command("resume", "Let paused daemons go on (SIGCONT).")


def _need_names(names: tuple[str, ...], all_: bool) -> None:
    if not names and not all_:
        raise click.UsageError("name a daemon, or say --all")
    if names and all_:
        raise click.UsageError("name daemons or say --all, not both")


@_verb(
    "signal",
    click.Argument(["signal_"], metavar="SIGNAL"),
    _flag(*_ALL, help="Every daemon."),
    _names(),
)
def signal(options: Options, signal_: str, names: tuple[str, ...], all_: bool) -> int:
    """Send a signal, by name or number, to the main process of daemons."""
    from duende.core.cli.acting import signal_daemons

    _need_names(names, all_)
    return signal_daemons(options, signal_, names, all_=all_)


@_verb(
    "logs",
    _flag("-f", "--follow", help="Go on with what is written from now on."),
    click.Option(
        ["-n", "--lines"],
        type=click.IntRange(min=0),
        metavar="N",
        help="Only the last N lines of all together (default: all; 100 with -f).",
    ),
    _duration("--since", "Only what is not older, such as 10m."),
    _flag("-t", "--timestamps", help="With the time of each line."),
    _names(),
)
def logs(
    options: Options,
    names: tuple[str, ...],
    follow: bool,
    lines: int | None,
    since: float | None,
    timestamps: bool,
) -> int:
    """Show captured output, merged by time."""
    from duende.core.cli.following import show_logs

    return show_logs(
        options,
        names,
        follow=follow,
        lines=lines,
        since=since,
        timestamps=timestamps,
    )


@_verb(
    "events",
    _flag("-f", "--follow", help="Go on with what happens from now on."),
    click.Option(
        ["--since"],
        metavar="D",
        help="Only what is not older, such as 10m; or from an event's number on.",
    ),
    _names(),
)
def events(
    options: Options, names: tuple[str, ...], follow: bool, since: str | None
) -> int:
    """Show what happened."""
    from duende.core.cli.following import show_events

    if since is not None and not since.isdigit():
        _DURATION.convert(since, None, None)
    return show_events(options, follow=follow, since=since, names=names)


@_verb(
    "wait",
    click.Option(
        ["--for", "state"],
        required=True,
        type=click.Choice(
            ["running", "ready", "healthy", "stopped", "completed", "failed"]
        ),
        help="What to wait for.",
    ),
    _duration("--timeout", "How long at most; then the exit code is 124."),
    _flag(*_ALL, help="Every daemon."),
    _names(),
)
def wait(
    options: Options,
    names: tuple[str, ...],
    all_: bool,
    state: str,
    timeout: float | None,
) -> int:
    """Wait until daemons are in a state."""
    from duende.core.cli.acting import wait_for

    _need_names(names, all_)
    return wait_for(options, names, all_=all_, state=state, timeout=timeout)


@_verb("check", _FILE, click.Argument(["path"], required=False, metavar="[FILE]"))
def check(options: Options, path: str | None) -> int:
    """Validate the file, and print the plan and the backoff schedule."""
    from duende.core.cli.checking import check_project

    if path is not None:
        options.file = path
    return check_project(options)


@_verb("schema")
def schema(options: Options) -> int:
    """Print the JSON Schema of duende.toml."""
    from duende.core.cli.checking import show_schema

    return show_schema(options)


@_verb("version")
def version(options: Options) -> int:
    """Print the version."""
    from duende.core.cli.reading import show_version

    return show_version(options)


@_verb("doctor")
def doctor(options: Options) -> int:
    """Look at this machine: what works here, and what is in the way."""
    from duende.core.cli.doctoring import examine

    return examine(options)


@_verb("platform")
def platform(options: Options) -> int:
    """Say where this runs, what limits it, and what can start daemons here."""
    from duende.core.cli.doctoring import show_platform

    return show_platform(options)


@_verb(
    "completion",
    click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"])),
    output=False,
)
def completion(options: Options, shell: str) -> int:
    """Print a completion script for a shell."""
    from duende.core.cli.completing import render_completion

    flags = {name: _flags_of(command) for name, command in app.commands.items()}
    verbs = {
        name: command.get_short_help_str() for name, command in app.commands.items()
    }
    options.printer.data(
        render_completion(shell, verbs, flags, _flags_of(app)).rstrip("\n")
    )
    return 0


def _flags_of(command: click.Command) -> list[str]:
    found: list[str] = []
    for param in command.params:
        if isinstance(param, click.Option):
            found += [*param.opts, *param.secondary_opts]
    return [*found, "--help"]


def run_app(arguments: list[str]) -> int:
    """This runs a command line and returns its exit code; errors become messages."""
    options: Options | None = None
    try:
        with app.make_context("duende", list(arguments)) as ctx:
            result = app.invoke(ctx)
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as err:
        return err.exit_code
    except click.Abort:
        return 130
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except DaemonError as err:
        options = options or Options()
        options.printer.refusal(err)
        if "-v" in arguments or "--verbose" in arguments:
            traceback.print_exc()
        return exit_code_of(err)
    except (KeyboardInterrupt, BrokenPipeError, SystemExit):
        raise
    except Exception as err:
        if "-v" in arguments or "--verbose" in arguments:
            traceback.print_exc()
        printer = (options or Options()).printer
        printer.error(
            f"{type(err).__name__}: {err}; this is a fault in duende, "
            "-v shows where it comes from"
        )
        return FAILED


assert USAGE == click.UsageError.exit_code  # click's own errors keep our contract
