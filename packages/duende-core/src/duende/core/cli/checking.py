"""The verbs that look at the file alone: `check` and `schema`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from duende.core.cli.exits import BAD_CONFIG, DONE
from duende.core.cli.output import escaped
from duende.core.cli.target import Options
from duende.core.errors import ConfigError, SpawnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duende.core.config.model import DaemonConfig
    from duende.core.config.plan import DaemonSpec, Plan

__all__ = ("check_project", "show_schema")

_SHOWN_DELAYS = 8


def check_project(options: Options) -> int:
    """This is `duende check`: validate the file, then print what `up` would do."""
    from duende.core.config.load import load_project
    from duende.core.config.plan import longest_stop_chain, plan_project
    from duende.core.config.support import unsupported

    file = options.paths.file
    try:
        config = load_project(file)
        plan = plan_project(config)
    except ConfigError as err:
        if options.json:
            _print_invalid(options, err.problems or (str(err),))
        raise
    later = unsupported(config)
    problems: list[str] = []
    warnings = [f"{problem} (`up` refuses to start)" for problem in later]
    programs = {}
    for spec in plan.specs.values():
        try:
            programs[spec.name] = _program(options, spec, file)
        except ConfigError as err:
            problems += str(err).split("\n")
        except SpawnError as err:
            warnings.append(str(err))
    timeout = config.supervisor.shutdown_timeout
    stated = timeout is not None
    seconds = timeout if timeout is not None else longest_stop_chain(config)
    for warning in warnings:
        options.printer.note(f"warning: {warning}")
    if problems:
        if options.json:
            _print_invalid(options, problems)
        for problem in problems:
            options.printer.error(problem)
        return BAD_CONFIG
    if options.json:
        report = {
            "file": str(file),
            "project": options.paths.name,
            "valid": True,
            "warnings": warnings,
            "shutdown_timeout": seconds,
            "start_concurrency": config.supervisor.start_concurrency,
            "plan": [_as_json(spec, programs) for spec in plan.specs.values()],
        }
        options.printer.data(json.dumps(report, indent=2))
    else:
        options.printer.data(_as_text(options, plan, programs, seconds, stated=stated))
    return DONE


def _print_invalid(options: Options, problems: Sequence[str]) -> None:
    report = {
        "file": str(options.paths.file),
        "project": options.paths.name,
        "valid": False,
        "problems": list(problems),
    }
    options.printer.data(json.dumps(report, indent=2))


def _program(options: Options, spec: DaemonSpec, file: Path) -> list[str]:
    """This is the command line that would be executed, with the program's full path."""
    from duende.core.config.launch import render_launch

    launch = render_launch(
        spec,
        base_dir=file.parent,
        project=options.paths.name,
        run_id="check",
        environ=options.environ,
    )
    return [launch.path, *launch.argv[1:]]


def _as_json(spec: DaemonSpec, programs: dict[str, list[str]]) -> dict[str, object]:
    config = spec.config
    return {
        "name": spec.name,
        "enabled": config.enabled,
        "waits_for": {name: edge.until.value for name, edge in spec.depends_on.items()},
        "command": programs.get(spec.name),
        "entry": config.entry,
        "ready": config.readiness.kind,
        "ready_timeout": config.readiness.timeout,
        "restart": config.restart.policy.value,
        "max_retries": config.restart.max_retries,
        "backoff": [nominal for _, nominal, _ in _delays(config)],
        "backoff_jitter": config.restart.backoff.jitter,
        "stop_signal": config.stop.signal,
        "stop_timeout": config.stop.timeout,
    }


def _delays(config: DaemonConfig) -> list[tuple[float, float, float]]:
    from duende.core.config.plan import backoff_schedule

    retries = config.restart.max_retries
    count = _SHOWN_DELAYS if retries is None else min(retries, _SHOWN_DELAYS)
    return backoff_schedule(config.restart.backoff, count)


def _as_text(
    options: Options,
    plan: Plan,
    programs: dict[str, list[str]],
    shutdown_timeout: float,
    *,
    stated: bool,
) -> str:
    from duende.core.config.plan import start_waves
    from duende.core.config.units import format_duration

    origin = "" if stated else " (the longest chain of stops)"
    lines = [
        f"{escaped(str(options.paths.file))}: valid",
        (
            f"project {options.paths.name}, {len(plan.specs)} daemons, "
            f"shutdown timeout {format_duration(shutdown_timeout)}{origin}"
        ),
    ]
    for number, wave in enumerate(start_waves(plan), start=1):
        for name in wave:
            lines += ["", *_daemon_text(number, plan.specs[name], programs)]
    return "\n".join(lines)


def _daemon_text(
    step: int, spec: DaemonSpec, programs: dict[str, list[str]]
) -> list[str]:
    from duende.core.config.units import format_duration

    config = spec.config
    ready = config.readiness
    kind = "when started" if ready.kind == "started" else ready.kind
    if ready.kind != "started":
        kind += f", within {format_duration(ready.timeout)}"
    program = programs.get(spec.name)
    off = "" if config.enabled else " (not enabled: starts only when asked for)"
    facts = [
        (
            "waits for",
            ", ".join(f"{n} ({e.until.value})" for n, e in spec.depends_on.items())
            or "nothing",
        ),
        ("command", "not found" if program is None else shlex.join(program)),
        ("folder", os.path.normpath(config.working_dir)),
        ("ready", kind),
        ("restart", _restart_text(config)),
        (
            "stop",
            f"{config.stop.signal}, SIGKILL after {_text(config.stop.timeout)}",
        ),
    ]
    return [
        f"{step}. {spec.name}{off}",
        *(f"   {label.ljust(9)}  {escaped(text)}" for label, text in facts),
    ]


def _text(seconds: float) -> str:
    from duende.core.config.units import format_duration

    return format_duration(seconds)


def _restart_text(config: DaemonConfig) -> str:
    from duende.core.config.units import format_duration

    restart = config.restart
    if restart.policy.value == "never":
        return "never"
    delays = _delays(config)
    shown = ", ".join(format_duration(nominal) for _, nominal, _ in delays)
    retries = restart.max_retries
    if retries is None:
        shown += ", …"
    elif retries > len(delays):
        shown += f", … {retries} times in all"
    text = f"{restart.policy.value}, after {shown}"
    if restart.backoff.jitter:
        text += f" (each ± {restart.backoff.jitter:.0%})"
    if retries is not None:
        text += f", then failed after {retries} retries without a stable run"
    return text


def show_schema(options: Options) -> int:
    """This is `duende schema`: the JSON Schema of duende.toml."""
    from duende.core.config.schema import json_schema

    options.printer.data(json.dumps(json_schema(), indent=2))
    return DONE
