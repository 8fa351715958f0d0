"""The main program of a Python daemon: `main`, and `python -m duende.core.runner`.

It turns the process's world (signals, sd_notify, exit codes, the environment) into
calls on one `DaemonLife`. It is imported by every Python daemon, so it imports little.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, final

import anyio
import attrs

from duende.core import sd_notify
from duende.core._hosting import DaemonLife, Outcome, hosted_config
from duende.core._signals import ProcessSignals, SignalStreams, die_by
from duende.core._target import create_daemon, load_target
from duende.core.errors import ConfigError, DaemonError, ResourceLimitError
from duende.core.types import ExitReason

if TYPE_CHECKING:
    from duende.core._target import Worker
    from duende.core.context import Fields
    from duende.core.daemon import Daemon

__all__ = ("main",)

BAD_CONFIG = 78
"""EX_CONFIG of sysexits.h: starting again would end the same way."""

DEFAULT_STOP_TIMEOUT = 10.0
"""Seconds; what a duende.toml has for `stop.timeout` by default."""

FORCE_GRACE = 0.5
"""Seconds after the stop timeout until the process is ended by force."""

RETRY_INTERVAL = 0.05
"""Seconds between attempts to reach a supervisor whose socket is full."""


@final
@attrs.frozen(kw_only=True)
class RunnerConfig:
    """This is what the supervisor hands over in DUENDE_RUNNER, a JSON object.

    `settings` is None when nothing was handed over. `file` and `daemon` may name the
    duende.toml and the table in it that a reload reads the settings from again.
    """

    name: str | None = None
    settings: Any = None
    stop_timeout: float = DEFAULT_STOP_TIMEOUT
    lock_memory: str = "false"
    file: str | None = None
    daemon: str | None = None


def parse_runner_config(text: str) -> RunnerConfig:
    """This reads DUENDE_RUNNER; keys that it doesn't know are left to newer runners.

    Raises:
        ConfigError: It is not what a supervisor of ours writes.
    """
    try:
        given = json.loads(text)
        known = {field.name for field in attrs.fields(RunnerConfig)}
        config = RunnerConfig(
            **{key: value for key, value in given.items() if key in known}
        )
        if not 0 < float(config.stop_timeout) < float("inf"):
            raise ValueError(f"stop_timeout {config.stop_timeout!r}")
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"the variable DUENDE_RUNNER can't be read: {error}",
            "it is set by duende for its own use; unset it to run by hand",
        ) from None
    return config


def lock_memory(declared: str) -> str | None:
    """This locks the process's memory as `resources.lock_memory` says.

    DUENDE_MLOCK in the environment wins over what is declared.

    Returns:
        A warning where it was only to be tried and was not done, or where it was
        done under a limit.

    Raises:
        ConfigError: DUENDE_MLOCK is none of its values.
        ResourceLimitError: It is required and can't be had.
    """
    if declared == "false" and "DUENDE_MLOCK" not in os.environ:
        return None
    from duende import mlock

    try:
        status = mlock.lock_as_declared(declared)
    except ValueError as error:
        raise ConfigError(str(error), "correct or unset DUENDE_MLOCK") from error
    except mlock.MlockError as error:
        raise ResourceLimitError(
            f"lock_memory is required, and {error.strerror}",
            "set resources.lock_memory to true to start without",
        ) from error
    if status is None:
        return None
    if status.is_locked():
        return f"memory is locked; {status.hint}" if status.hint else None
    return f"memory is not locked: {status.reason}; {status.hint}"


def read_settings(config: RunnerConfig) -> Any:
    """This gives the settings for a reload: the file's, or the same ones again.

    Raises:
        ConfigError: The file can't be read, or has no such daemon.
    """
    if config.file is None:
        return config.settings
    import tomllib

    try:
        with open(config.file, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config.file}: {error}") from None
    if os.path.basename(config.file) == "pyproject.toml":
        document = document.get("tool", {}).get("duende", {})
    table = document.get("daemon", {}).get(config.daemon or config.name)
    if not isinstance(table, dict):
        raise ConfigError(
            f"{config.file}: there is no daemon {config.daemon or config.name!r} any "
            "more"
        )
    defaults = document.get("defaults", {}).get("settings", {})
    return {**defaults, **table.get("settings", {})}


@final
class _Process:
    """This is the process around one daemon while its event loop runs."""

    def __init__(
        self,
        daemon: Daemon,
        config: RunnerConfig,
        notifier: sd_notify.Notifier,
        watchdog: float | None,
    ) -> None:
        self.signals = ProcessSignals()
        for number in (*ProcessSignals.STOPPING, signal.SIGHUP):
            self.signals.catch(number)
        self._config = config
        self._notifier = notifier
        self._watchdog = watchdog
        self._unsent: deque[str] = deque(maxlen=64)
        self._wants_retry: anyio.Event | None = None
        self._has_terminal = _has_terminal()
        self._kind = type(daemon)
        self._hosted = hosted_config(
            self._kind, config.name or daemon.name, config.settings, config.stop_timeout
        )
        self.life = DaemonLife(
            daemon,
            self._hosted,
            settings=config.settings,
            notify=self._notify,
            signals=SignalStreams(self.signals.catch),
        )

    async def serve(self) -> Outcome:
        """This lives the daemon's life and gives its outcome."""
        self._wants_retry = anyio.Event()
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(self._take_signals)
            helpers.start_soon(self._send_again)
            if self._watchdog is not None:
                helpers.start_soon(self._feed_watchdog, self._watchdog / 2)
            outcome = await self.life.live()
            helpers.cancel_scope.cancel()
        for message in self._unsent:
            self._notifier.send(message)
        return outcome

    async def _take_signals(self) -> None:
        async for number in self.signals.listen():
            if number in ProcessSignals.STOPPING:
                self.life.request_stop()
            elif number == signal.SIGHUP:
                if self._has_terminal and not _has_terminal():
                    # The window was closed: nobody could stop us any more.
                    self.life.request_stop()
                else:
                    self._reload()
            self.life.deliver_signal(number)

    def _reload(self) -> None:
        try:
            settings = read_settings(self._config)
            config = hosted_config(
                self._kind, self._hosted.name, settings, self._config.stop_timeout
            )
        except ConfigError as error:
            self.life.refuse_reload(error)
        else:
            self.life.request_reload(settings, config)

    async def _feed_watchdog(self, interval: float) -> None:
        while True:
            self._notifier.send("WATCHDOG=1")
            await anyio.sleep(interval)

    def _notify(self, fields: Fields) -> None:
        if ("STOPPING", "1") in fields:
            # From here on the end is bounded, even if the event loop is blocked or
            # a thread of the daemon's never ends: its place is shown on stderr.
            _force_exit_after(self._config.stop_timeout + FORCE_GRACE)
        if ("READY", "1") in fields:
            fields = (*fields, ("MAINPID", str(os.getpid())))
        message = sd_notify.render_fields(fields)
        if self._unsent or (self._notifier.send(message) is sd_notify.Delivery.BUSY):
            self._unsent.append(message)
            if self._wants_retry is not None:
                self._wants_retry.set()

    async def _send_again(self) -> None:
        """This keeps the order of what a full socket did not take."""
        while self._wants_retry is not None:
            await self._wants_retry.wait()
            self._wants_retry = anyio.Event()
            while self._unsent:
                if self._notifier.send(self._unsent[0]) is sd_notify.Delivery.BUSY:
                    await anyio.sleep(RETRY_INTERVAL)
                else:
                    self._unsent.popleft()


def _force_exit_after(seconds: float) -> None:
    try:
        faulthandler.dump_traceback_later(seconds, exit=True)
    except (ValueError, OSError, AttributeError):
        pass  # stderr is no file: the supervisor's SIGKILL remains


def _has_terminal() -> bool:
    """This says whether a controlling terminal is there (tty(4): ENXIO without)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def configure_logging() -> None:
    """This sends log records to stderr, unless the daemon's module said otherwise."""
    import logging

    level = os.environ.get("DUENDE_LOG_LEVEL", "").strip().upper()
    number: int = logging.INFO
    problem = ""
    if level:
        if level.isdigit():
            number = int(level)
        elif level in logging.getLevelNamesMapping():
            number = logging.getLevelNamesMapping()[level]
        else:
            problem = level
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    elif level and not problem:
        logging.getLogger().setLevel(number)
    if problem:
        logging.getLogger("duende").warning(
            "DUENDE_LOG_LEVEL=%r is no level; use DEBUG, INFO, WARNING or ERROR",
            problem,
        )


def _refuse(error: DaemonError | str) -> NoReturn:
    text = str(error) or type(error).__name__
    lead = (
        f"{error.what}:\n" if isinstance(error, ConfigError) and error.problems else ""
    )
    print(f"duende: {lead}{text}", file=sys.stderr, flush=True)
    sys.exit(BAD_CONFIG)


def _check_backend(backend: str, kind: type[Daemon]) -> str:
    chosen = kind.backend if backend == "asyncio" else backend
    if chosen not in ("asyncio", "trio"):
        raise ConfigError(
            f"{kind.__qualname__} asks for the event loop {chosen!r}",
            "write 'asyncio' or 'trio'",
        )
    if chosen == "trio" and importlib.util.find_spec("trio") is None:
        raise ConfigError(
            f"{kind.__qualname__} asks for the event loop 'trio', which is not "
            "installed here",
            f"run: {sys.executable} -m pip install trio",
        )
    return chosen


def _print_failure(outcome: Outcome, name: str) -> None:
    error = outcome.error
    if error is None:
        print(f"duende: {name}: {outcome.text}", file=sys.stderr)
    elif isinstance(error, DaemonError) and error.__traceback__ is None:
        print(f"duende: {name}: {error}", file=sys.stderr)
    elif isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    else:
        import traceback

        frames = error.__traceback__
        while frames is not None and frames.tb_next is not None and _is_ours(frames):
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)


def _is_ours(frames: Any) -> bool:
    name: str = frames.tb_frame.f_globals.get("__name__", "")
    return name in ("duende.core._hosting", "duende.core._target", __name__)


def main(
    target: str | type[Daemon] | Worker,
    *,
    settings: object = None,
    backend: str = "asyncio",
    backend_options: Mapping[str, Any] | None = None,
) -> NoReturn:
    """This runs a daemon as this process, and ends the process with its exit code.

    Args:
        target: a Daemon class, an async function, or text that names one:
            `module:Class`, `path/file.py:Class`.
        settings: the settings, as a table or an object of the declared class; what a
            supervisor hands over wins.
        backend: the event loop, "asyncio" or "trio"; the class's own wins over the
            default.
        backend_options: options of anyio's backend.

    Raises:
        SystemExit: Always. 0: graceful; 1: error, with the traceback on stderr; 78:
            the target, its settings or the environment are wrong. A second SIGINT
            or SIGTERM ends the process by that signal.
    """
    if threading.current_thread() is not threading.main_thread():
        _refuse("main() catches signals: call it from the main thread")
    notifier, watchdog = sd_notify.take_environment()
    handed_over = os.environ.pop("DUENDE_RUNNER", None)
    try:
        config = RunnerConfig() if not handed_over else parse_runner_config(handed_over)
        if config.settings is None:
            config = attrs.evolve(config, settings=settings)
        if config.name is None and os.environ.get("DUENDE_NAME"):
            config = attrs.evolve(config, name=os.environ["DUENDE_NAME"])
        kind = load_target(target)
        configure_logging()
        loop = _check_backend(backend, kind)
        if warning := lock_memory(config.lock_memory):
            import logging

            logging.getLogger("duende").warning(warning)
        daemon = create_daemon(kind)
        process = _Process(daemon, config, notifier, watchdog)
    except (ConfigError, ResourceLimitError) as error:
        _refuse(error)
    outcome = anyio.run(
        process.serve,
        backend=loop,
        backend_options=dict(backend_options) if backend_options else None,
    )
    code = outcome.exit_code
    if code:
        _print_failure(outcome, config.name or daemon.name)
    sys.stdout.flush()
    sys.stderr.flush()
    if outcome.reason is ExitReason.SIGNAL and process.signals.stopped_by is not None:
        die_by(process.signals.stopped_by)
    sys.exit(code)


def _run_module(arguments: list[str]) -> NoReturn:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(
            "usage: python -m duende.core.runner module:Class | path/file.py:Class",
            file=sys.stderr,
        )
        sys.exit(0 if arguments in (["-h"], ["--help"]) else 2)
    folder = os.getcwd()
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)  # `python -P` and safe_path leave it out
    main(arguments[0])


if __name__ == "__main__":
    _run_module(sys.argv[1:])
