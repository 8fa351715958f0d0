"""The runner's decisions, each by itself, without a process."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from duende.core import Daemon, runner
from duende.core.errors import ConfigError, ResourceLimitError


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


def test_lock_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Required refuses, true warns, and lock_all is called as soon as there is one."""

    class Mlock:
        pass

    library: Any = Mlock()
    monkeypatch.setattr(importlib, "import_module", lambda name: library)
    assert runner.lock_memory("false") is None
    assert "no lock_all" in (runner.lock_memory("true") or "")
    with pytest.raises(ResourceLimitError, match="lock_memory is required"):
        runner.lock_memory("required")
    calls: list[str] = []
    library.lock_all = lambda: calls.append("locked")
    assert runner.lock_memory("required") is None
    assert calls == ["locked"]

    def refuse() -> None:
        raise OSError(12, "Cannot allocate memory")

    library.lock_all = refuse
    assert "Cannot allocate memory" in (runner.lock_memory("true") or "")
    with pytest.raises(ResourceLimitError, match="Cannot allocate memory"):
        runner.lock_memory("required")


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
