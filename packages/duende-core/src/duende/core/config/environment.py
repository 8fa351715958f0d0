"""A daemon's environment: what is inherited, what files add, what duende adds.

The order is: inherited, then what follows from `user`, then env_file in turn, then
env, then duende's own variables. No value is ever shown in a message.

An env file has a variable a line, `NAME=VALUE`, in UTF-8:

- empty lines and lines that begin with `#` are skipped, and so is `export ` in front;
- a value without quotes ends before ` #`, and loses the blanks around it;
- between single quotes, everything is taken as it is;
- between double quotes, `\\n`, `\\r`, `\\t`, `\\"`, `\\$` and `\\\\` are replaced;
- variables in values are not, and a value ends with its line.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from duende.core.config.accounts import Account
from duende.core.config.model import DaemonConfig
from duende.core.config.values import MAX_STRING, variable_problem
from duende.core.errors import ConfigError

__all__ = ("build_environment", "check_strings", "parse_env_file")

BASE_VARIABLES: Final = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
)
"""What is inherited without being asked for (contract, section 3)."""

_NEVER: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "MAINPID",
    "DUENDE_RUNNER",
)
"""Meant for duende itself by what started it; a daemon would misunderstand them."""

_LINE: Final = re.compile(
    r"(?:export[ \t]+)?(?P<name>[^\s=#'\"][^\s=]*)[ \t]*=[ \t]*(?P<value>.*)", re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "$": "$", "\\": "\\"}
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?', re.DOTALL)
_SINGLE: Final = re.compile(r"'([^']*)'[ \t]*(?:#.*)?", re.DOTALL)


def build_environment(
    config: DaemonConfig,
    *,
    base_dir: Path,
    environ: Mapping[str, str],
    account: Account,
    own: Mapping[str, str],
    where: str,
) -> dict[str, str]:
    """This puts the environment of one start together.

    Raises:
        ConfigError: An env file is missing or wrong, or a value can't be passed on.
    """
    env = _inherited(config.inherit_env, environ)
    env.update(account.variables)
    for name in config.env_file:
        env.update(_read_env_file(base_dir / os.path.expanduser(name), where))
    env.update(config.env)
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.update(own)
    return env


def _inherited(
    wanted: tuple[str, ...] | bool, environ: Mapping[str, str]
) -> dict[str, str]:
    if wanted is False:
        return {}
    if wanted is True:
        return {name: text for name, text in environ.items() if name not in _NEVER}
    return dict(_chosen(wanted, tuple(environ.items())))


# A thousand instances inherit the same: looking once is a quarter of their start.
@functools.lru_cache(maxsize=16)
def _chosen(
    wanted: tuple[str, ...], environ: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    patterns = [*BASE_VARIABLES, *wanted]
    exact = {pattern for pattern in patterns if not _is_glob(pattern)}
    globs = [pattern for pattern in patterns if _is_glob(pattern)]
    return tuple(
        (name, text)
        for name, text in environ
        if name not in _NEVER
        and (
            name in exact
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in globs)
        )
    )


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def _read_env_file(path: Path, where: str) -> dict[str, str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ConfigError(
            f"{where}: env_file {path} is not UTF-8 (byte {err.start})",
            "save it as UTF-8",
        ) from err
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise ConfigError(
            f"{where}: env_file {path} can't be read: {reason}",
            "create it, or remove it from env_file",
        ) from err
    return parse_env_file(text, str(path))


def parse_env_file(text: str, file: str) -> dict[str, str]:
    """This reads the text of an env file (the format is at the top of this module).

    Raises:
        ConfigError: Lines are wrong; `problems` has them all.
    """
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            problems.append(f"{file}:{number}: is no NAME=VALUE")
            continue
        name = match["name"]
        value = _unquote(match["value"])
        if value is None:
            problems.append(f"{file}:{number}: {name}: the quotes don't match")
            continue
        problem = variable_problem(name, value)
        if problem is not None:
            problems.append(f"{file}:{number}: {problem}")
        found[name] = value
    if problems:
        raise ConfigError(f"{file} is no env file", problems=tuple(problems))
    return found


def _unquote(text: str) -> str | None:
    if text.startswith("'"):
        single = _SINGLE.fullmatch(text)
        return None if single is None else single[1]
    if text.startswith('"'):
        double = _DOUBLE.fullmatch(text)
        if double is None:
            return None
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), double[1])
    if text.startswith("#"):
        return ""
    return re.split(r"[ \t]#", text, maxsplit=1)[0].rstrip()


def check_strings(argv: Sequence[str], env: Mapping[str, str], where: str) -> None:
    """This refuses what execve would refuse, with the name of what is too long.

    Raises:
        ConfigError: A NUL character, one text too long, or all together too long.
    """
    total = 0
    for name, text in env.items():
        problem = variable_problem(name, text)
        if problem is not None:
            raise ConfigError(f"{where}: env {problem}")
        total += len(name) + len(text) + 2
    for argument in argv:
        if "\0" in argument:
            raise ConfigError(f"{where}: an argument has a NUL character in it")
        length = len(os.fsencode(argument)) + 1
        if length > MAX_STRING:
            raise ConfigError(
                f"{where}: an argument has {length} bytes; the kernel takes "
                f"{MAX_STRING} (execve(2))",
                "pass a file instead",
            )
        total += length
    limit = os.sysconf("SC_ARG_MAX")
    if 0 < limit < total:
        raise ConfigError(
            f"{where}: its arguments and environment have {total} bytes; the kernel "
            f"takes {limit} (execve(2))",
            "pass files instead, or inherit less",
        )
