"""From what a person names (`module:Class`, a class, a function) to a Daemon class.

Every mistake on the way is a `ConfigError` that says what was found and what to do.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from duende.core.daemon import Daemon, kebab_name
from duende.core.errors import ConfigError

if TYPE_CHECKING:
    from duende.core.context import DaemonContext
    from duende.core.types import ExitReason

__all__ = ("Target", "create_daemon", "load_target")

Worker: TypeAlias = Callable[..., Awaitable[Any]]
Target: TypeAlias = "str | type[Daemon] | Worker"

TRACEBACK_LINES = 12
"""How much of a failed import's traceback is shown: the last frames say it all."""

_IMPORT_MACHINERY = ("importlib", "<frozen importlib", __file__)


class FunctionDaemon(Daemon):
    """This makes a daemon of an async function, with or without a context."""

    function: Worker
    takes_context: bool

    async def run(self, ctx: DaemonContext) -> ExitReason | None:
        """This calls the function."""
        call = type(self).function
        result = await (call(ctx) if type(self).takes_context else call())
        return cast("ExitReason | None", result)


def load_target(target: object) -> type[Daemon]:
    """This finds the Daemon class that a target means.

    Args:
        target: `package.module:Class`, `path/file.py:Class`, the same with an async
            function's name, a Daemon class, or an async function.

    Raises:
        ConfigError: It means none; the text says why and what to write.
    """
    if isinstance(target, str):
        module_name, colon, attribute = target.rpartition(":")
        if not colon or not module_name or not attribute:
            raise ConfigError(
                f"entry {target!r} names no class or function",
                f"write 'module:Class' or 'path/file.py:Class', for example "
                f"'{(target.strip(':') or 'app')}:Main'",
            )
        module = _load_module(module_name)
        return _as_daemon_class(_find(module, attribute, module_name), target)
    return _as_daemon_class(target, getattr(target, "__qualname__", repr(target)))


def create_daemon(kind: type[Daemon]) -> Daemon:
    """This makes the object, without arguments.

    Raises:
        ConfigError: The class can't be created without arguments.
    """
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise ConfigError(
            f"{kind.__module__}:{kind.__qualname__} can't be created without "
            f"arguments: {error}",
            "give its parameters defaults, or use settings",
        ) from None
    except ValueError:
        pass  # no signature to be had: the call itself will tell
    return kind()


def _load_module(name: str) -> ModuleType:
    is_path = name.endswith(".py") or "/" in name
    try:
        return _import_file(Path(name)) if is_path else importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not is_path and f"{name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"there is no module {missing!r}{_did_you_mean(name, _neighbours())}",
                f"it was looked for in {sys.path[0] or Path.cwd()} first, then on "
                "Python's path",
            ) from None
        raise ConfigError(
            f"module {name!r} does not import:\n{_last_lines(error)}"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(
            f"there is no file {str(path)!r} in {Path.cwd()}",
            "write the path relative to working_dir",
        )
    resolved = path.resolve()
    folder = str(resolved.parent)
    if folder not in sys.path:
        sys.path.insert(1, folder)  # after working_dir, for the file's own imports
    name = resolved.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(resolved):
            return known
        name = f"_duende_entry_{name}"  # must not hide an imported module
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{str(path)!r} is no Python file", "its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _neighbours() -> list[str]:
    """This lists what could have been meant: the modules in the path's first folder."""
    folder = Path(sys.path[0] or ".")
    try:
        return [
            entry.stem
            for entry in folder.iterdir()
            if entry.suffix == ".py" or (entry / "__init__.py").is_file()
        ]
    except OSError:
        return []


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _last_lines(error: BaseException) -> str:
    """This renders a failed import from the user's own code on, its last lines."""
    frames = error.__traceback__
    while frames is not None and any(
        mark in frames.tb_frame.f_code.co_filename for mark in _IMPORT_MACHINERY
    ):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    lines = text.rstrip().splitlines()
    if len(lines) > TRACEBACK_LINES:
        lines = ["  …", *lines[-TRACEBACK_LINES:]]
    return "\n".join(f"  {line}" for line in lines)


def _find(module: ModuleType, attribute: str, module_name: str) -> object:
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            candidates = _candidates(module)
            guess = _did_you_mean(attribute, [*candidates, *vars(module)])
            listed = ", ".join(candidates) or "no Daemon class and no async function"
            raise ConfigError(
                f"module {module_name!r} has no {attribute!r}{guess}",
                f"it has: {listed}",
            ) from None
    return found


def _candidates(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (
            (isinstance(value, type) and issubclass(value, Daemon))
            or inspect.iscoroutinefunction(value)
        )
    ]


def _as_daemon_class(found: object, label: str) -> type[Daemon]:
    if isinstance(found, type):
        return _checked_class(found, label)
    if isinstance(found, Daemon):
        raise ConfigError(
            f"{label} is an object of {type(found).__qualname__}", "name its class"
        )
    if inspect.iscoroutinefunction(found):
        return _from_function(found, label)
    if callable(found):
        raise ConfigError(
            f"{label} is a plain function, no daemon",
            "make it 'async def', or write a class derived from duende.core.Daemon",
        )
    raise ConfigError(
        f"{label} is {type(found).__name__} {found!r:.60}, no daemon",
        "name a class derived from duende.core.Daemon or an async function",
    )


def _checked_class(found: type, label: str) -> type[Daemon]:
    if not issubclass(found, Daemon):
        raise ConfigError(
            f"{label} is a class, but no Daemon", "derive it from duende.core.Daemon"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(
            f"{label} is abstract: {missing} is not written",
            f"write 'async def {missing.split(',')[0]}(self, …)'",
        )
    run: Any = inspect.getattr_static(found, "run")
    if (
        inspect.isfunction(run)
        and not inspect.iscoroutinefunction(run)
        and not hasattr(run, "__wrapped__")
    ):
        raise ConfigError(
            f"{label}: run is no coroutine function",
            "write 'async def run(self, ctx)' and no 'yield' in it",
        )
    return found


def _from_function(function: Worker, label: str) -> type[Daemon]:
    required = 0
    accepts = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY) or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ):
            accepts += 1
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            required += 1
    if required > 1 or required > accepts:
        raise ConfigError(
            f"{label} needs {required} arguments",
            "an async function that is a daemon takes the context or nothing",
        )
    inner = getattr(function, "func", function)  # functools.partial
    plain: str = getattr(inner, "__name__", "worker")
    return cast(
        "type[Daemon]",
        type(
            plain,
            (FunctionDaemon,),
            {
                "__module__": getattr(function, "__module__", __name__),
                "__doc__": function.__doc__,
                "name": kebab_name(plain),
                "function": staticmethod(function),
                "takes_context": required == 1,
            },
        ),
    )
