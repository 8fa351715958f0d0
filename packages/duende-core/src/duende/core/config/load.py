"""From a file to a `ProjectConfig`, or to the list of everything wrong with it.

The order: read the text, parse the TOML, write out the short forms, merge
`[defaults]` under each daemon, structure the tables with cattrs (strictly, see
`config.forms`), and then look at what daemons say of each other (`config.checks`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from cattrs import (
    BaseValidationError,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
)
from cattrs.gen import make_dict_structure_fn, override

from duende.core.config import checks
from duende.core.config.forms import Form, Problems, form_of, shown
from duende.core.config.merge import expand, merge_defaults, written_path
from duende.core.config.model import (
    ContainerConfig,
    DaemonConfig,
    GroupConfig,
    HealthConfig,
    Intensity,
    LogConfig,
    ProjectConfig,
    ReadyConfig,
    ReloadConfig,
    ResourcesConfig,
    RestartConfig,
    StopConfig,
    SupervisorConfig,
    SystemdConfig,
)
from duende.core.config.source import KeyPath, Source, read_source
from duende.core.config.values import is_name, nearest
from duende.core.errors import ConfigError
from duende.core.types import BackoffConfig

__all__ = ("TABLES", "load_project")

T = TypeVar("T")
Report = Callable[[KeyPath, str], None]

TABLES: Final = (
    BackoffConfig,
    Intensity,
    RestartConfig,
    ReadyConfig,
    HealthConfig,
    StopConfig,
    ReloadConfig,
    ResourcesConfig,
    LogConfig,
    ContainerConfig,
    SystemdConfig,
    DaemonConfig,
    SupervisorConfig,
    GroupConfig,
)
"""The attrs classes that are tables of a file."""

SECTIONS: Final = ("supervisor", "defaults", "daemon", "group")

_PLACEHOLDER: Final = ["true"]
"""Stands for a command that is missing, so that the rest can be judged as well."""


def load_project(file: Path) -> ProjectConfig:
    """This reads a duende.toml, or the `[tool.duende]` of a pyproject.toml.

    Raises:
        ConfigError: Something is wrong; `problems` has all that is, a line each,
            as `FILE:LINE: key.path: text`.
    """
    source, document = read_source(file)
    found: dict[tuple[KeyPath, str], None] = {}

    def report(path: KeyPath, text: str) -> None:
        found.setdefault((path, text))

    project = _load_document(document, source, report)
    if project is not None and not found:
        return project
    # By line, and in the order of finding where the line is the same or unknown.
    ordered = sorted(found, key=lambda problem: source.line(problem[0]) or 0)
    problems = tuple(source.problem(path, text) for path, text in ordered)
    raise ConfigError(f"{file} has {len(problems)} problem(s)", problems=problems)


def _load_document(
    document: Mapping[str, Any], source: Source, report: Report
) -> ProjectConfig | None:
    for key in document:
        if key not in SECTIONS:
            report((key,), f"unknown key{nearest(key, SECTIONS)}")
    sections = {}
    for section in SECTIONS:
        value = document.get(section, {})
        if not isinstance(value, dict):
            report((section,), f"expected a table, not {shown(value)}")
            value = {}
        sections[section] = value
    supervisor = _structure(
        sections["supervisor"], SupervisorConfig, ("supervisor",), report
    )
    groups = {
        name: _structure(table, GroupConfig, ("group", name), report)
        for name, table in _named_tables("group", sections["group"], report)
    }
    tables = dict(_named_tables("daemon", sections["daemon"], report))
    defaults = sections["defaults"]
    if defaults:
        _check_defaults(defaults, report)
    known: dict[str, DaemonConfig] = {}
    edges: dict[str, tuple[str, ...]] = {}
    for name, own in tables.items():
        table = merge_defaults(name, expand(own), expand(defaults))
        targets = table.get("depends_on")
        edges[name] = tuple(targets) if isinstance(targets, dict) else ()
        daemon = _load_daemon(name, table, own, defaults, report)
        if daemon is not None:
            known[name] = daemon
    checks.check_edges(edges, tuple(sections["daemon"]), report)
    checks.check_promises(known, report)
    checks.check_groups(known, tuple(sections["group"]), report)
    checks.check_instances(known, report)
    if supervisor is None or len(known) < len(tables) or None in groups.values():
        return None
    return ProjectConfig(
        supervisor=supervisor,
        daemons=known,
        groups={name: group for name, group in groups.items() if group is not None},
        source=source,
    )


def _named_tables(
    section: str, tables: Mapping[str, Any], report: Report
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, table in tables.items():
        if not is_name(name):
            report(
                (section, name),
                f"{name!r} can't be a name; use 1 to 63 of a-z, 0-9, '-' and '_', "
                "beginning with a letter or digit",
            )
        elif not isinstance(table, dict):
            hint = (
                f"; write [{section}.NAME] and then {name} = …"
                if name in {field.name for field in attrs.fields(DaemonConfig)}
                else ""
            )
            report((section, name), f"expected a table, not {shown(table)}{hint}")
        else:
            yield name, table


def _check_defaults(defaults: dict[str, Any], report: Report) -> None:
    """This judges `[defaults]` by itself, once, and not under each daemon again."""
    table = expand(defaults)
    if "name" in table:
        report(("defaults", "name"), "unknown key")
        del table["name"]
    if "command" not in table and "entry" not in table:
        table["command"] = _PLACEHOLDER
    elif "command" in table and "entry" in table:
        report(("defaults",), "needs at most one of command and entry")
        del table["entry"]

    def report_default(path: KeyPath, text: str) -> None:
        report(("defaults", *(written_path(defaults, path) or path)), text)

    _structure({"name": "defaults", **table}, DaemonConfig, (), report_default)


def _load_daemon(
    name: str,
    table: dict[str, Any],
    own: dict[str, Any],
    defaults: dict[str, Any],
    report: Report,
) -> DaemonConfig | None:
    """This structures one daemon; `table` is `own` with `defaults` merged under it."""
    here: KeyPath = ("daemon", name)
    complete = True

    def report_daemon(path: KeyPath, text: str) -> None:
        nonlocal complete
        complete = False
        written = written_path(own, path)
        if written is None and written_path(defaults, path) is not None:
            # It came from [defaults], and was reported there.
            return
        report((*here, *(path if written is None else written)), text)

    if "name" in own:
        report_daemon(("name",), "unknown key; the name is the table's")
    table.pop("name", None)
    both = "command" in table and "entry" in table
    if both or not ("command" in table or "entry" in table):
        which = "not both" if both else "and has neither"
        report_daemon((), f"needs exactly one of command and entry, {which}")
        table.pop("entry", None)
        table.setdefault("command", _PLACEHOLDER)
    else:
        checks.check_entry_only(own, table, report_daemon)
    checks.complete_kinds(own, table, report_daemon)
    daemon = _structure({"name": name, **table}, DaemonConfig, (), report_daemon)
    return daemon if complete else None


def _structure(
    table: Mapping[str, Any], kind: type[T], path: KeyPath, report: Report
) -> T | None:
    try:
        return _converter().structure(table, kind)
    except (BaseValidationError, ValueError, TypeError) as err:
        for sub_path, text in _walk(err, ()):
            report((*path, *sub_path), text)
        return None


@functools.cache
def _converter() -> Converter:
    """This makes the converter, whose hooks are the forms of the model's fields."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    for table in TABLES:
        # Any, since mypy can't know that no field is called like an option.
        hooks: dict[str, Any] = {
            field.name: override(
                struct_hook=_field_hook(field, form_of(table, field), converter)
            )
            for field in attrs.fields(table)
        }
        converter.register_structure_hook(
            table,
            make_dict_structure_fn(
                table, converter, _cattrs_forbid_extra_keys=True, **hooks
            ),
        )
    return converter


def _field_hook(
    field: attrs.Attribute[Any], form: Form, converter: Converter
) -> Callable[[Any, Any], Any]:
    """This parses and validates one field alone, so that no problem hides another.

    attrs runs validators only once all fields of a class are there.
    """

    def structure(value: object, _: object) -> object:
        parsed = form.parse(value)
        if form.nested is not None:
            return converter.structure(parsed, form.nested)
        if field.validator is not None:
            field.validator(None, field, parsed)
        return parsed

    return structure


def _walk(err: Exception, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """This flattens cattrs' tree of errors into (path, text)."""
    if isinstance(err, ClassValidationError):
        placed, unplaced = err.group_exceptions()
        for inner, note in placed:
            yield from _walk(inner, (*path, note.name))
        for inner in unplaced:
            yield from _walk(inner, path)
    elif isinstance(err, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(err.cl) if field.name != "name"]
        for key in sorted(err.extra_fields):
            yield (*path, key), f"unknown key{nearest(key, known)}"
    elif isinstance(err, Problems):
        for sub_path, text in err.found:
            yield (*path, *sub_path), text
    elif isinstance(err, KeyError):
        missing = str(err.args[0])
        yield (
            path if path and path[-1] == missing else (*path, missing),
            "is missing",
        )
    else:
        text = str(err)
        # A validator's text begins with the field's name, which the path has said.
        yield path, text.removeprefix(f"{path[-1]} ") if path else text
