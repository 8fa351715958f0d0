"""The configuration as frozen values: what a duende.toml says, key by key.

Field names are the file's keys with `_` for `-`. Durations are seconds, sizes
bytes; None means "not set" or "no limit". Reading files is `config.load`.

More than 600 lines, because it is one class a table of the file and nothing else: split, a
reader would look for half of the keys elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from duende.core.config.command import split_command
from duende.core.config.values import (
    NAME_PATTERN,
    Choice,
    Range,
    check_address,
    check_entry,
    check_environment,
    check_name,
    check_path,
    check_pattern,
    check_texts,
    check_url,
    signal_text,
)
from duende.core.types import BackoffConfig, RestartPolicy

if TYPE_CHECKING:
    from duende.core.config.source import Source

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

KINDS: Final = ("http", "tcp", "unix", "log", "exec", "notify")
"""The ways to ask whether a daemon is ready or healthy."""

PLATFORMS: Final = (
    "native",
    "systemd",
    "launchd",
    "container",
    "auto",
    "pepita",
    "wos",
)

# What a field is in a file, where its type alone doesn't say; see `config.forms`.
_DURATION: Final = {"form": "duration"}
_SIZE: Final = {"form": "size"}
_CPU: Final = {"form": "cpu"}
_SIGNAL: Final = {"form": "signal"}
_ARGV: Final = {"form": "argv"}
_TEXTS: Final = {"form": "texts"}
_ACCOUNT: Final = {"form": "account"}

_POSITIVE: Final = Range(above=0)
_NOT_NEGATIVE: Final = Range(minimum=0)
_AT_LEAST_ONE: Final = Range(minimum=1)
_NO_LIMIT: Final = Range(above=0, hint="leave the key out for no limit")


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


def _restart_policy(value: RestartPolicy | str) -> RestartPolicy:
    return RestartPolicy(value)


def _dependency_state(value: DependencyState | str) -> DependencyState:
    return DependencyState(value)


def _on_restart(value: OnRestart | str) -> OnRestart:
    return OnRestart(value)


def _health_action(value: HealthAction | str) -> HealthAction:
    return HealthAction(value)


def _lock_memory(value: LockMemory | str | bool) -> LockMemory:
    return LockMemory(_text(value) if isinstance(value, bool) else value)


def _enforce(value: Enforce | str) -> Enforce:
    return Enforce(value)


def _restart_owner(value: RestartOwner | str) -> RestartOwner:
    return RestartOwner(value)


def _strategy(value: Strategy | str) -> Strategy:
    return Strategy(value)


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
    return split_command(value) if isinstance(value, str) else tuple(value)


def _codes(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(values)


def _inherited(value: Sequence[str] | bool) -> tuple[str, ...] | bool:
    return value if isinstance(value, bool) else _strings(value)


def _optional_signal(value: str | int | None) -> str | None:
    return None if value is None else signal_text(value)


def _check_codes(
    _: object, attribute: attrs.Attribute[Any], value: tuple[int, ...]
) -> None:
    for code in value:
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255:
            raise ValueError(
                f"{attribute.name} must be numbers from 0 to 255; {code!r} is none"
            )


def _kind(value: ReadyConfig | HealthConfig) -> str | None:
    for kind in KINDS:
        if getattr(value, kind) not in (None, False):
            return kind
    return None


def _check_kinds(value: ReadyConfig | HealthConfig, where: str) -> None:
    chosen = [kind for kind in KINDS if getattr(value, kind) not in (None, False)]
    if len(chosen) > 1:
        raise ValueError(f"{where} must have one kind, not {' and '.join(chosen)}")


@final
@attrs.frozen(kw_only=True)
class Intensity:
    """This is a bound on restarts: at most `count` within `window` seconds."""

    count: int = attrs.field(validator=_AT_LEAST_ONE)
    window: float = attrs.field(validator=_POSITIVE, metadata=_DURATION)


@final
@attrs.frozen(kw_only=True)
class RestartConfig:
    """This is `[daemon.x.restart]`."""

    policy: RestartPolicy = attrs.field(
        default=RestartPolicy.ON_FAILURE, converter=_restart_policy
    )
    max_retries: int | None = attrs.field(
        default=None,
        validator=Range(
            minimum=1, hint="write policy = 'never', or leave it out for no limit"
        ),
    )
    success_exit_codes: tuple[int, ...] = attrs.field(
        default=(0,),
        converter=_codes,
        validator=_check_codes,
        metadata={"form": "codes"},
    )
    max_in_window: Intensity | None = None
    backoff: BackoffConfig = attrs.field(factory=BackoffConfig)


@final
@attrs.frozen(kw_only=True)
class ReadyConfig:
    """This is `[daemon.x.ready]`: exactly one kind, or none (ready when started)."""

    http: str | None = attrs.field(default=None, validator=check_url)
    tcp: str | None = attrs.field(default=None, validator=check_address)
    unix: str | None = attrs.field(default=None, validator=check_path)
    log: str | None = attrs.field(default=None, validator=check_pattern)
    exec: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=_optional_strings,
        validator=check_texts,
        metadata=_ARGV,
    )
    notify: bool = False
    timeout: float = attrs.field(default=30.0, validator=_POSITIVE, metadata=_DURATION)
    interval: float = attrs.field(default=0.2, validator=_POSITIVE, metadata=_DURATION)

    def __attrs_post_init__(self) -> None:
        _check_kinds(self, "ready")

    @property
    def kind(self) -> str:
        """The kind in force: http, tcp, unix, log, exec, notify or started."""
        return _kind(self) or "started"


@final
@attrs.frozen(kw_only=True)
class HealthConfig:
    """This is `[daemon.x.health]`: liveness, with the same kinds as readiness."""

    http: str | None = attrs.field(default=None, validator=check_url)
    tcp: str | None = attrs.field(default=None, validator=check_address)
    unix: str | None = attrs.field(default=None, validator=check_path)
    log: str | None = attrs.field(default=None, validator=check_pattern)
    exec: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=_optional_strings,
        validator=check_texts,
        metadata=_ARGV,
    )
    notify: bool = False
    interval: float = attrs.field(default=30.0, validator=_POSITIVE, metadata=_DURATION)
    timeout: float = attrs.field(default=10.0, validator=_POSITIVE, metadata=_DURATION)
    retries: int = attrs.field(default=3, validator=_AT_LEAST_ONE)
    successes: int = attrs.field(default=1, validator=_AT_LEAST_ONE)
    start_period: float = attrs.field(
        default=0.0, validator=_NOT_NEGATIVE, metadata=_DURATION
    )
    action: HealthAction = attrs.field(
        default=HealthAction.RESTART, converter=_health_action
    )

    def __attrs_post_init__(self) -> None:
        _check_kinds(self, "health")

    @property
    def kind(self) -> str | None:
        """The kind that was chosen, or None: an entry's own `health_check()`."""
        return _kind(self)


@final
@attrs.frozen(kw_only=True)
class StopConfig:
    """This is `[daemon.x.stop]`; after `timeout` seconds the tree gets SIGKILL."""

    signal: str = attrs.field(
        default="SIGTERM", converter=signal_text, metadata=_SIGNAL
    )
    timeout: float = attrs.field(
        default=10.0,
        validator=Range(above=0, hint="write signal = 'SIGKILL' to kill at once"),
        metadata=_DURATION,
    )


@final
@attrs.frozen(kw_only=True)
class ReloadConfig:
    """This is `[daemon.x.reload]`: a signal, or a command that reloads."""

    signal: str | None = attrs.field(
        default=None, converter=_optional_signal, metadata=_SIGNAL
    )
    exec: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=_optional_strings,
        validator=check_texts,
        metadata=_ARGV,
    )

    def __attrs_post_init__(self) -> None:
        if self.signal is not None and self.exec is not None:
            raise ValueError("reload must have one of signal and exec, not both")


@final
@attrs.frozen(kw_only=True)
class ResourcesConfig:
    """This is `[daemon.x.resources]`; sizes in bytes, cpu as a share of one core."""

    memory: int | None = attrs.field(default=None, validator=_NO_LIMIT, metadata=_SIZE)
    memory_high: int | None = attrs.field(
        default=None, validator=_NO_LIMIT, metadata=_SIZE
    )
    memory_swap: int | None = attrs.field(
        default=None, validator=_NOT_NEGATIVE, metadata=_SIZE
    )
    cpu: float | None = attrs.field(default=None, validator=_NO_LIMIT, metadata=_CPU)
    cpu_weight: int | None = attrs.field(
        default=None, validator=Range(minimum=1, maximum=10_000)
    )
    io_read_bps: int | None = attrs.field(
        default=None, validator=_NO_LIMIT, metadata=_SIZE
    )
    io_write_bps: int | None = attrs.field(
        default=None, validator=_NO_LIMIT, metadata=_SIZE
    )
    pids: int | None = attrs.field(default=None, validator=_NO_LIMIT)
    open_files: int | None = attrs.field(default=None, validator=_NO_LIMIT)
    nice: int | None = attrs.field(
        default=None, validator=Range(minimum=-20, maximum=19)
    )
    lock_memory: LockMemory = attrs.field(
        default=LockMemory.OFF,
        converter=_lock_memory,
        metadata={"form": "lock-memory"},
    )
    enforce: Enforce = attrs.field(default=Enforce.STRICT, converter=_enforce)


@final
@attrs.frozen(kw_only=True)
class LogConfig:
    """This is `[daemon.x.log]`."""

    capture: bool = True
    max_size: int = attrs.field(
        default=10 * 1024 * 1024, validator=_POSITIVE, metadata=_SIZE
    )
    keep: int = attrs.field(default=5, validator=_NOT_NEGATIVE)
    compress: bool = True


@final
@attrs.frozen(kw_only=True)
class ContainerConfig:
    """This is `[daemon.x.container]`."""

    image: str | None = attrs.field(default=None, validator=check_path)
    runtime: str = attrs.field(
        default="auto", validator=Choice(("auto", "docker", "podman", "containerd"))
    )
    volumes: tuple[str, ...] = attrs.field(
        default=(), converter=_strings, metadata=_TEXTS
    )
    ports: tuple[str, ...] = attrs.field(
        default=(), converter=_strings, metadata=_TEXTS
    )
    network: str | None = None
    restart_owner: RestartOwner = attrs.field(
        default=RestartOwner.PLATFORM, converter=_restart_owner
    )


@final
@attrs.frozen(kw_only=True)
class SystemdConfig:
    """This is `[daemon.x.systemd]`."""

    scope: str = attrs.field(
        default="auto", validator=Choice(("auto", "user", "system"))
    )
    restart_owner: RestartOwner = attrs.field(
        default=RestartOwner.PLATFORM, converter=_restart_owner
    )


@final
@attrs.frozen(kw_only=True)
class Dependency:
    """This is one edge of `depends_on`."""

    until: DependencyState = attrs.field(
        default=DependencyState.READY, converter=_dependency_state
    )
    on_restart: OnRestart = attrs.field(default=OnRestart.IGNORE, converter=_on_restart)


def _dependencies(value: Mapping[str, Any] | Sequence[str]) -> dict[str, Dependency]:
    """This accepts `["db"]`, `{"db": "ready"}` and `{"db": Dependency(...)}`."""
    if isinstance(value, Mapping):
        return {
            name: edge if isinstance(edge, Dependency) else Dependency(until=edge)
            for name, edge in value.items()
        }
    return {name: Dependency() for name in _strings(value)}


def _restart(value: RestartConfig | RestartPolicy | str) -> RestartConfig:
    if isinstance(value, RestartConfig):
        return value
    return RestartConfig(policy=RestartPolicy(value))


def ready_from_text(text: str) -> ReadyConfig:
    """This reads the short form of `ready`: a URL, `tcp://…`, `unix:…`, `notify`.

    Raises:
        ValueError: The text is none of them.
    """
    return ReadyConfig(**ready_table(text))


def ready_table(text: str) -> dict[str, Any]:
    """This turns the short form of `ready` into its table, unchecked.

    Raises:
        ValueError: The text is none of the short forms.
    """
    if text == "notify":
        return {"notify": True}
    if text.startswith(("http://", "https://")):
        return {"http": text}
    if text.startswith("tcp://"):
        return {"tcp": text.removeprefix("tcp://")}
    if text.startswith("unix:"):
        return {"unix": text.removeprefix("unix:")}
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
    command: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=_argv,
        validator=check_texts,
        metadata={"form": "command"},
    )
    entry: str | None = attrs.field(default=None, validator=check_entry)
    python: str | None = attrs.field(default=None, validator=check_path)
    settings: dict[str, Any] = attrs.field(factory=dict, metadata={"form": "settings"})
    platform: str = attrs.field(default="native", validator=Choice(PLATFORMS))
    description: str = ""
    instances: int = attrs.field(default=1, validator=Range(minimum=1, maximum=10_000))
    enabled: bool = True
    essential: bool = False
    oneshot: bool = False
    depends_on: dict[str, Dependency] = attrs.field(
        factory=dict, converter=_dependencies, metadata={"form": "depends-on"}
    )
    restart_group: str = attrs.field(default="", validator=check_name)
    env: dict[str, str] = attrs.field(
        factory=dict,
        converter=_environment,
        validator=check_environment,
        metadata={"form": "env"},
    )
    env_file: tuple[str, ...] = attrs.field(
        default=(), converter=_strings, metadata=_TEXTS
    )
    inherit_env: tuple[str, ...] | bool = attrs.field(
        default=(), converter=_inherited, metadata={"form": "inherit-env"}
    )
    working_dir: str = attrs.field(default=".", validator=check_path)
    user: str | None = attrs.field(
        default=None, validator=check_path, metadata=_ACCOUNT
    )
    group: str | None = attrs.field(
        default=None, validator=check_path, metadata=_ACCOUNT
    )
    umask: int | None = attrs.field(
        default=None,
        validator=Range(minimum=0, maximum=0o777),
        metadata={"form": "umask"},
    )
    restart: RestartConfig = attrs.field(
        factory=RestartConfig, converter=_restart, metadata={"short": "restart"}
    )
    ready: ReadyConfig | None = attrs.field(
        default=None, converter=_ready, metadata={"short": "ready"}
    )
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

    @property
    def has_health(self) -> bool:
        """Whether its health is watched: an entry's is, unless told otherwise."""
        return self.health is not None or self.entry is not None


@final
@attrs.frozen(kw_only=True)
class SupervisorConfig:
    """This is `[supervisor]`."""

    project: str | None = attrs.field(default=None, validator=check_name)
    shutdown_timeout: float | None = attrs.field(
        default=None, validator=_POSITIVE, metadata=_DURATION
    )
    start_concurrency: int = attrs.field(default=16, validator=_AT_LEAST_ONE)
    log_dir: str | None = attrs.field(default=None, validator=check_path)
    log_total_max: int = attrs.field(
        default=1024**3, validator=_POSITIVE, metadata=_SIZE
    )
    chaos: bool = False


@final
@attrs.frozen(kw_only=True)
class GroupConfig:
    """This is `[group.NAME]`."""

    strategy: Strategy = attrs.field(default=Strategy.ONE_FOR_ONE, converter=_strategy)


@final
@attrs.frozen(kw_only=True)
class ProjectConfig:
    """This is a whole file, `[defaults]` already merged under each daemon.

    `source` is the file it was read from, for messages that name a line; it is no
    part of the value.
    """

    supervisor: SupervisorConfig = SupervisorConfig()
    daemons: dict[str, DaemonConfig] = attrs.Factory(dict)
    groups: dict[str, GroupConfig] = attrs.Factory(dict)
    source: Source | None = attrs.field(default=None, eq=False, repr=False)
