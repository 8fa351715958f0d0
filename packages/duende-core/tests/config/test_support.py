"""What is refused with "not supported yet"."""

from __future__ import annotations

from pathlib import Path

import pytest

from duende.core.config.load import load_project
from duende.core.config.model import DaemonConfig, HealthConfig, ProjectConfig
from duende.core.config.support import unsupported

from .samples import GOOD


def _unsupported(folder: Path, text: str) -> list[str]:
    file = folder / "duende.toml"
    file.write_text(text)
    found = unsupported(load_project(file))
    return [problem.removeprefix(str(file)) for problem in found]


def test_nothing_in_the_usual_file(tmp_path: Path) -> None:
    """The common case is supported."""
    assert _unsupported(tmp_path, GOOD["short"]) == []


def test_every_key_that_comes_later(tmp_path: Path) -> None:
    """Each is named with its line and path."""
    text = """
[supervisor]
chaos = true
[defaults]
resources = { pids = 5 }
[daemon.a]
entry = "x:y"
health.interval = "5s"
platform = "systemd"
restart_group = "g"
depends_on = { b = "healthy", c = { on_restart = "follow" } }
[daemon.a.systemd]
[daemon.b]
entry = "x:y"
resources = { memory = "1GiB", cpu = "50%", lock_memory = true, open_files = 5 }
[daemon.c]
command = "x"
resources.lock_memory = "required"
container.image = "x"
[group.g]
"""
    later = "not supported yet"
    hint = "; enforce = 'best-effort' starts without this limit"
    lock = (
        " for a command: a lock doesn't survive exec, so the program must lock its "
        "memory itself"
    )
    assert _unsupported(tmp_path, text) == [
        f":3: supervisor.chaos: {later}",
        f":9: daemon.a.platform: {later}: 'systemd'; write 'native'",
        f":8: daemon.a.health: {later}",
        f":12: daemon.a.systemd: {later}",
        f":10: daemon.a.restart_group: {later}",
        f":11: daemon.a.depends_on.b: {later}: 'healthy'; write 'ready'",
        f":11: daemon.a.depends_on.c: {later}: on_restart = 'follow'",
        f":5: defaults.resources.pids: {later}{hint}",
        f":15: daemon.b.resources.memory: {later}{hint}",
        f":15: daemon.b.resources.cpu: {later}{hint}",
        f":5: defaults.resources.pids: {later}{hint}",
        f":19: daemon.c.container: {later}",
        f":5: defaults.resources.pids: {later}{hint}",
        f":18: daemon.c.resources.lock_memory: {later}{lock}",
        f":20: group.g: {later}",
    ]


@pytest.mark.parametrize("key", ["memory = '1GiB'", "cpu = '50%'", "pids = 5"])
def test_best_effort_is_no_refusal(tmp_path: Path, key: str) -> None:
    """A limit that need not be enforced doesn't keep a daemon from starting."""
    text = f"[daemon.a]\ncommand = 'x'\n[daemon.a.resources]\n{key}\n"
    assert len(_unsupported(tmp_path, text)) == 1
    assert _unsupported(tmp_path, text + "enforce = 'best-effort'\n") == []


def test_without_a_file() -> None:
    """A configuration that was built in Python is judged by its paths alone."""
    daemon = DaemonConfig(name="a", entry="x:y", health=HealthConfig())
    assert unsupported(ProjectConfig(daemons={"a": daemon})) == (
        "daemon.a.health: not supported yet",
    )
