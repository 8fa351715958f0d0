"""Single values: signals, bounds, addresses, entries, variables."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.model import (
    DaemonConfig,
    HealthConfig,
    LockMemory,
    ReadyConfig,
    ReloadConfig,
    ResourcesConfig,
    RestartConfig,
    StopConfig,
    SupervisorConfig,
    ready_from_text,
)
from duende.core.config.values import signal_number, signal_text
from duende.core.types import RestartPolicy


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("TERM", "SIGTERM"),
        ("SIGTERM", "SIGTERM"),
        (" sigint ", "SIGINT"),
        ("15", "SIGTERM"),
        (signal.SIGUSR1, "SIGUSR1"),
        (1, "SIGHUP"),
        ("RTMIN", "SIGRTMIN"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("RTMAX-1", f"SIGRTMIN+{signal.SIGRTMAX - 1 - signal.SIGRTMIN}"),
    ],
)
def test_signals(value: str | int, name: str) -> None:
    """A signal may be written by name, with or without SIG, or by number."""
    assert signal_text(value) == name


@pytest.mark.parametrize(
    "value", ["SIGTREM", "", "0", -1, 99, "99999999999", True, "RTMIN-1", "RTMIN+99"]
)
def test_no_signals(value: str | int) -> None:
    """What is no signal is refused, and a near name is offered."""
    with pytest.raises(ValueError, match="is not a signal") as caught:
        signal_text(value)
    assert ("SIGTERM" in str(caught.value)) or value != "SIGTREM"


@given(st.sampled_from(sorted(signal.valid_signals())))
def test_every_signal_has_a_name_that_is_read_back(number: int) -> None:
    """Number to name and back is the identity for all signals of the machine."""
    assert signal_number(signal_text(number)) == number


REFUSED: list[tuple[Callable[..., object], dict[str, object]]] = [
    (StopConfig, {"timeout": 0}),
    (StopConfig, {"timeout": float("inf")}),
    (StopConfig, {"timeout": "10s"}),
    (ReadyConfig, {"timeout": 0, "http": "http://x"}),
    (ReadyConfig, {"interval": -1, "http": "http://x"}),
    (ReadyConfig, {"http": "http://x", "tcp": "x:1"}),
    (ReadyConfig, {"http": "ftp://x"}),
    (ReadyConfig, {"http": "http://"}),
    (ReadyConfig, {"http": "http://x:99999/"}),
    (ReadyConfig, {"http": "http://x:0/"}),
    (ReadyConfig, {"tcp": "localhost"}),
    (ReadyConfig, {"tcp": "::1:80"}),
    (ReadyConfig, {"tcp": "x:70000"}),
    (ReadyConfig, {"tcp": "x:²"}),
    (ReadyConfig, {"log": "("}),
    (ReadyConfig, {"log": ""}),
    (ReadyConfig, {"exec": ()}),
    (ReadyConfig, {"exec": "true"}),
    (ReadyConfig, {"unix": ""}),
    (HealthConfig, {"retries": 0}),
    (HealthConfig, {"notify": True, "log": "x"}),
    (ReloadConfig, {"signal": "HUP", "exec": ("x",)}),
    (RestartConfig, {"max_retries": 0}),
    (RestartConfig, {"success_exit_codes": (256,)}),
    (RestartConfig, {"policy": "allways"}),
    (ResourcesConfig, {"memory": 0}),
    (ResourcesConfig, {"memory_swap": -1}),
    (ResourcesConfig, {"cpu": 0}),
    (ResourcesConfig, {"nice": 20}),
    (ResourcesConfig, {"open_files": 0}),
    (SupervisorConfig, {"start_concurrency": 0}),
    (SupervisorConfig, {"project": "Not a name"}),
    (DaemonConfig, {"name": "x", "command": ("a",), "instances": 0}),
    (DaemonConfig, {"name": "x", "command": ()}),
    (DaemonConfig, {"name": "x", "command": ("a\x00",)}),
    (DaemonConfig, {"name": "x", "command": ("a", 5)}),
    (DaemonConfig, {"name": "x", "command": ("a",), "working_dir": "a\0"}),
    (DaemonConfig, {"name": "x", "command": ("a" * 200000,)}),
    (DaemonConfig, {"name": "x", "command": "a | b"}),
    (DaemonConfig, {"name": "X", "command": ("a",)}),
    (DaemonConfig, {"name": "x"}),
    (DaemonConfig, {"name": "x", "command": ("a",), "entry": "a:b"}),
    (DaemonConfig, {"name": "x", "entry": "a"}),
    (DaemonConfig, {"name": "x", "entry": "a-b:c"}),
    (DaemonConfig, {"name": "x", "entry": "a:b:c"}),
    (DaemonConfig, {"name": "x", "command": ("a",), "env": {"A=": "1"}}),
    (DaemonConfig, {"name": "x", "command": ("a",), "env": {"A": "\x00"}}),
    (DaemonConfig, {"name": "x", "command": ("a",), "env": {"A": "ü" * 66000}}),
    (DaemonConfig, {"name": "x", "command": ("a",), "platform": "linux"}),
    (DaemonConfig, {"name": "x", "command": ("a",), "umask": 512}),
    (DaemonConfig, {"name": "x", "command": ("a",), "depends_on": "db"}),
]


@pytest.mark.parametrize(
    ("build", "arguments"),
    REFUSED,
    ids=[f"{kind.__name__}-{index}" for index, (kind, _) in enumerate(REFUSED)],
)
def test_refused_values(
    build: Callable[..., object], arguments: dict[str, object]
) -> None:
    """A value that makes no sense is refused where it is written, in Python too."""
    with pytest.raises((ValueError, TypeError)) as caught:
        build(**arguments)
    assert str(caught.value)


def test_secrets_are_not_shown() -> None:
    """The value of a variable that is refused is not in the message."""
    with pytest.raises(ValueError, match="TOKEN") as caught:
        DaemonConfig(name="x", command=("a",), env={"TOKEN": "s3cret\0"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("notify", "notify"),
        ("http://x/y", "http"),
        ("https://x", "http"),
        ("tcp://[::1]:80", "tcp"),
        ("unix:/run/x.sock", "unix"),
    ],
)
def test_short_readiness(text: str, kind: str) -> None:
    """Each short form of `ready` stands for its kind."""
    assert ready_from_text(text).kind == kind


def test_text_stands_for_members() -> None:
    """In Python, the file's texts are accepted for enum members."""
    daemon = DaemonConfig(name="x", command="a b", restart="always", ready="notify")
    assert daemon.restart.policy is RestartPolicy.ALWAYS
    assert daemon.command == ("a", "b")
    assert daemon.readiness.kind == "notify"
    assert ResourcesConfig(lock_memory=True).lock_memory is LockMemory.TRY
    assert DaemonConfig(name="x", entry="a:b").readiness.kind == "notify"
    assert DaemonConfig(name="x", command=("a",)).readiness.kind == "started"
