"""The configuration as frozen values: what a duende.toml says, key by key.

Field names are the file's keys with `_` for `-`. Durations are seconds, sizes
bytes; None means "not set" or "no limit". Reading files is `config.load`.
"""

from __future__ import annotations

import enum
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, final

import attrs

from duende.core.types import BackoffConfig, RestartPolicy

__all__ = (
    "ContainerConfig",
    "DaemonConfig",
    "Dependency",
    "DependencyState",
    "Enforce",
    "GroupConfig",
    "HealthAction",
    "HealthConfig",
    "Intensity",
    "LockMemory",
    "LogConfig",
    "OnRestart",
    "ProjectConfig",
    "ReadyConfig",
    "ReloadConfig",
    "ResourcesConfig",
    "RestartConfig",
    "RestartOwner",
    "StopConfig",
    "Strategy",
    "SupervisorConfig",
    "SystemdConfig",
)

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a daemon may be called (contract, section 3)."""

_E = TypeVar("_E", bound=enum.Enum)


class DependencyState(enum.Enum):
    """This is how far a dependency must be before its dependent starts."""

    STARTED = "started"
    READY = "ready"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class OnRestart(enum.Enum):
    """This is what a dependent does when its dependency restarts."""

    IGNORE = "ignore"
    FOLLOW = "follow"


class HealthAction(enum.Enum):
    """This is what follows when a daemon becomes unhealthy."""

    RESTART = "restart"
    NONE = "none"


class Enforce(enum.Enum):
    """This says what happens when a limit can't be enforced."""

    STRICT = "strict"
    BEST_EFFORT = "best-effort"


class LockMemory(enum.Enum):
    """This says whether a daemon's memory is locked: no, tried, or required."""

    OFF = "false"
    TRY = "true"
    REQUIRED = "required"


class RestartOwner(enum.Enum):
    """This says who restarts a daemon on a platform with its own supervisor."""

    PLATFORM = "platform"
    DUENDE = "duende"


class Strategy(enum.Enum):
    """This is what a group does when one of its members fails (OTP's names)."""

    ONE_FOR_ONE = "one-for-one"
    ONE_FOR_ALL = "one-for-all"
    REST_FOR_ONE = "rest-for-one"


def _enum(kind: type[_E]) -> Any:
    """This converts a member or its text to the member."""
    return kind


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _environment(values: Mapping[str, object]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items()}


def _strings(values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"expected a list of texts, not the text {values!r}")
    return tuple(values)


def _optional_strings(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else _strings(values)


def _argv(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(shlex.split(value)) if isinstance(value, str) else tuple(value)


def signal_text(value: str | int | signal.Signals) -> str:
    """This normalises `TERM`, `SIGTERM`, `15` or a member to `SIGTERM`.

    Raises:
        ValueError: There is no such signal.
    """
    if isinstance(value, int):
        return signal.Signals(value).name
    name = value.strip().upper()
    if name.isdigit():
        return signal.Signals(int(name)).name
    if not name.startswith("SIG"):
        name = "SIG" + name
    if name not in signal.Signals.__members__:
        raise ValueError(f"{value!r} is not a signal; write a name such as 'SIGTERM'")
    return name


@final
@attrs.frozen(kw_only=True)
class Intensity:
    """This is a bound on restarts: at most `count` within `window` seconds."""

    count: int
    window: float


@final
@attrs.frozen(kw_only=True)
class RestartConfig:
    """This is `[daemon.x.restart]`."""

    policy: RestartPolicy = attrs.field(
        default=RestartPolicy.ON_FAILURE, converter=_enum(RestartPolicy)
    )
    max_retries: int | None = None
    success_exit_codes: tuple[int, ...] = attrs.field(default=(0,), converter=tuple)
    max_in_window: Intensity | None = None
    backoff: BackoffConfig = BackoffConfig()


@final
@attrs.frozen(kw_only=True)
class ReadyConfig:
    """This is `[daemon.x.ready]`: exactly one kind, or none (ready when started)."""

    http: str | None = None
    tcp: str | None = None
    unix: str | None = None
    log: str | None = None
    exec: tuple[str, ...] | None = attrs.field(
        default=None, converter=_optional_strings
    )
    notify: bool = False
    timeout: float = 30.0
    interval: float = 0.2

    @property
    def kind(self) -> str:
        """The kind in force: http, tcp, unix, log, exec, notify or started."""
        for kind in ("http", "tcp", "unix", "log", "exec"):
            if getattr(self, kind) is not None:
                return kind
        return "notify" if self.notify else "started"


@final
@attrs.frozen(kw_only=True)
class HealthConfig:
    """This is `[daemon.x.health]`: liveness, with the same kinds as readiness."""

    http: str | None = None
    tcp: str | None = None
    unix: str | None = None
    log: str | None = None
    exec: tuple[str, ...] | None = attrs.field(
        default=None, converter=_optional_strings
    )
    notify: bool = False
    interval: float = 30.0
    timeout: float = 10.0
    retries: int = 3
    successes: int = 1
    start_period: float = 0.0
    action: HealthAction = attrs.field(
        default=HealthAction.RESTART, converter=_enum(HealthAction)
    )


@final
@attrs.frozen(kw_only=True)
class StopConfig:
    """This is `[daemon.x.stop]`; after `timeout` seconds the tree gets SIGKILL."""

    signal: str = attrs.field(default="SIGTERM", converter=signal_text)
    timeout: float = 10.0


@final
@attrs.frozen(kw_only=True)
class ReloadConfig:
    """This is `[daemon.x.reload]`: a signal, or a command that reloads."""

    signal: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(signal_text)
    )
    exec: tuple[str, ...] | None = attrs.field(
        default=None, converter=_optional_strings
    )


@final
@attrs.frozen(kw_only=True)
class ResourcesConfig:
    """This is `[daemon.x.resources]`; sizes in bytes, cpu as a share of one core."""

    memory: int | None = None
    memory_high: int | None = None
    memory_swap: int | None = None
    cpu: float | None = None
    cpu_weight: int | None = None
    io_read_bps: int | None = None
    io_write_bps: int | None = None
    pids: int | None = None
    open_files: int | None = None
    nice: int | None = None
    lock_memory: LockMemory = attrs.field(
        default=LockMemory.OFF, converter=_enum(LockMemory)
    )
    enforce: Enforce = attrs.field(default=Enforce.STRICT, converter=_enum(Enforce))


@final
@attrs.frozen(kw_only=True)
class LogConfig:
    """This is `[daemon.x.log]`."""

    capture: bool = True
    max_size: int = 10 * 1024 * 1024
    keep: int = 5
    compress: bool = True


@final
@attrs.frozen(kw_only=True)
class ContainerConfig:
    """This is `[daemon.x.container]`."""

    image: str | None = None
    runtime: str = "auto"
    volumes: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    ports: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    network: str | None = None
    restart_owner: RestartOwner = attrs.field(
        default=RestartOwner.PLATFORM, converter=_enum(RestartOwner)
    )


@final
@attrs.frozen(kw_only=True)
class SystemdConfig:
    """This is `[daemon.x.systemd]`."""

    scope: str = "auto"
    restart_owner: RestartOwner = attrs.field(
        default=RestartOwner.PLATFORM, converter=_enum(RestartOwner)
    )


@final
@attrs.frozen(kw_only=True)
class Dependency:
    """This is one edge of `depends_on`."""

    until: DependencyState = attrs.field(
        default=DependencyState.READY, converter=_enum(DependencyState)
    )
    on_restart: OnRestart = attrs.field(
        default=OnRestart.IGNORE, converter=_enum(OnRestart)
    )


def _dependencies(value: object) -> dict[str, Dependency]:
    """This accepts `["db"]`, `{"db": "ready"}` and `{"db": Dependency(...)}`."""
    if isinstance(value, Mapping):
        return {
            name: edge if isinstance(edge, Dependency) else Dependency(until=edge)
            for name, edge in value.items()
        }
    return {name: Dependency() for name in _strings(value)}  # type: ignore[arg-type]  # attrs hands over whatever the caller gave; _strings checks it


def _restart(value: RestartConfig | RestartPolicy | str) -> RestartConfig:
    return value if isinstance(value, RestartConfig) else RestartConfig(policy=value)


def ready_from_text(text: str) -> ReadyConfig:
    """This reads the short form of `ready`: a URL, `tcp://…`, `unix:…`, `notify`.

    Raises:
        ValueError: The text is none of them.
    """
    if text == "notify":
        return ReadyConfig(notify=True)
    if text.startswith(("http://", "https://")):
        return ReadyConfig(http=text)
    if text.startswith("tcp://"):
        return ReadyConfig(tcp=text.removeprefix("tcp://"))
    if text.startswith("unix:"):
        return ReadyConfig(unix=text.removeprefix("unix:"))
    raise ValueError(
        f"{text!r} is no readiness check; write 'http://…', 'tcp://host:port', "
        "'unix:path' or 'notify', or a table such as { log = \"regex\" }"
    )


def _ready(value: ReadyConfig | str | None) -> ReadyConfig | None:
    return ready_from_text(value) if isinstance(value, str) else value


@final
@attrs.frozen(kw_only=True)
class DaemonConfig:
    """This is one daemon: `[daemon.NAME]` of a file, or built in Python.

    Exactly one of `command` and `entry` is set. Text is accepted for enum members
    (`restart="always"`) and for the short forms of `command` and `ready`.
    """

    name: str
    command: tuple[str, ...] | None = attrs.field(default=None, converter=_argv)
    entry: str | None = None
    python: str | None = None
    settings: dict[str, Any] = attrs.Factory(dict)
    platform: str = "native"
    description: str = ""
    instances: int = 1
    enabled: bool = True
    essential: bool = False
    oneshot: bool = False
    depends_on: dict[str, Dependency] = attrs.field(
        factory=dict, converter=_dependencies
    )
    restart_group: str = ""
    env: dict[str, str] = attrs.field(factory=dict, converter=_environment)
    env_file: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    inherit_env: tuple[str, ...] | bool = ()
    working_dir: str = "."
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    restart: RestartConfig = attrs.field(factory=RestartConfig, converter=_restart)
    ready: ReadyConfig | None = attrs.field(default=None, converter=_ready)
    health: HealthConfig | None = None
    stop: StopConfig = StopConfig()
    reload: ReloadConfig = ReloadConfig()
    resources: ResourcesConfig = ResourcesConfig()
    log: LogConfig = LogConfig()
    container: ContainerConfig | None = None
    systemd: SystemdConfig | None = None

    def __attrs_post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no name for a daemon; use 1 to 63 of a-z, 0-9, "
                "'-' and '_', beginning with a letter or digit"
            )
        if (self.command is None) == (self.entry is None):
            raise ValueError(
                f"daemon {self.name!r} needs exactly one of command and entry"
            )

    @property
    def readiness(self) -> ReadyConfig:
        """`ready`, or its default: notify for an entry, started for a command."""
        if self.ready is not None:
            return self.ready
        return ReadyConfig(notify=self.entry is not None)


@final
@attrs.frozen(kw_only=True)
class SupervisorConfig:
    """This is `[supervisor]`."""

    project: str | None = None
    shutdown_timeout: float | None = None
    start_concurrency: int = 16
    log_dir: str | None = None
    log_total_max: int = 1024**3
    chaos: bool = False


@final
@attrs.frozen(kw_only=True)
class GroupConfig:
    """This is `[group.NAME]`."""

    strategy: Strategy = attrs.field(
        default=Strategy.ONE_FOR_ONE, converter=_enum(Strategy)
    )


@final
@attrs.frozen(kw_only=True)
class ProjectConfig:
    """This is a whole file, `[defaults]` already merged under each daemon."""

    supervisor: SupervisorConfig = SupervisorConfig()
    daemons: dict[str, DaemonConfig] = attrs.Factory(dict)
    groups: dict[str, GroupConfig] = attrs.Factory(dict)
