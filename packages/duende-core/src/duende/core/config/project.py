"""Where a project's files are: its configuration, state folder and runtime folder.

Every verb begins here, so this imports the standard library alone, and little of it.
Finding is separate from making: `locate_project` changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from duende.core.errors import ConfigError, PermissionDenied

__all__ = (
    "ProjectPaths",
    "SupervisorRecord",
    "find_file",
    "list_projects",
    "locate_project",
    "make_folders",
    "project_name",
    "read_record",
    "remove_record",
    "runtime_root",
    "state_root",
    "write_record",
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LONGEST_FOLDER = 63 - 1 - 8
"""What is left of a name beside "-" and the 8 digits of the hash."""

_TOOL_TABLE = re.compile(
    r"""^[ \t]*\[+[ \t]*["']?tool["']?[ \t]*\.[ \t]*["']?duende["']?[ \t]*[\].]"""
    r"""|^[ \t]*\[[ \t]*tool[ \t]*\][ \t]*(?:\#[^\n]*)?\n(?:(?![ \t]*\[)[^\n]*\n)*?"""
    r"""[ \t]*duende[ \t]*[.=]""",
    re.MULTILINE,
)
_HEADER = re.compile(r"""[ \t]*\[{1,2}([^\]\n]*)\]""")
_PROJECT_KEY = re.compile(
    r"""[ \t]*(?P<key>[\w.\-"' \t]+?)[ \t]*=[ \t]*(?P<value>.*)"""
)
_PROJECT_TEXT = re.compile(r"""(?:"([^"\\\n]*)"|'([^'\n]*)')""")
_INLINE_PROJECT = re.compile(
    r"""\{(?:[^}]*,)?[ \t]*project[ \t]*=[ \t]*(?:"([^"\\\n]*)"|'([^'\n]*)')"""
)


class ProjectPaths(NamedTuple):
    """This says where everything of a project is; nothing of it need exist."""

    file: Path
    name: str
    state: Path
    runtime: Path

    @property
    def logs(self) -> Path:
        """The default of `[supervisor] log_dir`."""
        return self.state / "logs"

    @property
    def lock(self) -> Path:
        """The file that the keeper holds a lock on as long as it lives."""
        return self.state / "lock"

    @property
    def journal(self) -> Path:
        """The keeper's journal."""
        return self.state / "journal"

    @property
    def keeper_socket(self) -> Path:
        """The keeper's own socket."""
        return self.state / "keeper.sock"

    @property
    def control_socket(self) -> Path:
        """The control plane's socket, unless `--socket` puts it elsewhere."""
        return self.runtime / "control" / "duende.sock"

    @property
    def notify(self) -> Path:
        """The folder with a notify socket for each daemon."""
        return self.runtime / "notify"

    @property
    def supervisor_record(self) -> Path:
        """The record through which verbs find the supervisor."""
        return self.state / "supervisor.json"

    @property
    def accepted(self) -> Path:
        """The configuration in force."""
        return self.state / "accepted.json"

    @property
    def events(self) -> Path:
        """What happened, an event a line."""
        return self.state / "events.jsonl"


class SupervisorRecord(NamedTuple):
    """This is STATE/supervisor.json: what `up` writes down about itself."""

    runtime: str
    socket: str
    pid: int
    keeper_pid: int
    file: str
    version: str


def locate_project(
    file: str | None,
    project: str | None,
    environ: Mapping[str, str],
    cwd: Path,
) -> ProjectPaths:
    """This finds a project by its file, by its name, or from the current folder on.

    Without `file`, `duende.toml`, or a pyproject.toml with `[tool.duende]`, is
    looked for in `cwd` and then in its parents; when there is none, the paths are
    those that `cwd/duende.toml` would have. A runtime folder that a living
    supervisor has recorded wins over the one that the environment suggests.

    Raises:
        ConfigError: `project` can't be a name.
        PermissionDenied: The private folder for sockets belongs to somebody else.
    """
    root = state_root(environ)
    if project is not None and not _NAME.fullmatch(project):
        raise ConfigError(
            f"{project!r} is no name of a project",
            "use 1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter or digit; "
            "`duende ls` lists yours",
        )
    if file is not None:
        path = Path(os.path.abspath(os.path.join(cwd, file)))
    else:
        recorded = _recorded_file(root / project) if project else None
        path = recorded or find_file(cwd)
    name = project or project_name(path)
    state = root / name
    record = read_record(state / "supervisor.json")
    if record is not None and _process_lives(record.keeper_pid):
        return ProjectPaths(path, name, state, Path(record.runtime))
    return ProjectPaths(path, name, state, runtime_root(environ) / name)


def find_file(cwd: Path) -> Path:
    """This finds the configuration that a verb without `-f` means (see above).

    In parents, a file is passed over that belongs neither to us, nor to root, nor to
    its folder's owner: in /tmp, anybody could have put it there.
    """
    start = os.path.abspath(cwd)
    folder = start
    while True:
        toml = os.path.join(folder, "duende.toml")
        # A dangling link is found as well: better a message than the wrong project.
        if os.path.lexists(toml) and (folder == start or _is_trusted(toml)):
            return Path(toml)
        pyproject = os.path.join(folder, "pyproject.toml")
        if _TOOL_TABLE.search(_lenient_text(pyproject)):
            if folder == start or _is_trusted(pyproject):
                return Path(pyproject)
        parent = os.path.dirname(folder)
        if parent == folder:
            return Path(start, "duende.toml")
        folder = parent


def _is_trusted(file: str) -> bool:
    try:
        owner = os.lstat(file).st_uid
        return owner in (os.geteuid(), 0, os.lstat(os.path.dirname(file)).st_uid)
    except OSError:
        return False


def project_name(file: Path) -> str:
    """This names the project of a file, also of one that is broken or gone.

    It is `[supervisor] project` where that can be read, otherwise the folder's name
    and 8 digits of the hash of the file's absolute path, symlinks not resolved.
    """
    in_tool = file.name == "pyproject.toml"
    chosen = _chosen_name(_lenient_text(str(file)), in_tool=in_tool)
    if chosen is not None and _NAME.fullmatch(chosen):
        return chosen
    import hashlib

    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:8]
    folder = re.sub(r"[^a-z0-9_]+", "-", file.parent.name.lower()).strip("-_")
    return f"{folder[:_LONGEST_FOLDER] or 'root'}-{digest}"


def _chosen_name(text: str, *, in_tool: bool) -> str | None:
    """This reads `[supervisor] project` line by line, whatever else the text holds."""
    prefix = "tool.duende." if in_tool else ""
    table = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            table = _plain_key(header[1])
            continue
        key = _PROJECT_KEY.match(line)
        if key is None:
            continue
        full = _plain_key(f"{table}.{key['key']}" if table else key["key"])
        if full == f"{prefix}supervisor.project":
            match = _PROJECT_TEXT.match(key["value"])
        elif full == f"{prefix}supervisor":
            match = _INLINE_PROJECT.match(key["value"])
        else:
            continue
        return (match[1] or match[2]) if match else None
    return None


def _plain_key(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _lenient_text(file: str) -> str:
    """This reads a file that may be missing, unreadable or no text at all."""
    try:
        # Not blocking, so that a FIFO in the file's place holds nobody up.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        with open(
            descriptor, encoding="utf-8", errors="replace", closefd=False
        ) as stream:
            return stream.read()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def state_root(environ: Mapping[str, str]) -> Path:
    """This is the folder that has a state folder for each of the user's projects."""
    chosen = environ.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored, says the XDG base directory specification.
    if os.path.isabs(chosen):
        return Path(chosen, "duende")
    if os.geteuid() == 0:
        return Path("/var/lib/duende")
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser(f"~{_user_name()}")
    return Path(home, ".local", "state", "duende")


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigError(
            f"uid {os.geteuid()} has no entry in the user database and HOME is not set",
            "set HOME or XDG_STATE_HOME",
        ) from None


def runtime_root(environ: Mapping[str, str]) -> Path:
    """This is the folder that has a runtime folder for each of the user's projects.

    Raises:
        PermissionDenied: It would be under the temporary directory, and what is
            there isn't a private folder of ours.
    """
    chosen = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(chosen):
        return Path(chosen, "duende")
    user = os.geteuid()
    if user == 0 and os.access("/run", os.W_OK | os.X_OK):
        return Path("/run/duende")
    if user != 0 and _is_own_folder(f"/run/user/{user}"):
        return Path(f"/run/user/{user}/duende")
    temporary = environ.get("TMPDIR", "")
    if not os.path.isabs(temporary):
        # Whether what lies there is to be trusted is looked at below.
        temporary = "/tmp"
    private = Path(temporary, f"duende-{user}")
    if os.path.lexists(private):
        _check_private(private)
    return private


def _is_own_folder(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _check_private(path: Path) -> None:
    """This refuses a folder that others could have put there, or can look into."""
    found = os.lstat(path)
    problem = _foreign(found)
    # Root's daemons may run as other users, and must get to their notify sockets.
    allowed = 0o711 if os.geteuid() == 0 else 0o700
    if problem is None and stat.S_IMODE(found.st_mode) & ~allowed:
        problem = f"others may use it (mode {stat.S_IMODE(found.st_mode):04o})"
    if problem is not None:
        raise PermissionDenied(
            f"{path} is not a private folder: {problem}",
            "remove it, or set XDG_RUNTIME_DIR to a folder of yours",
        )


def _foreign(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}, not to uid {os.geteuid()}"
    return None


def make_folders(paths: ProjectPaths) -> None:
    """This makes the state and the runtime folder, with their exact modes.

    State is 0700, runtime 0711 with `control/` 0700 and `notify/` 0711, whatever
    the umask.

    Raises:
        PermissionDenied: One can't be made, or is a link or somebody else's.
    """
    # Root's daemons may run as other users, and must get to their notify sockets.
    reach = 0o711 if os.geteuid() == 0 else 0o700
    _make_parents(paths.state.parent, 0o700)
    _make_folder(paths.state, 0o700)
    _make_parents(paths.runtime.parent, reach)
    if paths.runtime.parent.name == f"duende-{os.geteuid()}":
        _check_private(paths.runtime.parent)
    _make_folder(paths.runtime, 0o711)
    _make_folder(paths.runtime / "control", 0o700)
    _make_folder(paths.runtime / "notify", 0o711)


def _make_parents(path: Path, mode: int) -> None:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        _make_folder(folder, mode)


def _make_folder(path: Path, mode: int) -> None:
    """This makes a folder with exactly this mode, whatever the umask."""
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            problem = _foreign(os.lstat(path))
            if problem is not None:
                raise PermissionDenied(
                    f"{path} can't be used: {problem}",
                    "remove it, or set XDG_STATE_HOME and XDG_RUNTIME_DIR",
                ) from None
        if stat.S_IMODE(os.lstat(path).st_mode) != mode:
            os.chmod(path, mode)
    except OSError as err:
        raise PermissionDenied(
            f"the folder {path} can't be made: {err.strerror}",
            "set XDG_STATE_HOME and XDG_RUNTIME_DIR to folders that you may write to",
        ) from err


def list_projects(environ: Mapping[str, str]) -> list[ProjectPaths]:
    """This lists the user's projects on this machine, by name.

    A project is a folder in the state folder that says which file it is of.
    """
    root = state_root(environ)
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        return []
    found = []
    for name in names:
        file = _recorded_file(root / name) if _NAME.fullmatch(name) else None
        if file is not None:
            found.append(locate_project(str(file), name, environ, Path("/")))
    return found


def read_record(file: Path) -> SupervisorRecord | None:
    """This reads STATE/supervisor.json; None when there is none, or a broken one."""
    found = _json_object(file)
    runtime, keeper_pid = found.get("runtime"), found.get("keeper_pid")
    if not isinstance(runtime, str) or not isinstance(keeper_pid, int):
        return None
    if not os.path.isabs(runtime):
        return None
    pid = found.get("pid")
    return SupervisorRecord(
        runtime=runtime,
        socket=str(found.get("socket", "")),
        pid=pid if isinstance(pid, int) else 0,
        keeper_pid=keeper_pid,
        file=str(found.get("file", "")),
        version=str(found.get("version", "")),
    )


def write_record(paths: ProjectPaths, record: SupervisorRecord) -> None:
    """This replaces STATE/supervisor.json as a whole, 0600."""
    temporary = paths.supervisor_record.with_name("supervisor.json.new")
    descriptor = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
    )
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(record._asdict(), stream)
    os.replace(temporary, paths.supervisor_record)


def remove_record(paths: ProjectPaths) -> None:
    """This removes STATE/supervisor.json, once nothing of the project runs."""
    paths.supervisor_record.unlink(missing_ok=True)


def _recorded_file(state: Path) -> Path | None:
    for record in ("supervisor.json", "accepted.json"):
        file = _json_object(state / record).get("file")
        if isinstance(file, str) and os.path.isabs(file):
            return Path(file)
    return None


def _json_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_lenient_text(str(file)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _process_lives(pid: int) -> bool:
    """This asks for any process with the pid; a stranger's only costs a detour."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
