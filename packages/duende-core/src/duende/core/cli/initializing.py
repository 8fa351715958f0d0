"""The verb `init`: a small commented duende.toml, from what lies in the folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from duende.core.cli.exits import DONE, FAILED
from duende.core.cli.target import Options
from duende.core.errors import PermissionDenied, PlatformError

__all__ = ("init_project", "render_initial")

_HEADER = """\
# What runs here, and how. Try `duende check`, then `duende up`.
# Every key: `duende schema`, and the reference in the documentation.
"""

_SAMPLE = """
[daemon.hello]
command = "sh -c 'while true; do date; sleep 1; done'"
# entry = "package.module:Class"       # or a Daemon class instead of a command
# ready = "http://127.0.0.1:8000/"     # when is it up: http://, tcp://, unix:, notify
# depends_on = ["db"]                  # what has to be ready before it starts
# restart = "always"                   # never, always, on-failure, unless-stopped
# env = { PORT = 8000 }
"""

_PROCFILE_LINE = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*:\s*(.+?)\s*$")
_NEEDS_SHELL = re.compile(r"[|&;<>`$*?~()]|^\s*\w+=")
_APP_FILES = ("app.py", "main.py", "asgi.py", "wsgi.py")


def init_project(options: Options) -> int:
    """This is `duende init`."""
    target = Path(options.file) if options.file else Path("duende.toml")
    text = render_initial(target.parent)
    try:
        # "x": never over a file that is there, also when two do it at once.
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        options.printer.error(f"{target} exists already, and is left as it is")
        return FAILED
    except PermissionError as err:
        raise PermissionDenied(
            f"{target} can't be written: {err.strerror}", "choose another folder"
        ) from err
    except OSError as err:
        raise PlatformError(f"{target} can't be written: {err.strerror}") from err
    options.printer.note(f"{target} is written; next: duende check, then duende up")
    return DONE


def render_initial(folder: Path) -> str:
    """This writes the file from a Procfile, from an app:app, or as a sample."""
    procfile = folder / "Procfile"
    if procfile.is_file():
        daemons = procfile_commands(procfile.read_text("utf-8", "replace"))
        if daemons:
            return _HEADER + "# Made from the Procfile.\n" + _render_commands(daemons)
    for name in _APP_FILES:
        found = _application(folder / name)
        if found is not None:
            return _HEADER + _render_application(name.removesuffix(".py"), found)
    return _HEADER + _SAMPLE


def procfile_commands(text: str) -> dict[str, str]:
    """This reads `name: command` lines; names become ours, commands stay as they are."""
    commands = {}
    for line in text.splitlines():
        match = _PROCFILE_LINE.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        name = match[1].lower().strip("_-")[:63]
        if name:
            commands[name] = match[2]
    return commands


def _render_commands(commands: dict[str, str]) -> str:
    parts = []
    for name, command in commands.items():
        if _NEEDS_SHELL.search(command):
            words = ", ".join(map(_quoted, ("sh", "-c", f"exec {command}")))
            if re.search(r"[|&;]", command):
                words = ", ".join(map(_quoted, ("sh", "-c", command)))
            value = f"[{words}]  # there is no shell unless one is asked for"
        else:
            value = _quoted(command)
        parts.append(f"\n[daemon.{name}]\ncommand = {value}\n")
    return "".join(parts)


def _quoted(text: str) -> str:
    """This renders a TOML basic string (toml.io, v1.0.0, "String")."""
    escapes = {"\\": "\\\\", '"': '\\"', "\t": "\\t"}
    body = "".join(
        escapes.get(c, c if c.isprintable() else f"\\u{ord(c):04X}") for c in text
    )
    return f'"{body}"'


def _application(file: Path) -> tuple[str, str] | None:
    """This finds a Daemon class, or an `app`, in a file, without importing it."""
    try:
        tree = ast.parse(file.read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            (isinstance(base, ast.Name) and base.id == "Daemon")
            or (isinstance(base, ast.Attribute) and base.attr == "Daemon")
            for base in node.bases
        ):
            return "entry", node.name
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ("app", "application"):
                return "app", target.id
    return None


def _render_application(module: str, found: tuple[str, str]) -> str:
    kind, name = found
    if kind == "entry":
        daemon = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
        return f'\n[daemon.{daemon}]\nentry = "{module}:{name}"\n'
    server = "gunicorn" if module == "wsgi" else "uvicorn"
    return (
        "\n[daemon.web]\n"
        f'command = "{server} {module}:{name}"\n'
        'ready = "tcp://127.0.0.1:8000"\n'
        'restart = "always"\n'
    )
