"""Hypothesis strategies for configurations that are valid."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from duende.core.config.model import (
    ContainerConfig,
    DaemonConfig,
    Dependency,
    DependencyState,
    Enforce,
    GroupConfig,
    HealthAction,
    HealthConfig,
    Intensity,
    LockMemory,
    LogConfig,
    OnRestart,
    ProjectConfig,
    ReadyConfig,
    ReloadConfig,
    ResourcesConfig,
    RestartConfig,
    RestartOwner,
    StopConfig,
    Strategy,
    SupervisorConfig,
    SystemdConfig,
)
from duende.core.types import BackoffConfig, RestartPolicy

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)
TEXTS = st.lists(WORDS, max_size=3).map(tuple)
ARGUMENTS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
SECONDS = st.floats(0.001, 1e6)
COUNTS = st.integers(1, 10_000)
SIGNALS = st.sampled_from(["SIGTERM", "SIGINT", "SIGUSR1", "SIGRTMIN+1"])
JSON = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "http": st.just("http://127.0.0.1:8000/healthz"),
    "tcp": st.just("[::1]:80"),
    "unix": WORDS,
    "log": st.just("listening on .*"),
    "exec": ARGUMENTS,
    "notify": st.just(True),
}


def _some(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """This builds a value with any subset of the optional fields given."""
    required = {
        name: strategy
        for name, strategy in fields.items()
        if getattr(attrs.fields(kind), name).default is attrs.NOTHING
    }
    optional = {k: v for k, v in fields.items() if k not in required}
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda arguments: kind(**arguments)
    )


def _check(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted(KINDS)).flatmap(
        lambda chosen: st.fixed_dictionaries(
            {chosen: KINDS[chosen]}, optional=fields
        ).map(lambda arguments: kind(**arguments))
    )


RESTARTS = _some(
    RestartConfig,
    policy=st.sampled_from(RestartPolicy),
    max_retries=COUNTS,
    success_exit_codes=st.lists(st.integers(0, 255), max_size=3).map(tuple),
    max_in_window=st.builds(Intensity, count=COUNTS, window=SECONDS),
    backoff=_some(
        BackoffConfig,
        initial=st.floats(0, 10),
        multiplier=st.floats(1, 10),
        max=st.floats(0, 1000),
        jitter=st.floats(0, 1),
        reset_after=st.floats(0, 1000),
    ),
)
RESOURCES = _some(
    ResourcesConfig,
    memory=COUNTS,
    memory_swap=st.integers(0, 2**40),
    cpu=st.floats(0.01, 64),
    cpu_weight=COUNTS,
    pids=COUNTS,
    open_files=COUNTS,
    nice=st.integers(-20, 19),
    lock_memory=st.sampled_from(LockMemory),
    enforce=st.sampled_from(Enforce),
)
OWNERS = st.sampled_from(RestartOwner)

_COMMON: dict[str, st.SearchStrategy[Any]] = {
    "description": st.text(),
    "instances": st.integers(1, 3),
    "enabled": st.booleans(),
    "essential": st.booleans(),
    "oneshot": st.booleans(),
    "depends_on": st.dictionaries(
        NAMES,
        _some(
            Dependency,
            until=st.sampled_from(DependencyState),
            on_restart=st.sampled_from(OnRestart),
        ),
        max_size=2,
    ),
    "restart_group": NAMES,
    "env": st.dictionaries(
        st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), WORDS, max_size=2
    ),
    "env_file": TEXTS,
    "inherit_env": st.booleans() | TEXTS,
    "working_dir": WORDS,
    "user": WORDS,
    "group": WORDS,
    "umask": st.integers(0, 0o777),
    "restart": RESTARTS,
    "ready": _check(ReadyConfig, timeout=SECONDS, interval=SECONDS),
    "health": _check(
        HealthConfig,
        interval=SECONDS,
        retries=COUNTS,
        start_period=st.floats(0, 100),
        action=st.sampled_from(HealthAction),
    ),
    "stop": _some(StopConfig, signal=SIGNALS, timeout=SECONDS),
    "reload": st.builds(ReloadConfig, signal=SIGNALS)
    | st.builds(ReloadConfig, exec=ARGUMENTS),
    "resources": RESOURCES,
    "log": _some(
        LogConfig,
        capture=st.booleans(),
        max_size=COUNTS,
        keep=st.integers(0, 9),
        compress=st.booleans(),
    ),
    "container": _some(
        ContainerConfig, image=WORDS, volumes=TEXTS, ports=TEXTS, restart_owner=OWNERS
    ),
    "systemd": _some(
        SystemdConfig,
        scope=st.sampled_from(["auto", "user", "system"]),
        restart_owner=OWNERS,
    ),
}

DAEMONS = st.one_of(
    st.fixed_dictionaries({"name": NAMES, "command": ARGUMENTS}, optional=_COMMON),
    st.fixed_dictionaries(
        {"name": NAMES, "entry": st.just("app.main:Worker")},
        optional={
            **_COMMON,
            "python": WORDS,
            "settings": st.dictionaries(st.text(), JSON, max_size=3),
        },
    ),
).map(lambda arguments: DaemonConfig(**arguments))

PROJECTS = st.builds(
    ProjectConfig,
    supervisor=_some(
        SupervisorConfig,
        project=NAMES,
        shutdown_timeout=SECONDS,
        start_concurrency=COUNTS,
        log_dir=WORDS,
        log_total_max=COUNTS,
        chaos=st.booleans(),
    ),
    daemons=st.lists(DAEMONS, max_size=3).map(
        lambda daemons: {daemon.name: daemon for daemon in daemons}
    ),
    groups=st.dictionaries(
        NAMES, _some(GroupConfig, strategy=st.sampled_from(Strategy)), max_size=2
    ),
)
