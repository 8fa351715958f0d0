"""From a file to the configuration, or to all its problems."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duende.core.config.load import load_project
from duende.core.config.model import (
    Dependency,
    DependencyState,
    Enforce,
    Intensity,
    LockMemory,
    OnRestart,
    ProjectConfig,
    Strategy,
)
from duende.core.errors import ConfigError
from duende.core.types import BackoffConfig, RestartPolicy

from .samples import BAD, GOOD


def _load(folder: Path, text: str) -> ProjectConfig:
    file = folder / "duende.toml"
    file.write_text(text)
    return load_project(file)


@pytest.mark.parametrize("name", BAD)
def test_all_problems_at_once(tmp_path: Path, name: str) -> None:
    """A wrong file gives all its problems, each with line, path and text."""
    text, expected, _ = BAD[name]
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    file = str(tmp_path / "duende.toml")
    found = [problem.removeprefix(file) for problem in caught.value.problems]
    assert found == expected
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert "s3cret" not in str(caught.value)


def test_the_short_file(tmp_path: Path) -> None:
    """Short forms stand for their long ones, and the rest has its defaults."""
    config = _load(tmp_path, GOOD["short"])
    ticker, web = config.daemons.values()
    assert (ticker.name, ticker.entry, ticker.readiness.kind) == (
        "ticker",
        "ticker:Ticker",
        "notify",
    )
    assert web.command == ("uvicorn", "app:app")
    assert web.readiness.http == "http://127.0.0.1:8000/healthz"
    assert web.depends_on == {"ticker": Dependency()}
    assert web.restart.policy is RestartPolicy.ALWAYS
    assert web.restart.backoff == BackoffConfig()
    assert (web.stop.signal, web.stop.timeout, web.instances) == ("SIGTERM", 10.0, 1)
    assert web.inherit_env == ()
    assert config.supervisor.log_total_max == 1024**3


def test_everything(tmp_path: Path) -> None:
    """Every key of the format arrives where it belongs, in Python's units."""
    config = _load(tmp_path, GOOD["everything"])
    web = config.daemons["web"]
    assert config.supervisor.shutdown_timeout == 60.0
    assert config.groups["front"].strategy is Strategy.ONE_FOR_ALL
    assert web.settings == {"every": 0.5, "since": "2024-01-01", "list": [1, "a"]}
    assert web.depends_on == {
        "db": Dependency(),
        "migrate": Dependency(
            until=DependencyState.COMPLETED, on_restart=OnRestart.IGNORE
        ),
    }
    assert web.env == {"PORT": "8000", "DEBUG": "true", "RATE": "0.5", "NAME": "x"}
    assert web.inherit_env == ("DATABASE_URL", "AWS_*")
    assert (web.user, web.group, web.umask) == ("www-data", "33", 0o022)
    assert web.restart.success_exit_codes == (0, 75)
    assert web.restart.max_in_window == Intensity(count=5, window=60.0)
    assert web.restart.backoff == BackoffConfig(initial=0)
    assert web.readiness.kind == "tcp"
    assert web.health is not None
    assert web.health.kind == "exec"
    assert web.reload.exec == ("kill", "-HUP", "1")
    resources = web.resources
    assert (resources.memory, resources.memory_swap) == (512 * 1024**2, 0)
    assert (resources.cpu, resources.io_write_bps) == (1.5, 10 * 1024**2)
    assert resources.lock_memory is LockMemory.REQUIRED
    assert resources.enforce is Enforce.BEST_EFFORT
    # Tables of the defaults are merged key by key.
    assert web.stop.timeout == 10.0
    assert config.daemons["db"].stop.timeout == 20.0


def test_defaults_are_merged_key_by_key(tmp_path: Path) -> None:
    """A daemon's own keys win, one by one, and a kind puts another kind aside."""
    config = _load(
        tmp_path,
        """
[defaults]
entry = "a:b"
settings = { x = 1, y = { z = 1 } }
restart = "always"
ready = "tcp://x:1"
reload.signal = "USR1"
depends_on = { db = "started" }
env = { A = 1 }
[daemon.db]
command = "db"
ready.timeout = "3s"
[daemon.web]
settings = { y = { w = 2 } }
restart.max_retries = 3
ready.log = "up"
reload.exec = ["r"]
depends_on.web2 = "ready"
env.B = 2
[daemon.web2]
""",
    )
    db, web = config.daemons["db"], config.daemons["web"]
    assert (db.entry, db.settings, db.depends_on) == (None, {}, {})
    assert (db.readiness.tcp, db.readiness.timeout) == ("x:1", 3.0)
    assert web.entry == "a:b"
    assert web.settings == {"x": 1, "y": {"z": 1, "w": 2}}
    assert web.restart.policy is RestartPolicy.ALWAYS
    assert web.restart.max_retries == 3
    assert (web.readiness.kind, web.readiness.tcp) == ("log", None)
    assert (web.reload.signal, web.reload.exec) == (None, ("r",))
    assert web.depends_on["db"].until is DependencyState.STARTED
    assert list(web.depends_on) == ["db", "web2"]
    assert web.env == {"A": "1", "B": "2"}
    assert config.daemons["web2"].settings == {"x": 1, "y": {"z": 1}}


def test_times_alone_keep_the_default_kind(tmp_path: Path) -> None:
    """An entry may set only its ready timeout; a command's goes with its kind."""
    config = _load(
        tmp_path,
        "[defaults.ready]\ntimeout = '3s'\n"
        "[daemon.a]\nentry = 'a:b'\n[daemon.b]\ncommand = 'x'\n",
    )
    assert config.daemons["a"].readiness.kind == "notify"
    assert config.daemons["a"].readiness.timeout == 3.0
    assert config.daemons["b"].readiness.kind == "started"


def test_an_entry_has_health(tmp_path: Path) -> None:
    """To wait for the health of an entry needs no table for it."""
    config = _load(
        tmp_path,
        "[daemon.a]\nentry = 'a:b'\nhealth.interval = '5s'\n"
        "[daemon.b]\nentry = 'a:b'\n"
        "[daemon.c]\ncommand = 'x'\ndepends_on = { a = 'healthy', b = 'healthy' }\n",
    )
    assert config.daemons["c"].depends_on["b"].until is DependencyState.HEALTHY


def test_a_value_of_128_kib_is_refused_early(tmp_path: Path) -> None:
    """A variable that execve can't take is refused when the file is read."""
    with pytest.raises(ConfigError, match=r"daemon\.a\.env\.BIG: has \d+ bytes"):
        _load(
            tmp_path,
            f"[daemon.a]\ncommand = 'x'\nenv = {{ BIG = '{'x' * 2**20}' }}\n",
        )


def test_the_source_is_no_part_of_the_value(tmp_path: Path) -> None:
    """Two files that say the same are the same configuration."""
    first = _load(tmp_path, GOOD["short"])
    second = _load(tmp_path, "# moved\n" + GOOD["short"])
    assert first == second
    assert first.source != second.source


_KEYS = st.sampled_from(
    [
        *("daemon", "defaults", "supervisor", "group", "a", "b", "command", "entry"),
        *("ready", "restart", "stop", "timeout", "depends_on", "env", "resources"),
        *("health", "instances", "reload", "log", "max_in_window", "backoff", "http"),
    ]
)
_VALUES = st.sampled_from(
    ["1", "-1", "true", "'x'", "['a']", "[[1]]", "{}", "{ a = 1 }", "1.5", "1979-05-27"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This is one folder for all examples of a property."""
    return tmp_path_factory.mktemp("any")


@settings(max_examples=200)
@given(st.lists(st.tuples(st.lists(_KEYS, min_size=1, max_size=4), _VALUES)))
def test_any_toml_is_loaded_or_refused(
    folder: Path, entries: list[tuple[list[str], str]]
) -> None:
    """Whatever a file says, it is a configuration or a list of problems."""
    text = "\n".join(f"{'.'.join(keys)} = {value}" for keys, value in entries)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    try:
        config = _load(folder, text)
    except ConfigError as err:
        assert err.problems
        for problem in err.problems:
            assert re.match(r".*duende\.toml:\d+: [a-z].*: .", problem)
    else:
        assert isinstance(config, ProjectConfig)
