"""The runner's decisions, each by itself, without a process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duende.core import Daemon, runner
from duende.core.errors import ConfigError


def test_trio_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package and how to install it."""

    class Own(Daemon):
        backend = "trio"

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    kind: Any = Own
    with pytest.raises(ConfigError, match="pip install trio"):
        runner._check_backend("asyncio", kind)
    with pytest.raises(ConfigError, match="'curio'"):
        runner._check_backend("curio", kind)


LOCKING = """
import json, os, resource, sys
from duende.core import runner
import duende.mlock._cli
def locked():
    for line in open("/proc/self/status"):
        if line.startswith("VmLck:"):
            return int(line.split()[1]) * 1024
def attempt(declared):
    try:
        return runner.lock_memory(declared)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
limit, declared = json.loads(sys.argv[1])
if limit is not None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)
print(json.dumps([attempt(declared), locked()]))
"""


def lock(declared: str, limit: int | None = None, **environ: str) -> tuple[str, int]:
    """This locks in a process of its own; with a limit, as a user without rights."""
    done = subprocess.run(
        [sys.executable, "-c", LOCKING, json.dumps([limit, declared])],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer, count = json.loads(done.stdout)
    return answer or "", count


linux = pytest.mark.skipif(sys.platform != "linux", reason="mlockall is Linux's")
capable = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_IPC_LOCK: be root")


@linux
@capable
@pytest.mark.real
@pytest.mark.parametrize(
    ("declared", "variable", "is_locked"),
    [
        ("false", None, False),
        ("true", None, True),
        ("required", None, True),
        ("required", "off", False),
        ("false", "try", True),
        ("false", "required", True),
    ],
)
def test_memory_is_locked_as_declared_or_overridden(
    declared: str, variable: str | None, is_locked: bool
) -> None:
    """The kernel says whether it is; DUENDE_MLOCK wins."""
    environ = {} if variable is None else {"DUENDE_MLOCK": variable}
    warning, count = lock(declared, None, **environ)
    assert (count > 0) is is_locked
    assert warning == ""


@linux
@pytest.mark.real
def test_memory_that_cannot_be_locked() -> None:
    """Required refuses with what to do, true warns; nothing is locked by half."""
    text, count = lock("required", 65536)
    assert text.startswith("ResourceLimitError: lock_memory is required")
    assert "65536 bytes" in text
    assert "diagnose" in text
    assert count == 0
    text, count = lock("true", 65536)
    assert text.startswith("memory is not locked: the limit RLIMIT_MEMLOCK is 65536")
    assert count == 0
    text, count = lock("true", 65536, DUENDE_MLOCK="required")
    assert text.startswith("ResourceLimitError")


@linux
@pytest.mark.real
def test_a_variable_that_says_something_else() -> None:
    """DUENDE_MLOCK with another value is a wrong configuration."""
    text, count = lock("true", DUENDE_MLOCK="yes")
    assert text.startswith("ConfigError: DUENDE_MLOCK is 'yes'")
    assert count == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"stop_timeout": "x"}', '{"stop_timeout": -1}']
)
def test_a_variable_that_is_not_ours(text: str) -> None:
    """DUENDE_RUNNER that no supervisor wrote is one clear error."""
    with pytest.raises(ConfigError, match="DUENDE_RUNNER can't be read"):
        runner.parse_runner_config(text)


def test_keys_of_newer_supervisors_are_passed_over() -> None:
    """A key that this runner does not know does no harm."""
    text = json.dumps({"name": "x", "stop_timeout": 3, "from_the_future": 1})
    config = runner.parse_runner_config(text)
    assert (config.name, config.stop_timeout) == ("x", 3)


def test_settings_of_a_pyproject(tmp_path: Path) -> None:
    """A reload reads [tool.duende] of a pyproject.toml, defaults below."""
    file = tmp_path / "pyproject.toml"
    file.write_text(
        "[tool.duende.defaults.settings]\na = 1\nb = 1\n"
        "[tool.duende.daemon.web.settings]\nb = 2\n"
    )
    config = runner.RunnerConfig(name="web-1", daemon="web", file=str(file))
    assert runner.read_settings(config) == {"a": 1, "b": 2}
    again = runner.RunnerConfig(name="web", settings={"c": 3})
    assert runner.read_settings(again) == {"c": 3}
