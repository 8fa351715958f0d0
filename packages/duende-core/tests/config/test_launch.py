"""From a configuration to what is executed."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from duende.core.config.launch import Launch, render_launch
from duende.core.config.model import (
    DaemonConfig,
    HealthConfig,
    LockMemory,
    ProjectConfig,
    ResourcesConfig,
)
from duende.core.config.plan import DaemonSpec, plan_project
from duende.core.errors import ConfigError, SpawnError


def _program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def _launch(
    folder: Path,
    slot: str = "web",
    *,
    inherited: Any = None,
    **keys: object,
) -> Launch:
    daemon = DaemonConfig(name="web", **keys)  # type: ignore[arg-type]  # each test gives what fits
    plan = plan_project(ProjectConfig(daemons={"web": daemon}))
    return render_launch(
        plan.specs[slot],
        base_dir=folder,
        project="demo",
        run_id="r1",
        environ={
            "PATH": f"{folder}/bin:relative",
            "HOME": "/h",
            **(inherited or {}),
        },
        own_program=str(folder / "own" / "python"),
    )


def test_a_command(tmp_path: Path) -> None:
    """A command is found on the daemon's PATH, and gets duende's variables."""
    program = _program(tmp_path / "bin" / "tool")
    launch = _launch(
        tmp_path,
        "web-1",
        command=["tool", "-x"],
        instances=2,
        umask=0o27,
        resources=ResourcesConfig(nice=5, open_files=64),
    )
    assert launch == Launch(
        path=str(program),
        argv=("tool", "-x"),
        env={
            "PATH": f"{tmp_path}/bin:relative",
            "HOME": "/h",
            "PYTHONUNBUFFERED": "1",
            "DUENDE_PROJECT": "demo",
            "DUENDE_NAME": "web-1",
            "DUENDE_INSTANCE": "1",
            "DUENDE_RUN_ID": "r1",
        },
        cwd=str(tmp_path),
        umask=0o27,
        nice=5,
        limits={"nofile": [64, 64]},
    )


def test_where_programs_are_looked_for(tmp_path: Path) -> None:
    """On the daemon's own PATH, then beside duende's program; / is working_dir's."""
    (tmp_path / "work").mkdir()
    own = _program(tmp_path / "own" / "tool")
    assert _launch(tmp_path, command=["tool"]).path == str(own)
    relative = _program(tmp_path / "work" / "relative" / "tool")
    found = _launch(tmp_path, command=["tool"], working_dir="work")
    assert found.path == str(relative)
    assert found.cwd == str(tmp_path / "work")
    local = _program(tmp_path / "work" / "tool")
    assert _launch(tmp_path, command=["./tool"], working_dir="work").path == str(local)
    chosen = _launch(tmp_path, command=["sh"], env={"PATH": "/bin"})
    assert chosen.path == "/bin/sh"
    assert _launch(tmp_path, command=["sh"], inherit_env=False).path == "/usr/bin/sh"


@pytest.mark.parametrize(
    ("command", "number", "text"),
    [
        ("missing", errno.ENOENT, "program 'missing' was not found; looked in"),
        ("./missing", errno.ENOENT, "does not exist"),
        ("./folder", errno.EISDIR, "is a folder"),
        ("./plain", errno.EACCES, "is not executable"),
        ("plain", errno.EACCES, "is not executable"),
        ("./plain/x", errno.ENOTDIR, "Not a directory"),
        ("./loop", errno.ELOOP, "symbolic links"),
        ("x" * 300, errno.ENAMETOOLONG, "too long"),
    ],
    ids=["path", "file", "folder", "mode", "path-mode", "below", "loop", "long"],
)
def test_programs_that_cannot_be_run(
    tmp_path: Path, command: str, number: int, text: str
) -> None:
    """A program that can't be executed is a spawn error with errno and step."""
    (tmp_path / "folder").mkdir()
    _program(tmp_path / "plain", 0o644)
    _program(tmp_path / "bin" / "plain", 0o644)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SpawnError, match=text) as caught:
        _launch(tmp_path, command=[command])
    assert (caught.value.errno, caught.value.step) == (number, "exec")
    assert "daemon 'web'" in str(caught.value)


def test_working_dir_must_be_a_folder(tmp_path: Path) -> None:
    """A working_dir that isn't there, or is a file, is a config error."""
    _program(tmp_path / "file")
    for place in ("missing", "file"):
        with pytest.raises(ConfigError, match=f"working_dir .*{place}"):
            _launch(tmp_path, command=["sh"], working_dir=place)


def test_working_dir_must_be_enterable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that may not be entered is a config error as well."""
    # Root may enter every folder, so the system's answer is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="may not be entered"):
        _launch(tmp_path, command=["sh"])


def test_programs_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in a folder that may not be entered is told from one without +x."""
    real = os.stat

    def refuse(path: str) -> os.stat_result:
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(SpawnError, match="can't be executed: Permission denied"):
        _launch(tmp_path, command=["closed/tool"])


def test_a_program_with_a_nul(tmp_path: Path) -> None:
    """A NUL that Python code has slipped in is no traceback either."""
    _program(tmp_path / "bin" / "tool")
    daemon = DaemonConfig(name="web", command=("tool",))
    object.__setattr__(daemon, "command", ("to\0ol",))
    spec = DaemonSpec(name="web", base="web", instance=0, config=daemon)
    with pytest.raises(SpawnError, match="was not found"):
        render_launch(
            spec,
            base_dir=tmp_path,
            project="p",
            run_id="r",
            environ={},
            own_program="",
        )


def test_an_entry(tmp_path: Path) -> None:
    """An entry is run by the runner, which gets its settings in the environment."""
    own = _program(tmp_path / "own" / "python")
    launch = _launch(
        tmp_path,
        entry="app.main:Worker",
        settings={"every": 0.5},
        resources=ResourcesConfig(lock_memory=LockMemory.REQUIRED),
        env={"DUENDE_RUNNER": "mine"},
    )
    assert launch.path == str(own)
    assert launch.argv[1:] == ("-m", "duende.core.runner", "app.main:Worker")
    assert json.loads(launch.env["DUENDE_RUNNER"]) == {
        "daemon": "web",
        "file": None,
        "name": "web",
        "settings": {"every": 0.5},
        "stop_timeout": 10.0,
        "lock_memory": "required",
    }


@pytest.mark.parametrize(
    ("declared", "supervisors", "daemons", "granted"),
    [
        (LockMemory.OFF, None, None, False),
        (LockMemory.TRY, None, None, True),
        (LockMemory.REQUIRED, None, None, True),
        (LockMemory.REQUIRED, "off", None, False),
        (LockMemory.OFF, "try", None, True),
        (LockMemory.OFF, "try", "off", False),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is named")
def test_another_user_gets_the_right_to_lock(
    tmp_path: Path,
    declared: LockMemory,
    supervisors: str | None,
    daemons: str | None,
    granted: bool,
) -> None:
    """CAP_IPC_LOCK and nothing else, when memory is to be locked; DUENDE_MLOCK wins,
    the daemon's own before the supervisor's."""
    _program(tmp_path / "own" / "python")
    launch = _launch(
        tmp_path,
        inherited={} if supervisors is None else {"DUENDE_MLOCK": supervisors},
        entry="a:b",
        user="nobody",
        env={} if daemons is None else {"DUENDE_MLOCK": daemons},
        resources=ResourcesConfig(lock_memory=declared),
    )
    assert launch.capabilities == ((14,) if granted else ())
    assert launch.env.get("DUENDE_MLOCK") == (daemons or supervisors)


def test_an_override_that_is_none(tmp_path: Path) -> None:
    """It is said for which daemon, and what can be written."""
    _program(tmp_path / "own" / "python")
    if os.geteuid() != 0:
        pytest.skip("needs root: another user is named")
    with pytest.raises(ConfigError, match="'web': DUENDE_MLOCK is 'yes'"):
        _launch(
            tmp_path,
            entry="a:b",
            user="nobody",
            env={"DUENDE_MLOCK": "yes"},
        )


def test_an_entry_with_its_own_python(tmp_path: Path) -> None:
    """`python` is looked up like a command."""
    _program(tmp_path / "bin" / "python9")
    launch = _launch(tmp_path, entry="a:b", python="python9")
    assert launch.path == str(tmp_path / "bin" / "python9")
    assert launch.argv[0] == "python9"


def test_an_entry_by_path(tmp_path: Path) -> None:
    """A path is made absolute: in working_dir, else beside the file."""
    _program(tmp_path / "own" / "python")
    (tmp_path / "work").mkdir()
    beside = _program(tmp_path / "app.py")
    launch = _launch(tmp_path, entry="app.py:Worker", working_dir="work")
    assert launch.argv[-1] == f"{beside}:Worker"
    inside = _program(tmp_path / "work" / "app.py")
    launch = _launch(tmp_path, entry="app.py:Worker", working_dir="work")
    assert launch.argv[-1] == f"{inside}:Worker"
    with pytest.raises(SpawnError, match=r"there is no file .*missing\.py"):
        _launch(tmp_path, entry="missing.py:Worker")


def test_settings_that_are_no_json(tmp_path: Path) -> None:
    """Settings that were given in Python must be JSON."""
    _program(tmp_path / "own" / "python")
    with pytest.raises(ConfigError, match="can't be written as JSON"):
        _launch(tmp_path, entry="a:b", settings={"x": object()})


def test_an_unknown_interpreter(tmp_path: Path) -> None:
    """Where Python itself is embedded, an entry needs `python`."""
    plan = plan_project(
        ProjectConfig(daemons={"web": DaemonConfig(name="web", entry="a:b")})
    )
    with pytest.raises(SpawnError, match="set python"):
        render_launch(
            plan.specs["web"],
            base_dir=tmp_path,
            project="demo",
            run_id="r",
            environ={},
            own_program="",
        )


def test_a_watchdog(tmp_path: Path) -> None:
    """A watchdog's interval is handed over in microseconds."""
    health = HealthConfig(notify=True, interval=1.5)
    launch = _launch(tmp_path, command=["/bin/sh"], health=health)
    assert launch.watchdog_usec == 1_500_000


def test_env_files_are_read_each_time(tmp_path: Path) -> None:
    """What changed between two starts is seen by the second."""
    (tmp_path / ".env").write_text("A=1")
    keys: dict[str, object] = {"command": ["/bin/sh"], "env_file": [".env"]}
    assert _launch(tmp_path, "web", **keys).env["A"] == "1"
    (tmp_path / ".env").write_text("A=2")
    assert _launch(tmp_path, "web", **keys).env["A"] == "2"


def test_our_own_interpreter_is_the_default(tmp_path: Path) -> None:
    """Without another, an entry runs under the Python that duende runs under."""
    plan = plan_project(
        ProjectConfig(daemons={"web": DaemonConfig(name="web", entry="a:b")})
    )
    launch = render_launch(
        plan.specs["web"], base_dir=tmp_path, project="p", run_id="r", environ={}
    )
    assert launch.path == sys.executable
