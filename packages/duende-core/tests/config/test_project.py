"""Where a project's files are."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from duende.core.config.project import (
    ProjectPaths,
    SupervisorRecord,
    find_file,
    list_projects,
    locate_project,
    make_folders,
    project_name,
    read_record,
    remove_record,
    runtime_root,
    state_root,
    write_record,
)
from duende.core.errors import ConfigError, PermissionDenied


def _environ(folder: Path) -> dict[str, str]:
    return {
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:8]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_paths(tmp_path: Path) -> None:
    """Everything is where the contract says, named by folder and hash."""
    folder = tmp_path / "My App!"
    folder.mkdir()
    file = folder / "duende.toml"
    file.touch()
    paths = locate_project(None, None, _environ(tmp_path), folder)
    assert paths.file == file
    assert paths.name == f"my-app-{_digest(file)}"
    assert paths.state == tmp_path / "state" / "duende" / paths.name
    assert paths.runtime == tmp_path / "run" / "duende" / paths.name
    assert paths.control_socket == paths.runtime / "control" / "duende.sock"
    assert paths.notify == paths.runtime / "notify"
    assert paths.logs == paths.state / "logs"
    assert paths.lock == paths.state / "lock"
    assert paths.journal == paths.state / "journal"
    assert paths.keeper_socket == paths.state / "keeper.sock"
    assert paths.accepted == paths.state / "accepted.json"
    assert paths.events == paths.state / "events.jsonl"
    assert locate_project("duende.toml", None, _environ(tmp_path), folder) == paths
    assert locate_project(str(file), None, _environ(tmp_path), tmp_path) == paths


def test_symlinks_are_not_resolved(tmp_path: Path) -> None:
    """The same file by two paths is two projects."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "duende.toml").touch()
    (tmp_path / "b").symlink_to("a")
    first = locate_project(None, None, _environ(tmp_path), tmp_path / "a")
    second = locate_project(None, None, _environ(tmp_path), tmp_path / "b")
    assert (first.name[:2], second.name[:2]) == ("a-", "b-")


def test_the_search_goes_up(tmp_path: Path) -> None:
    """Like git, a verb in a subfolder finds the project above it."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    assert find_file(deep) == deep / "duende.toml"
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.duende.daemon.x]\n")
    assert find_file(deep) == tmp_path / "a" / "pyproject.toml"
    (tmp_path / "a" / "b" / "pyproject.toml").write_text("[tool.black]\nx = 1\n")
    assert find_file(deep) == tmp_path / "a" / "pyproject.toml"
    (tmp_path / "a" / "duende.toml").touch()
    assert find_file(deep) == tmp_path / "a" / "duende.toml"
    (deep / "duende.toml").symlink_to("nowhere")
    assert find_file(deep) == deep / "duende.toml"


def test_a_strangers_file_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody left in a shared folder above is not ours."""
    (tmp_path / "a").mkdir()
    (tmp_path / "duende.toml").touch()
    assert find_file(tmp_path / "a") == tmp_path / "duende.toml"
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = list(real(path))
        found[stat.ST_UID] = 77 if str(path).endswith(".toml") else 0
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", lstat)
    assert find_file(tmp_path / "a") == tmp_path / "a" / "duende.toml"
    assert find_file(tmp_path) == tmp_path / "duende.toml"


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("[tool.duende]\n", True),
        ('[ tool . "duende" . supervisor ]\n', True),
        ("[tool]\nx = 1\nduende.daemon.a.command = 'x'\n", True),
        ("[tool]\nduende = {}\n", True),
        ("[tool.duende-extra]\n", False),
        ("[tool.other]\nduende = 1\n", False),
        ("[tool]\nx = 1\n[other]\nduende = 1\n", False),
        ("# [tool.duende]\n", False),
    ],
)
def test_which_pyproject_is_ours(tmp_path: Path, text: str, ours: bool) -> None:
    """A pyproject.toml counts only if it has a table for duende."""
    (tmp_path / "pyproject.toml").write_text(text)
    assert (find_file(tmp_path).name == "pyproject.toml") is ours


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[supervisor]\nproject = 'shop'\n", "shop"),
        ('# x\n[ "supervisor" ] # y\n  a = 1\nproject="shop" # z\n', "shop"),
        ("supervisor.project = 'shop'\n", "shop"),
        ("supervisor = { chaos = true, project = 'shop' }\n", "shop"),
        ("[supervisor]\nproject = 'shop'\n[[[broken\n", "shop"),
        ("[supervisor]\nproject = 'Not A Name'\n", None),
        ("[supervisor]\nproject = 5\n", None),
        ("[daemon.x.env]\nproject = 'shop'\n", None),
        ("[tool.duende.supervisor]\nproject = 'shop'\n", None),
        ("[supervisor]\n# project = 'shop'\n", None),
    ],
)
def test_a_chosen_name(tmp_path: Path, text: str, name: str | None) -> None:
    """[supervisor] project names the project, even in a file that is broken."""
    file = tmp_path / "duende.toml"
    file.write_text(text)
    found = project_name(file)
    assert found == (name or found)
    assert found.endswith(f"-{_digest(file)}") is (name is None)


def test_a_chosen_name_in_a_pyproject(tmp_path: Path) -> None:
    """In a pyproject.toml, the table has its prefix."""
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.duende.supervisor]\nproject = 'shop'\n")
    assert project_name(file) == "shop"
    file.write_text("[supervisor]\nproject = 'shop'\n[tool.duende]\n")
    assert project_name(file) != "shop"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("ÄÖ", "root"), ("x" * 200, "x" * 54), ("-.A__b c", "a__b-c"), ("", "root")],
)
def test_folder_names_are_made_safe(folder: str, name: str) -> None:
    """Whatever a folder is called, the project's name is one."""
    found = project_name(Path("/", folder, "duende.toml"))
    assert found.rpartition("-")[0] == name
    assert len(found) <= 63


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    """Something that isn't a file, in the file's place, is not waited for."""
    os.mkfifo(tmp_path / "duende.toml")
    assert project_name(tmp_path / "duende.toml").endswith(
        _digest(tmp_path / "duende.toml")
    )
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "folder.toml").mkdir()
    assert project_name(tmp_path / "folder.toml").endswith(
        _digest(tmp_path / "folder.toml")
    )
    assert len(os.listdir("/proc/self/fd")) == before


def test_by_name(tmp_path: Path) -> None:
    """--project finds a project from anywhere, with the file it was started from."""
    environ = _environ(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    file = tmp_path / "app" / "duende.toml"
    paths = locate_project("app/duende.toml", "shop", environ, tmp_path)
    make_folders(paths)
    paths.accepted.write_text(json.dumps({"file": str(file)}))
    assert (paths.name, paths.file) == ("shop", file)
    assert locate_project(None, "shop", environ, elsewhere) == paths
    with pytest.raises(ConfigError, match="no name of a project"):
        locate_project(None, "../x", environ, tmp_path)


def test_the_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's state is under ~/.local/state, unless the variable says otherwise."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert state_root({"HOME": "/h"}) == Path("/h/.local/state/duende")
    assert state_root({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/duende")
    assert state_root({"HOME": "/h", "XDG_STATE_HOME": "relative"}) == Path(
        "/h/.local/state/duende"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    with pytest.raises(ConfigError, match="set HOME"):
        state_root({})


def test_roots_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has the system's folders; the variables win for root too."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert state_root({"HOME": "/root"}) == Path("/var/lib/duende")
    assert runtime_root({}) == Path("/run/duende")
    environ = {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}
    assert state_root(environ) == Path("/s/duende")
    assert runtime_root(environ) == Path("/r/duende")


@pytest.fixture
def no_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is a machine without a /run that we may write to."""
    monkeypatch.setattr("duende.core.config.project._is_own_folder", lambda path: False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@pytest.mark.usefixtures("no_run_folder")
def test_the_private_folder(tmp_path: Path) -> None:
    """Without a runtime folder, a private one under the temporary one is used."""
    environ = {"TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "s")}
    private = tmp_path / f"duende-{os.geteuid()}"
    assert runtime_root(environ) == private
    assert runtime_root({}) == Path("/tmp") / private.name
    paths = locate_project("duende.toml", "shop", environ, tmp_path)
    make_folders(paths)
    assert _mode(private) == (0o711 if os.geteuid() == 0 else 0o700)
    assert runtime_root(environ) == private
    private.chmod(0o777)
    with pytest.raises(PermissionDenied, match="others may use it"):
        runtime_root(environ)
    with pytest.raises(PermissionDenied, match="others may use it"):
        make_folders(paths)


@pytest.mark.usefixtures("no_run_folder")
def test_a_private_folder_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, a file, or another user's folder in its place is refused."""
    environ = {"TMPDIR": str(tmp_path)}
    private = tmp_path / f"duende-{os.geteuid()}"
    private.symlink_to(tmp_path)
    with pytest.raises(PermissionDenied, match="symbolic link"):
        runtime_root(environ)
    private.unlink()
    private.touch()
    with pytest.raises(PermissionDenied, match="no folder"):
        runtime_root(environ)
    (tmp_path / "duende-77").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    with pytest.raises(PermissionDenied, match="belongs to uid"):
        runtime_root(environ)


@pytest.mark.parametrize("umask", [0o000, 0o777], ids=oct)
def test_folders_have_exact_modes(tmp_path: Path, umask: int) -> None:
    """Whatever the umask, the folders are as private as they are said to be."""
    paths = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    before = os.umask(umask)
    try:
        make_folders(paths)
        make_folders(paths)
    finally:
        os.umask(before)
    assert _mode(paths.state) == 0o700
    assert _mode(paths.runtime) == 0o711
    assert _mode(paths.control_socket.parent) == 0o700
    assert _mode(paths.notify) == 0o711
    assert _mode(paths.state.parent) == 0o700
    assert _mode(paths.runtime.parent) in (0o700, 0o711)


def test_folders_are_narrowed(tmp_path: Path) -> None:
    """A folder that somebody has opened up is closed again."""
    paths = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    make_folders(paths)
    paths.state.chmod(0o777)
    make_folders(paths)
    assert _mode(paths.state) == 0o700


def test_folders_that_are_links(tmp_path: Path) -> None:
    """A link or a file in the place of a folder is refused, and left alone."""
    paths = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    paths.state.parent.mkdir(parents=True)
    paths.state.symlink_to(target)
    with pytest.raises(PermissionDenied, match="symbolic link"):
        make_folders(paths)
    assert _mode(target) == 0o755
    paths.state.unlink()
    paths.state.touch()
    with pytest.raises(PermissionDenied, match="no folder"):
        make_folders(paths)


def test_folders_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that belongs to another user is refused."""
    paths = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    make_folders(paths)
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    with pytest.raises(PermissionDenied, match="belongs to uid"):
        make_folders(paths)


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    """Where nothing can be made, one message says what to set."""
    (tmp_path / "file").touch()
    environ = {"XDG_STATE_HOME": str(tmp_path / "file"), "XDG_RUNTIME_DIR": "/x"}
    paths = locate_project("duende.toml", "shop", environ, tmp_path)
    with pytest.raises(PermissionDenied, match="set XDG_STATE_HOME"):
        make_folders(paths)


def _record(runtime: Path, keeper_pid: int) -> SupervisorRecord:
    return SupervisorRecord(
        runtime=str(runtime),
        socket="/s",
        pid=1,
        keeper_pid=keeper_pid,
        file="/x/duende.toml",
        version="0.1.0",
    )


def _paths(folder: Path) -> ProjectPaths:
    paths = locate_project("duende.toml", "shop", _environ(folder), folder)
    make_folders(paths)
    return paths


def test_a_living_supervisors_runtime_wins(tmp_path: Path) -> None:
    """A verb with another environment finds the sockets of the one that runs."""
    paths = _paths(tmp_path)
    environ = {**_environ(tmp_path), "XDG_RUNTIME_DIR": "/elsewhere"}
    write_record(paths, _record(paths.runtime, os.getpid()))
    assert _mode(paths.supervisor_record) == 0o600
    assert locate_project("duende.toml", "shop", environ, tmp_path) == paths
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    write_record(paths, _record(paths.runtime, finished.pid))
    found = locate_project("duende.toml", "shop", environ, tmp_path)
    assert found.runtime == Path("/elsewhere/duende/shop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"runtime": 1, "keeper_pid": 1}',
        '{"runtime": "/x"}',
        '{"runtime": "x", "keeper_pid": 1}',
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_broken_records(tmp_path: Path, text: str) -> None:
    """A record that is cut off, or is none, counts as none."""
    paths = _paths(tmp_path)
    paths.supervisor_record.write_text(text)
    assert read_record(paths.supervisor_record) is None


@pytest.mark.parametrize(
    ("keeper_pid", "lives"), [(1, True), (2**70, False), (0, False)]
)
def test_whose_pids_count(tmp_path: Path, keeper_pid: int, lives: bool) -> None:
    """A process of another user lives too; what can't be a pid doesn't."""
    paths = _paths(tmp_path)
    write_record(paths, _record(Path("/recorded"), keeper_pid))
    found = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    assert (found.runtime == Path("/recorded")) is lives


def test_a_process_of_another_user_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not being allowed to signal a process shows that it is there."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    paths = _paths(tmp_path)
    write_record(paths, _record(Path("/recorded"), 42))
    found = locate_project("duende.toml", "shop", _environ(tmp_path), tmp_path)
    assert found.runtime == Path("/recorded")


def test_a_users_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, /run/user/UID is taken when it is the user's own."""
    folder = os.lstat("/")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    values = list(folder)
    values[stat.ST_UID] = 1234
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result(values))
    assert runtime_root({}) == Path("/run/user/1234/duende")
    values[stat.ST_UID] = 0
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert runtime_root({}) == Path("/tmp/duende-1234")


def test_records_come_back(tmp_path: Path) -> None:
    """A record is read as it was written, until it is removed."""
    paths = _paths(tmp_path)
    record = _record(paths.runtime, 42)
    write_record(paths, record)
    assert read_record(paths.supervisor_record) == record
    remove_record(paths)
    remove_record(paths)
    assert read_record(paths.supervisor_record) is None


def test_listing(tmp_path: Path) -> None:
    """`ls` shows every project that has said which file it is of."""
    environ = _environ(tmp_path)
    assert list_projects(environ) == []
    paths = _paths(tmp_path)
    (paths.state.parent / "stranger").mkdir()
    (paths.state.parent / "Not A Name").mkdir()
    assert list_projects(environ) == []
    write_record(paths, _record(paths.runtime, 0))
    assert list_projects(environ) == [paths._replace(file=Path("/x/duende.toml"))]


def test_finding_imports_little() -> None:
    """The fast path of every verb loads neither attrs nor cattrs nor tomllib."""
    program = (
        "import sys, duende.core.config.project;"
        "heavy = {'attr', 'attrs', 'cattrs', 'tomllib', 'tempfile', 'hashlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert shown.strip() == "[]"
