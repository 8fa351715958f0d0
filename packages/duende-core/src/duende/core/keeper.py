"""The keeper: the parent of all daemons, which decides nothing and must not die.

It spawns what the control plane tells it to, reaps, captures output into rotated
logs, binds and drains the notify sockets, and journals what happened. The protocol
and the files are described in docs/architecture.md, section 3. Nothing that chooses
(restarts, readiness, timeouts) belongs here.

It is run as `python -I -S keeper.py --state DIR --runtime DIR` and imports nothing
of duende and little of the standard library: that is why it is one file of more
than 600 lines, and why it uses the C modules below `json`, `socket` and `signal`
(importing those three costs 25 ms of the first daemon's start).

Two threads. The loop (`Keeper`) is *not* the main thread: children belong to the
thread that forked them, orphans are re-parented to a process's first thread, so
`/proc/PID/task/PID/children` lists the orphans alone, however many daemons there
are. The main thread is the log writer; nothing but it waits for the log disk.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import resource
import select
import stat
import sys
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import queue
    import signal
    import socket
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from heapq import heappop, heappush
    from typing import Any, ClassVar, NoReturn

    Json = dict[str, Any]
else:
    try:
        import _queue as queue
        import _signal as signal
        import _socket as socket
        from _heapq import heappop, heappush
    except ImportError:  # not CPython: the public modules cost only time
        import queue
        import signal
        import socket
        from heapq import heappop, heappush

PROTOCOL_VERSION = 1
SUN_PATH_MAX = 107  # unix(7), without the final NUL
MAX_LINE = 1024 * 1024
"""No line of the protocol is longer (docs/architecture.md, section 3)."""

MAX_DATAGRAM = 4096
READ_SIZE = 256 * 1024
"""One read of a FIFO: fits the L2 cache, so that the write after it is cheap."""

MAX_PIPE = 1024 * 1024
"""/proc/sys/fs/pipe-max-size unless root raised it."""

QUEUE_LIMIT = 16 * 1024 * 1024
"""Bytes read but not yet written. Above it FIFOs are left to fill up."""

STALL_SECONDS = 1.0
"""A disk that wrote nothing for so long is too slow: output is dropped, counted."""

MAX_PAUSE = 0.05
FIRST_PAUSE = 0.002
QUIET_SECONDS = 1.0
"""A daemon that wrote nothing for so long is read eagerly again."""

SWEEP_SECONDS = 0.5
"""How long signalling a growing tree may hold up the loop, a time."""

TURN_SECONDS = 0.004
"""How long one kind of work may go on before the loop looks at the others."""

OUT_LIMIT = 32 * 1024 * 1024
"""A control plane that lets so much pile up is hung; it may attach again."""

NOTED_MAX = 4096
"""Processes noted for one slot before the dead among them are forgotten."""

MAX_CONNECTIONS = 64
SUPERVISOR_LOG_MAX = 1024 * 1024
CONTROL_DELAY_FIRST = 1.0
CONTROL_DELAY_MAX = 30.0
CONTROL_STABLE = 60.0
"""The control plane is restarted after 1 s, doubling to 30 s, reset by 60 s of life."""

PR_SET_KEEPCAPS = 8  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION = 0x20080522  # linux/capability.h: _LINUX_CAPABILITY_VERSION_3
F_SETPIPE_SZ = 1031  # linux/fcntl.h
F_GETPIPE_SZ = 1032
SO_PASSPIDFD = 76  # asm-generic/socket.h, Linux 6.5
SCM_RIGHTS = 1
SCM_CREDENTIALS = 2
SCM_PIDFD = 4
PIDFD_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11  # linux/pidfd.h, Linux 6.13
PIDFD_INFO_EXIT = 1 << 3  # Linux 6.15

NAME_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
)


# --------------------------------------------------------------------------- JSON


def _refuse(value: object) -> Any:
    raise ValueError(f"no JSON: {value!r}")


def _make_codec() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    """This builds a JSON reader and writer on the C halves of `json` alone."""
    try:
        import _json
    except ImportError:
        import json

        return json.loads, lambda value: json.dumps(value, separators=(",", ":"))

    class Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = staticmethod(_refuse)
        memo: ClassVar[dict[str, str]] = {}

    scan: Any = _json.make_scanner(Context())  # type: ignore[arg-type]
    render: Any = _json.make_encoder(
        None,
        _refuse,
        _json.encode_basestring_ascii,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )

    def loads(text: str) -> Any:
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except StopIteration as err:
            raise ValueError("no JSON value") from err
        except RecursionError as err:
            raise ValueError("nested too deeply") from err
        if end != len(text):
            raise ValueError("something follows the JSON value")
        return value

    def dumps(value: Any) -> str:
        return "".join(render(value, 0))

    probe = {"a": [1, -2.5, None, True, 'é"\n'], "b": {}}
    if loads(dumps(probe)) != probe:
        raise ImportError("the C halves of json do not fit together")
    return loads, dumps


loads, dumps = _make_codec()


def encode_line(value: Json) -> bytes:
    """This renders one line of the protocol."""
    return dumps(value).encode("ascii") + b"\n"


# ------------------------------------------------------------- small pieces of /proc


class Refused(Exception):
    """A request that is answered with `error`; nothing was changed."""


class SpawnFailed(Exception):
    """A process could not be started: at which step, and with which errno."""

    def __init__(self, step: str, number: int, text: str = "") -> None:
        super().__init__(step, number, text)
        self.step = step
        self.number = number
        self.text = text or os.strerror(number)


def clock() -> list[int]:
    """This is the time of an event: monotonic and wall clock, in nanoseconds."""
    return [time.monotonic_ns(), time.time_ns()]


def read_file(path: str, limit: int = 65536) -> bytes | None:
    """This reads a (small) file, or gives None when it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, limit)
        if len(data) < 512:
            return data
        while len(data) < limit:
            more = os.read(fd, limit - len(data))
            if not more:
                break
            data += more
        return data
    except OSError:
        return None
    finally:
        os.close(fd)


class Stat:
    """This is what the keeper needs of /proc/PID/stat."""

    __slots__ = ("parent", "session", "start", "state")

    def __init__(self, state: str, parent: int, session: int, start: int) -> None:
        self.state = state
        self.parent = parent
        self.session = session
        self.start = start


def parse_stat(data: bytes) -> Stat | None:
    """This parses /proc/PID/stat; the name may hold anything, so from the last `)`."""
    _, found, rest = data.rpartition(b")")
    fields = rest.split()
    if not found or len(fields) < 20:
        return None
    try:
        return Stat(
            fields[0].decode("ascii"), int(fields[1]), int(fields[3]), int(fields[19])
        )
    except ValueError:
        return None


def read_stat(pid: int) -> Stat | None:
    """This reads /proc/PID/stat, or gives None when there is no such process."""
    data = read_file(f"/proc/{pid}/stat", 4096)
    return parse_stat(data) if data else None


def children_of(pid: int) -> list[int]:
    """This lists the children of every thread of a process, now."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        data = read_file(f"/proc/{pid}/task/{thread}/children", 1 << 22)
        if data:
            found.extend(map(int, data.split()))
    return found


def exit_info(pidfd: int) -> int | None:
    """This asks the kernel for the wait status of a reaped process (Linux 6.15)."""
    buffer = bytearray(64)
    buffer[0:8] = PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    if not int.from_bytes(buffer[0:8], sys.byteorder) & PIDFD_INFO_EXIT:
        return None
    return int.from_bytes(buffer[60:64], sys.byteorder, signed=True)


def zombie_status(pid: int, start: int | None) -> int | None:
    """This reads the wait status of a zombie that somebody else has to wait for.

    To those who may not know it, /proc/PID/stat shows 0; the link beside it has the
    same permission (ptrace(2), PTRACE_MODE_READ_FSCREDS), so that is asked as well.
    """
    data = read_file(f"/proc/{pid}/stat", 4096) or b""
    status = parse_stat(data)
    fields = data.rpartition(b")")[2].split()
    if status is None or status.start != start or status.state != "Z":
        return None
    try:
        os.readlink(f"/proc/{pid}/ns/user")
        return int(fields[49])
    except (OSError, IndexError, ValueError):
        return None


def exit_record(status: int | None) -> Json:
    """This renders a wait status as `exit` of the protocol; None is unknown."""
    if status is None:
        return {"code": None, "signal": None, "core": False, "unknown": True}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        core = os.WCOREDUMP(status)
        return {"code": None, "signal": number, "core": core, "unknown": False}
    code = os.WEXITSTATUS(status)
    return {"code": code, "signal": None, "core": False, "unknown": False}


def c_function(name: str) -> Callable[..., int]:
    """This finds a function of the C library that takes ints and bytes."""
    try:
        import _ctypes

        low: Any = _ctypes  # without the 5 ms of ctypes itself
        address = low.dlsym(low.dlopen(None, 0), name)
        return lambda *arguments: low.call_function(address, arguments)
    except (ImportError, AttributeError, OSError):
        import ctypes

        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
        return found


def become_subreaper() -> bool:
    """This makes orphans of our descendants our children (prctl(2))."""
    try:
        return c_function("prctl")(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except Exception:
        return False


def own_capabilities(kind: str) -> int:
    """This reads a set of capabilities of this process, as proc(5) names it."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{kind}:"):
                return int(line.split()[1], 16)
    return 0


class Capabilities:
    """This carries capabilities through a change of user and through exec.

    Both forget them otherwise: the change unless "keep" is set, exec unless they are
    ambient (capabilities(7)). Only what this process has can be carried.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        wanted = sum(1 << number for number in set(numbers))
        self.mask = wanted & own_capabilities("CapPrm") if wanted else 0

    def keep(self) -> None:
        """This is called before the change of user."""
        if self.mask:
            c_function("prctl")(PR_SET_KEEPCAPS, 1, 0, 0, 0)

    def grant(self) -> None:
        """This is called after it, and leaves these capabilities and no other.

        Raises:
            OSError: The kernel did not do so.
        """
        if not self.mask:
            return
        words = [self.mask & 0xFFFFFFFF, self.mask >> 32]
        sets = [word for word in words for _ in range(3)]
        header = [CAPABILITY_VERSION, 0]
        packed = (
            b"".join(word.to_bytes(4, sys.byteorder) for word in each)
            for each in (header, sets)
        )
        c_function("capset")(*packed)
        for number in range(self.mask.bit_length()):
            if self.mask >> number & 1:
                c_function("prctl")(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)
        for kind in ("CapPrm", "CapEff", "CapAmb"):
            if own_capabilities(kind) != self.mask:
                raise OSError(errno.EPERM, f"the kernel set another {kind}")


def open_folder(path: str, mode: int, *, follow: bool = True) -> int:
    """This makes a folder (and those above it) if missing, and opens it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent in ("", path):
            raise
        os.close(open_folder(parent, 0o755 if mode & 0o011 else 0o700))
        os.mkdir(path, mode)
    fd = os.open(path, flags | os.O_NOFOLLOW)
    os.fchmod(fd, mode)  # whatever the umask is at this moment
    return fd


def is_open_to_all(folder: str) -> bool:
    """Whether every user may pass through a folder and all those above it."""
    while True:
        if not os.stat(folder).st_mode & 0o001:
            return False
        if folder in ("/", ""):
            return True
        folder = os.path.dirname(folder)


def open_private_folder(path: str, mode: int) -> int:
    """This opens a folder that must be ours; nobody else may write in it.

    Raises:
        PermissionError: It belongs to somebody else.
        NotADirectoryError: It is a symbolic link, which could lead anywhere.
    """
    fd = open_folder(path, mode, follow=False)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(errno.EPERM, "the folder belongs to another user", path)
    if stat.S_IMODE(status.st_mode) & ~mode:
        os.fchmod(fd, mode)
    return fd


def remove_folder(path: str) -> None:
    """This removes a folder of ours with all that is in it; links aren't followed."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                remove_folder(entry.path)
            else:
                os.unlink(entry.path)
        except OSError:
            pass
    try:
        os.rmdir(path)
    except OSError:
        pass


def append_text(fd: int, text: str) -> None:
    """This writes to a log of our own; if that fails nobody can be told."""
    try:
        os.write(fd, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def note(text: str) -> None:
    """This writes one line to STATE/keeper.log, which is our stderr, and bounded."""
    try:
        if os.fstat(2).st_size > SUPERVISOR_LOG_MAX:
            os.ftruncate(2, 0)
    except OSError:
        pass  # no log yet: a terminal, or nothing
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append_text(2, f"{when} {text}\n")


def note_exception(what: str) -> None:
    """This writes the current exception to STATE/keeper.log."""
    import traceback

    note(f"{what}\n{traceback.format_exc()}")


# ------------------------------------------------------------------------- journal


def checksum(data: bytes) -> str:
    """This is the CRC-32 that ends a journal line, as eight hex digits."""
    import binascii

    return f"{binascii.crc32(data):08x}"


def encode_record(record: Json) -> bytes:
    """This renders a journal line: JSON, whose last member is its own checksum."""
    body = dumps(record).encode("ascii")[:-1]
    return body + b',"crc":"' + checksum(body).encode("ascii") + b'"}\n'


def decode_record(line: bytes) -> Json | None:
    """This reads a journal line, or gives None for one that is not as written."""
    body, found, tail = line.rpartition(b',"crc":"')
    if not found or tail.strip() != checksum(body).encode("ascii") + b'"}':
        return None
    try:
        record = loads(body.decode("ascii") + "}")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def decode_journal(data: bytes) -> Iterator[Json]:
    """This yields the sound records; garbage, wherever it is, is skipped."""
    for line in data.split(b"\n"):
        record = decode_record(line) if line else None
        if record is not None:
            yield record


class History:
    """This is what a journal says: slots, epoch, sequence number, control plane."""

    def __init__(self) -> None:
        self.slots: dict[str, Json] = {}
        self.blob: Any = None
        self.epoch = 0
        self.seq = 0
        self.control: Json | None = None
        self.notify: str | None = None

    def apply(self, record: Json) -> None:
        """This adds one record. One with the wrong fields changes nothing."""
        try:
            self._apply(record)
        except (KeyError, TypeError, ValueError):
            return

    def _apply(self, record: Json) -> None:
        kind = record["t"]
        self.seq = max(self.seq, int(record.get("q", 0)))
        self.epoch = max(self.epoch, int(record.get("epoch", 0)))
        if kind == "keeper":
            self.notify = record.get("notify", self.notify)
        elif kind == "control":
            self.control = record if record.get("argv") else None
        elif kind == "put" and record["name"] == "":
            self.blob = record["blob"]
        elif kind == "forget":
            self.slots.pop(record["name"], None)
        elif kind == "slot":
            self.slots[str(record["slot"]["name"])] = dict(record["slot"])
        elif kind == "intent":
            slot = self.slots.setdefault(str(record["name"]), {})
            blob = slot.get("blob")
            slot.clear()
            slot.update(blob=blob)
            slot.update({k: v for k, v in record.items() if k not in ("t", "q")})
            slot["intent"] = True
        elif kind in ("put", "pid", "failed", "exit", "empty", "main", "note"):
            slot = self.slots.setdefault(str(record["name"]), {"name": record["name"]})
            if kind == "put":
                slot["blob"] = record["blob"]
                return
            if record["run"] != slot.get("run"):
                return
            changes = {k: v for k, v in record.items() if k not in ("t", "q", "name")}
            slot.update(changes)
            if kind != "note":
                slot["intent"] = False


class Journal:
    """This appends records; one write a batch, rewritten by rename when long."""

    def __init__(self, folder: int, describe: Callable[[], list[Json]]) -> None:
        self._folder = folder
        self._describe = describe
        self._pending: list[bytes] = []
        self._fd = -1
        self._size = 0
        self._compact_at = 1 << 20
        self._retry_at = 0.0
        self.ok = True

    def read(self) -> History:
        """This reads what earlier keepers wrote."""
        history = History()
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open("journal", flags, dir_fd=self._folder)
        except OSError:
            return history
        parts = []
        try:
            while part := os.read(fd, 1 << 20):
                parts.append(part)
        except OSError:
            pass
        finally:
            os.close(fd)
        for record in decode_journal(b"".join(parts)):
            history.apply(record)
        return history

    def add(self, record: Json) -> None:
        """This adds a record to the next `flush`."""
        self._pending.append(encode_record(record))

    @property
    def fd(self) -> int:
        """The open journal, for fsync."""
        return self._fd

    def flush(self) -> None:
        """This hands what was added to the kernel; a full disk is borne."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        if not self.ok:
            if time.monotonic() >= self._retry_at:
                self.compact()
            return
        try:
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]
        except OSError as err:
            self._failed(err)
            return
        if self._size > self._compact_at:
            self.compact()

    def _failed(self, err: OSError) -> None:
        if self.ok:
            note(f"the journal can't be written ({err}); going on in memory")
        self.ok = False
        self._retry_at = time.monotonic() + 1.0

    def compact(self) -> None:
        """This rewrites the journal from the state in memory."""
        self._pending.clear()
        data = b"".join(map(encode_record, self._describe()))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = -1
        try:
            fd = os.open("journal.new", flags | os.O_APPEND, 0o600, dir_fd=self._folder)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.rename(
                "journal.new",
                "journal",
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
            )
        except OSError as err:
            if fd >= 0:
                os.close(fd)
            self._failed(err)
            return
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = len(data)
        self._compact_at = max(1 << 20, 4 * self._size)
        self.ok = True


# ---------------------------------------------------------------------------- logs


def plan_cuts(
    size: int, line_start: int, limit: int, data: bytes | bytearray, end: int
) -> tuple[list[tuple[int | None, int, int]], int, int]:
    """This decides where `data[:end]` goes, so that files are cut at line ends.

    Args:
        size: The length of the current file, in bytes.
        line_start: Where its last, unfinished line begins (`size`: there is none).
        limit: No file may be longer.
        data: The bytes to write.
        end: How many of them count.

    Returns:
        Steps, then the new size and line_start. A step (carry, a, b) means: if
        carry is not None, begin a new file and move the last `carry` bytes of the
        old one to it; then append data[a:b].
    """
    steps: list[tuple[int | None, int, int]] = []
    position = 0
    carry: int | None = None
    while position < end:
        room = limit - size
        if end - position <= room:
            newline = data.rfind(b"\n", position, end)
            if newline >= 0:
                line_start = size + newline + 1 - position
            steps.append((carry, position, end))
            size += end - position
            return steps, size, line_start
        newline = data.rfind(b"\n", position, position + room) if room > 0 else -1
        if newline >= 0:
            steps.append((carry, position, newline + 1))
            position = newline + 1
            carry = 0
        elif line_start > 0:
            carry = size - line_start
        else:
            # One line longer than a file: cut hard, as the size is a promise.
            steps.append((carry, position, position + room))
            position += room
            carry = 0
        size = carry
        line_start = 0
    return steps, size, line_start


class LogFile:
    """This is one daemon's log. Only the log writer's thread touches its files."""

    def __init__(self, name: str, settings: Json) -> None:
        self.name = name
        self.folder_fd = -1
        self.fd = -1
        self.index = ""
        self.index_failed = False
        self.index_folder = -1
        self.index_fd = -1
        self.gen = 0
        self.size = 0
        self.line_start = 0
        self.torn = False
        self.shifted = False  # renamed for a rotation that is not complete
        self.dropped = 0
        self.followed = False
        self.ready = False
        self.archives: dict[int, Archive] = {}
        self.configure(settings)

    def configure(self, settings: Json) -> None:
        """This takes the settings of a `spawn`; `max_size` is at least one byte."""
        self.path = str(settings["path"])
        self.folder, self.base = os.path.split(self.path)
        if not self.folder.startswith("/") or not self.base:
            raise Refused(f"log path {self.path!r} is not absolute")
        self.max_size = max(1, int(settings.get("max_size") or 1 << 62))
        self.keep = max(0, int(settings.get("keep", 5)))
        self.compress = bool(settings.get("compress", True))
        self.total_max = settings.get("total_max")
        self.settings = settings

    def describe(self) -> Json:
        """This renders `log` of a slot: where, which generation, how long."""
        return {"path": self.path, "gen": self.gen, "size": self.size}

    def archive_name(self, gen: int, packed: bool) -> str:
        """This is the file of an older generation; .1 is the newest of them."""
        number = self.gen - gen + self.shifted
        return f"{self.base}.{number}{'.gz' if packed else ''}"


class Archive:
    """This is one finished generation of a log."""

    __slots__ = ("at", "packed", "size")

    def __init__(self, size: int, packed: bool, at: int) -> None:
        self.size = size
        self.packed = packed
        self.at = at


class LogWriter:
    """This owns all log files: it writes, rotates, compresses, caps the total.

    `run` is a thread of its own. Others call `post` only. What it has to say goes
    through `tell`, which wakes the loop.
    """

    def __init__(self, state_folder: str, tell: Callable[..., None]) -> None:
        self._queue: Any = queue.SimpleQueue()
        self._tell = tell
        self._state_folder = state_folder
        self._logs: dict[str, LogFile] = {}
        self._total = 0
        self._cap: int | None = None
        self._pack_wanted: list[tuple[LogFile, int]] = []
        self._packing: tuple[LogFile, int, int, str | None] | None = None
        self._can_pack = True
        self._batch: list[tuple[LogFile, bytearray, int, int]] = []
        self._folders: dict[str, int] = {}
        self.pool: list[bytearray] = []
        self.queued = 0  # written by the loop alone
        self.done = 0  # written by this thread alone
        self.progress = time.monotonic()
        self.wake_below: int | None = None

    @property
    def backlog(self) -> int:
        """Bytes that were read and are not yet written."""
        return self.queued - self.done

    def post(self, action: Callable[..., None], *arguments: Any) -> None:
        """This asks the thread to call `action(*arguments)`, in order."""
        self.push()
        self._queue.put((action, arguments))

    def push(self) -> None:
        """This hands over what was fed, at once: waking the thread is what costs."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._queue.put((self._write_all, (batch,)))

    def feed(self, log: LogFile, data: bytearray, end: int, at: int) -> None:
        """This hands over output; `data` belongs to the writer from now on."""
        if self.queued == self.done:
            self.progress = time.monotonic()
        self.queued += end
        self._batch.append((log, data, end, at))

    def run(self) -> NoReturn:
        """This is the thread's body."""
        get = self._queue.get
        while True:
            action, arguments = get()
            try:
                action(*arguments)
            except Exception:
                note_exception(f"log writer: {action.__name__}")

    # -- opening

    def open(self, wanted: list[tuple[LogFile, object]]) -> None:
        """This opens logs for writing and tells the loop `opened`, once for all."""
        results = []
        for log, ticket in wanted:
            number, text = 0, ""
            try:
                if not log.ready:
                    self._open(log)
                    log.ready = True
            except OSError as err:
                number, text = err.errno or errno.EIO, err.strerror or ""
            results.append((log, ticket, number, text))
        self._tell("opened", results)

    def _open(self, log: LogFile) -> None:
        self._close(log)
        log.folder_fd = self._open_log_folder(log.folder)
        log.index = f"{self._state_folder}/index/{log.name}"
        try:
            entries = os.listdir(log.index)
        except FileNotFoundError:
            entries = []  # made when there is something to put in it
        gens = [int(entry) for entry in entries if entry.isdigit()]
        log.gen = max(gens, default=1)
        log.size = 0
        log.torn = False
        try:
            os.stat(log.base, dir_fd=log.folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            # Made with the first byte: a thousand silent daemons start faster.
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=log.folder_fd):
                raise PermissionError(
                    errno.EACCES, f"{log.folder} can't be written to"
                ) from None
        else:
            self._open_file(log)
        log.archives = self._find_archives(log)
        self._logs[log.name] = log
        self._total += log.size + sum(a.size for a in log.archives.values())
        self.reconfigure(log)

    def _open_file(self, log: LogFile) -> None:
        log.fd = self._open_current(log)
        log.size = os.fstat(log.fd).st_size
        log.line_start = self._find_line_start(log.fd, log.size)

    def _open_log_folder(self, path: str) -> int:
        """This opens a folder of logs; all logs in it share the fd."""
        fd = self._folders.get(path)
        if fd is None:
            fd = self._folders[path] = open_folder(path, 0o700)
        elif os.fstat(fd).st_nlink == 0:
            # It was removed. The fd stays the number that the others know.
            fresh = open_folder(path, 0o700)
            os.dup2(fresh, fd, inheritable=False)
            os.close(fresh)
        return fd

    def reconfigure(self, log: LogFile) -> None:
        """This applies changed settings: compression wanted, the total cap."""
        self._cap = log.total_max
        if log.compress:
            self._pack_wanted += [
                (log, gen) for gen, a in sorted(log.archives.items()) if not a.packed
            ]
            self._pack_next()
        self._enforce_cap()

    def _open_current(self, log: LogFile, flags: int = 0) -> int:
        flags |= os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        fd = self._open_patiently(log.base, flags, log.folder_fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "the log is not a regular file")
        return fd

    def _open_patiently(self, name: str, flags: int, folder: int) -> int:
        for attempt in range(20):
            try:
                fd = os.open(name, flags, 0o600, dir_fd=folder)
            except OSError as err:
                # The spawner lowers RLIMIT_NOFILE for an instant, process-wide.
                if err.errno != errno.EMFILE or attempt == 19:
                    raise
                time.sleep(0.001)
                continue
            if flags & os.O_EXCL:
                os.fchmod(fd, 0o600)  # nor may its umask matter
            return fd
        raise OSError(errno.EMFILE, "can't happen: the last attempt raises")

    def _open_index(self, log: LogFile) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        log.index_failed = True  # until it is open; tried once a generation
        try:
            if log.index_folder < 0:
                log.index_folder = open_folder(log.index, 0o700)
            log.index_fd = self._open_patiently(str(log.gen), flags, log.index_folder)
            log.index_failed = False
        except OSError as err:
            note(f"{log.name}: no time index: {err}")

    def _close_index(self, log: LogFile) -> None:
        if log.index_fd >= 0:
            os.close(log.index_fd)
        log.index_fd = -1
        log.index_failed = False

    @staticmethod
    def _find_line_start(fd: int, size: int) -> int:
        position = size
        while position > 0:
            begin = max(0, position - 65536)
            block = os.pread(fd, position - begin, begin)
            newline = block.rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            position = begin
        return 0

    def _find_archives(self, log: LogFile) -> dict[int, Archive]:
        found: dict[int, Archive] = {}
        prefix = log.base + "."
        for entry in os.listdir(log.folder_fd):
            if not entry.startswith(prefix):
                continue
            text = entry[len(prefix) :]
            packed = text.endswith(".gz")
            number = text[:-3] if packed else text
            if not number.isdigit() or number.startswith("0"):
                continue
            try:
                status = os.stat(entry, dir_fd=log.folder_fd, follow_symlinks=False)
            except OSError:
                continue
            gen = log.gen - int(number)
            if stat.S_ISREG(status.st_mode) and (gen not in found or packed):
                found[gen] = Archive(status.st_size, packed, status.st_mtime_ns)
        return found

    def _close(self, log: LogFile) -> None:
        if log.fd >= 0:
            os.close(log.fd)
        if log.index_folder >= 0:
            os.close(log.index_folder)
        self._close_index(log)
        log.fd = log.folder_fd = log.index_folder = -1

    def close(self, log: LogFile) -> None:
        """This closes a log whose slot is forgotten; the files stay."""
        self._close(log)
        log.ready = False
        if self._logs.get(log.name) is log:
            del self._logs[log.name]
            self._total -= log.size + sum(a.size for a in log.archives.values())

    # -- writing

    def _write_all(self, batch: list[tuple[LogFile, bytearray, int, int]]) -> None:
        for log, data, end, at in batch:
            self._write(log, data, end, at)

    def _write(self, log: LogFile, data: bytearray, end: int, at: int) -> None:
        try:
            self._append(log, data, end, at)
        except OSError as err:
            self.drop(log, end, f"{err}")
        finally:
            self.done += end
            self.progress = time.monotonic()
            if len(data) == READ_SIZE and len(self.pool) < 8:
                self.pool.append(data)
            if self.wake_below is not None and self.backlog < self.wake_below:
                self.wake_below = None
                self._tell("writable")
        if log.followed:
            self._tell("grown", log, log.gen, log.size)

    def _append(self, log: LogFile, data: bytearray, end: int, at: int) -> None:
        if log.fd < 0:
            if log.folder_fd < 0:
                self.drop(log, end, "the log is not open")
                return
            self._open_file(log)
            self._total += log.size
        if log.torn:
            # Something before this was dropped: go on with a whole line.
            newline = data.find(b"\n", 0, end) + 1
            self.drop(log, newline or end, "")
            if not newline:
                return
            log.torn = False
            data = data[newline:end]
            end -= newline
            if not end:
                return
        steps, size, line_start = plan_cuts(
            log.size, log.line_start, log.max_size, data, end
        )
        view = memoryview(data)
        for carry, begin, stop in steps:
            try:
                if carry is not None:
                    self._rotate(log, carry, at)
                if begin < stop:
                    self._index(log, at)
                while begin < stop:
                    written = os.write(log.fd, view[begin:stop])
                    begin += written
                    log.size += written
                    self._total += written
            except OSError as err:
                self._tear(log, end - begin, str(err))
                return
        log.line_start = line_start
        if log.size != size:
            log.size = os.fstat(log.fd).st_size
        if self._cap is not None and self._total > self._cap:
            self._enforce_cap()

    def _index(self, log: LogFile, at: int) -> None:
        if log.index_fd < 0:
            if log.index_failed:
                return
            self._open_index(log)
        record = log.size.to_bytes(8, "little") + at.to_bytes(8, "little")
        try:
            os.write(log.index_fd, record)
        except OSError:
            pass  # the index is for --since; without it reading is only slower

    def _tear(self, log: LogFile, lost: int, why: str) -> None:
        """This gives up output that could not be written, in whole lines."""
        log.line_start = self._find_line_start(log.fd, log.size)
        if log.line_start < log.size:
            try:
                os.ftruncate(log.fd, log.line_start)
                lost += log.size - log.line_start
                self._total -= log.size - log.line_start
                log.size = log.line_start
            except OSError:
                pass
        log.torn = True
        self.drop(log, lost, why)

    def drop(self, log: LogFile, count: int, why: str) -> None:
        """This counts output that is lost, and says so."""
        if why and not log.dropped:
            note(f"{log.name}: output dropped: {why}")
        log.dropped += count
        self._tell("dropped", log, count, log.dropped)

    def discarded(self, log: LogFile, count: int) -> None:
        """This records that the loop threw output away, the disk being stuck."""
        if log.fd >= 0:
            self._tear(log, count, "the disk is too slow")
        else:
            self.drop(log, count, "the disk is too slow")

    # -- rotating

    def _rotate(self, log: LogFile, carry: int, at: int) -> None:
        if not log.shifted:
            self._shift(log)
        old_fd = log.fd
        old_size = log.size
        try:
            log.fd = self._open_current(log, os.O_EXCL)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            # The folder was removed, or a file was put there: go on with that.
            log.folder_fd = self._open_log_folder(log.folder)
            log.fd = self._open_current(log)
        log.gen += 1
        log.shifted = False
        log.size = os.fstat(log.fd).st_size
        log.line_start = 0
        self._close_index(log)
        log.archives[log.gen - 1] = Archive(old_size, False, at)
        try:
            if carry:
                self._carry(log, old_fd, old_size, carry, at)
        finally:
            os.close(old_fd)
        if log.keep < 1:
            self._remove_archive(log, log.gen - 1)
        elif log.compress:
            self._pack_wanted.append((log, log.gen - 1))
            self._pack_next()

    def _shift(self, log: LogFile) -> None:
        for gen in sorted(log.archives):
            archive = log.archives[gen]
            if log.gen + 1 - gen > log.keep:
                self._remove_archive(log, gen)
                continue
            new_name = f"{log.base}.{log.gen + 1 - gen}{'.gz' * archive.packed}"
            self._rename(log, log.archive_name(gen, archive.packed), new_name)
        self._rename(log, log.base, log.base + ".1")
        log.shifted = True

    def _carry(
        self, log: LogFile, old_fd: int, old_size: int, carry: int, at: int
    ) -> None:
        """This moves an unfinished line to the new file: copied first, then cut."""
        begin = old_size - carry
        self._index(log, at)
        while log.size < carry:
            block = os.pread(old_fd, min(1 << 20, carry - log.size), begin + log.size)
            if not block:
                break
            log.size += os.write(log.fd, block)
        os.ftruncate(old_fd, begin)
        log.archives[log.gen - 1].size = begin

    def _rename(self, log: LogFile, old: str, new: str) -> None:
        try:
            os.rename(old, new, src_dir_fd=log.folder_fd, dst_dir_fd=log.folder_fd)
        except OSError as err:
            if err.errno != errno.ENOENT:  # somebody tidied up: fine
                raise

    def _remove_archive(self, log: LogFile, gen: int) -> None:
        archive = log.archives.pop(gen)
        self._total -= archive.size
        for path, folder in (
            (log.archive_name(gen, archive.packed), log.folder_fd),
            (f"{log.index}/{gen}", None),
        ):
            try:
                os.unlink(path, dir_fd=folder)
            except OSError:
                pass

    def _enforce_cap(self) -> None:
        """This removes the oldest archives until all files together fit."""
        cap = self._cap
        while cap is not None and self._total > cap:
            oldest: tuple[int, LogFile, int] | None = None
            for log in self._logs.values():
                if log.archives and log.folder_fd >= 0:
                    gen = min(log.archives)
                    found = (log.archives[gen].at, log, gen)
                    if oldest is None or found[0] < oldest[0]:
                        oldest = found
            if oldest is not None:
                self._remove_archive(oldest[1], oldest[2])
                continue
            largest = max(self._logs.values(), key=lambda log: log.size, default=None)
            if largest is None or largest.size <= 4096:
                return
            # The current files alone are too much: end the largest early.
            carry = largest.size - largest.line_start
            keep, largest.keep = largest.keep, max(1, largest.keep)
            compress, largest.compress = largest.compress, False
            try:
                self._rotate(largest, 0 if carry == largest.size else carry, 0)
                largest.line_start = 0
            except OSError as err:
                note(f"{largest.name}: can't rotate: {err}")
                return
            finally:
                largest.keep = keep
                largest.compress = compress

    # -- compressing

    def _pack_next(self) -> None:
        while self._can_pack and self._packing is None and self._pack_wanted:
            log, gen = self._pack_wanted.pop()
            archive = log.archives.get(gen)
            if archive is None or archive.packed or log.folder_fd < 0:
                continue
            source = -1
            try:
                source = os.open(
                    log.archive_name(gen, False),
                    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW,
                    dir_fd=log.folder_fd,
                )
                target, spare = self._open_unnamed(log)
            except OSError as err:
                if source >= 0:
                    os.close(source)
                    note(f"{log.name}: can't compress: {err}")
                continue
            self._packing = (log, gen, target, spare)
            self._tell("pack", source, target)

    def _open_unnamed(self, log: LogFile) -> tuple[int, str | None]:
        """This opens a file that has no name yet, so that nobody sees it half done."""
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=log.folder_fd), None
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        spare = f"{self._state_folder}/gzip.tmp"
        if os.stat(self._state_folder).st_dev != os.fstat(log.folder_fd).st_dev:
            self._can_pack = False
            raise OSError(errno.EOPNOTSUPP, "the file system has no unnamed files")
        flags |= os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        return os.open(spare, flags, 0o600), spare

    def packed(self, status: int) -> None:
        """This puts a finished compressed file in the place of the plain one."""
        if self._packing is None:
            return
        log, gen, target, spare = self._packing
        self._packing = None
        archive = log.archives.get(gen)
        try:
            if status == 0 and archive is not None and log.folder_fd >= 0:
                name = log.archive_name(gen, True)
                size = os.fstat(target).st_size
                try:
                    os.unlink(name, dir_fd=log.folder_fd)
                except FileNotFoundError:
                    pass
                source = spare or f"/proc/self/fd/{target}"
                # A dir_fd makes this linkat with AT_SYMLINK_FOLLOW (proc(5)).
                os.link(source, name, dst_dir_fd=log.folder_fd, follow_symlinks=True)
                plain = log.archive_name(gen, False)
                try:
                    os.unlink(plain, dir_fd=log.folder_fd)
                except FileNotFoundError:
                    pass
                self._total += size - archive.size
                archive.size = size
                archive.packed = True
            elif status:
                note(f"{log.name}: compressing failed with status {status}")
        except OSError as err:
            note(f"{log.name}: can't put the compressed file in place: {err}")
        finally:
            os.close(target)
            if spare is not None:
                try:
                    os.unlink(spare)
                except OSError:
                    pass
        self._pack_next()


def run_gzip() -> NoReturn:
    """This compresses fd 0 to fd 1: what a niced child of the keeper does."""
    import zlib

    try:
        os.nice(19)
    except OSError:
        pass
    try:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        while True:
            block = os.read(0, 1 << 20)
            data = packer.compress(block) if block else packer.flush()
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
            if not block:
                os._exit(0)
    except OSError:
        os._exit(1)


# --------------------------------------------------------------------------- slots


class Feed:
    """This is the reading side of a daemon's FIFO, and how eagerly it is read."""

    __slots__ = ("capacity", "fd", "key", "last", "owner", "pause", "slot")

    def __init__(self, fd: int, slot: Slot) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.slot = slot
        self.key = (status.st_dev, status.st_ino)
        self.owner = status.st_uid
        self.capacity = fcntl.fcntl(fd, F_GETPIPE_SZ)
        self.pause = 0.0
        self.last = 0.0

    def grow(self) -> None:
        """This asks for a larger pipe, when the daemon fills the one it has."""
        if self.capacity < MAX_PIPE:
            try:
                wanted = min(MAX_PIPE, self.capacity * 4)
                self.capacity = fcntl.fcntl(self.fd, F_SETPIPE_SZ, wanted)
            except OSError:
                self.capacity = fcntl.fcntl(self.fd, F_GETPIPE_SZ)


class Slot:
    """This is one instance of a daemon: its current or last run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blob: Any = None
        self.log_settings: Json | None = None
        self.log: LogFile | None = None
        self.feed: Feed | None = None
        self.notify: Any = None
        self.notify_path: str | None = None
        self.dropped = 0
        self.stop_timeout = 10.0
        self.uid: int | None = None
        self.notify_owner = -1
        self.foreign = False  # not our descendant: started by an earlier keeper
        self.opening = False
        self.pidfd = -1
        self.sessions: set[int] = set()
        self.noted: dict[int, int] = {}
        self.orphans: dict[int, int] = {}
        self.begin("")

    def begin(self, run: str) -> None:
        """This forgets the last run."""
        self.run = run
        self.pid: int | None = None
        self.start: int | None = None
        self.ino: int | None = None
        self.alive = False
        self.exit: Json | None = None
        self.failed: Json | None = None
        self.left: list[int] = []
        self.ready = False
        self.stopping = False
        self.status_text = ""
        self.paused = False
        self.spawned_at: list[int] | None = None
        self.exited_at: list[int] | None = None
        self.killing = False
        self.foreign = False
        self.sessions.clear()
        self.noted.clear()

    def describe(self, kill_scope: str, fifo: str | None) -> Json:
        """This renders the `slot` of a snapshot."""
        log = self.log
        return {
            "name": self.name,
            "run": self.run or None,
            "pid": self.pid,
            "start": self.start,
            "alive": self.alive,
            "exit": self.exit,
            "failed": self.failed,
            "left": self.left,
            "ready": self.ready,
            "stopping": self.stopping,
            "status_text": self.status_text,
            "paused": self.paused,
            "spawned_at": self.spawned_at,
            "exited_at": self.exited_at,
            "kill_scope": kill_scope,
            "log": None if log is None else log.describe(),
            "blob": self.blob,
            "dropped": self.dropped,
            "fifo": fifo,
        }

    def persist(self) -> Json:
        """This renders what the journal keeps of a slot."""
        return {
            "name": self.name,
            "run": self.run,
            "pid": self.pid,
            "start": self.start,
            "ino": self.ino,
            "exit": self.exit,
            "failed": self.failed,
            "left": self.left,
            "ready": self.ready,
            "stopping": self.stopping,
            "spawned_at": self.spawned_at,
            "exited_at": self.exited_at,
            "log": self.log_settings,
            "notify": self.notify_path,
            "stop_timeout": self.stop_timeout,
            "uid": self.uid,
            "blob": self.blob,
            "intent": self.opening,
        }


# ------------------------------------------------------------------------- spawning


class Spawner:
    """This starts processes: by posix_spawn where that can do it, else by fork."""

    def __init__(self) -> None:
        self.nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.raised = self.nofile
        soft, hard = self.nofile
        if soft != hard:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                self.raised = (hard, hard)
            except (OSError, ValueError):
                pass
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        unblockable = {signal.SIGKILL, signal.SIGSTOP}
        self._signals = [int(number) for number in signal.valid_signals() - unblockable]

    @property
    def null(self) -> int:
        """An open /dev/null."""
        return self._null

    def spawn(self, spec: Json, environment: dict[str, str], output: int) -> int:
        """This starts what a `spawn` request describes, with `output` as 1 and 2.

        Raises:
            SpawnFailed: A step failed; there is no process.
        """
        if any(
            spec.get(key) not in (None, {}, [])
            for key in ("uid", "gid", "groups", "nice", "limits", "watchdog")
        ):
            return self._fork(spec, environment, output)
        return self.quick(
            spec["path"],
            spec["argv"],
            environment,
            (self._null, output, output),
            cwd=spec.get("cwd"),
            umask=spec.get("umask"),
        )

    def quick(
        self,
        path: str,
        argv: list[str],
        environment: dict[str, str],
        standard: tuple[int, int, int],
        *,
        cwd: str | None = None,
        umask: int | None = None,
    ) -> int:
        """This starts a process in the vfork way; what is ours is lent and restored."""
        moved = False
        if cwd is not None and cwd != "/":
            try:
                os.chdir(cwd)
                moved = True
            except OSError as err:
                raise SpawnFailed("cwd", err.errno or errno.EIO) from err
        old_mask = os.umask(0o022 if umask is None else umask)
        limited = self.raised != self.nofile
        if limited:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile[0], self.raised[1]))
        try:
            return os.posix_spawn(
                path,
                argv,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, fd, number)
                    for number, fd in enumerate(standard)
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=self._signals,
            )
        except OSError as err:
            number = err.errno or errno.EIO
            step = "fork" if number in (errno.EAGAIN, errno.ENOMEM) else "exec"
            raise SpawnFailed(step, number) from err
        except (ValueError, TypeError) as err:
            raise SpawnFailed("exec", errno.EINVAL, str(err)) from err
        finally:
            if limited:
                resource.setrlimit(resource.RLIMIT_NOFILE, self.raised)
            os.umask(old_mask)
            if moved:
                os.fchdir(self._root)

    def _fork(self, spec: Json, environment: dict[str, str], output: int) -> int:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as err:
            os.close(reading)
            os.close(writing)
            raise SpawnFailed("fork", err.errno or errno.EAGAIN) from err
        if pid == 0:
            self._become(spec, environment, output, writing)
        os.close(writing)
        report = b""
        while part := os.read(reading, 4096):
            report += part
        os.close(reading)
        if not report:
            return pid
        os.waitpid(pid, 0)
        step, number, text = report.decode("utf-8", "replace").split(" ", 2)
        raise SpawnFailed(step, int(number), text)

    def _become(
        self, spec: Json, environment: dict[str, str], output: int, report: int
    ) -> NoReturn:
        """This turns the forked child into the daemon, or reports the failed step."""
        step = "setsid"
        try:
            os.setsid()
            for number in self._signals:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for number, fd in enumerate((self._null, output, output)):
                os.dup2(fd, number, inheritable=True)
            step = "umask"
            mask = spec.get("umask")
            os.umask(0o022 if mask is None else mask)
            step = "limits"
            self._limit(spec.get("limits") or {})
            step = "nice"
            if spec.get("nice") is not None:
                os.setpriority(os.PRIO_PROCESS, 0, spec["nice"])
            uid, gid, groups = spec.get("uid"), spec.get("gid"), spec.get("groups")
            step = "groups"
            if groups is not None:
                os.setgroups(groups)
                if set(os.getgroups()) != set(groups):
                    raise OSError(errno.EPERM, "the kernel set other groups")
            elif uid is not None and os.geteuid() == 0 and uid != 0:
                os.setgroups([])
            step = "gid"
            if gid is not None:
                os.setresgid(gid, gid, gid)
                if os.getresgid() != (gid, gid, gid):
                    raise OSError(errno.EPERM, "the kernel set another group")
            step = "uid"
            if uid is not None:
                capabilities = Capabilities(spec.get("capabilities") or ())
                capabilities.keep()
                os.setresuid(uid, uid, uid)
                if os.getresuid() != (uid, uid, uid):
                    raise OSError(errno.EPERM, "the kernel set another user")
                step = "capabilities"
                capabilities.grant()
            step = "cwd"
            if spec.get("cwd") is not None:
                os.chdir(spec["cwd"])
            step = "exec"
            if spec.get("watchdog") is not None:
                environment["WATCHDOG_USEC"] = str(spec["watchdog"])
                environment["WATCHDOG_PID"] = str(os.getpid())
            os.execve(spec["path"], spec["argv"], environment)
        except OSError as err:
            number, text = err.errno or errno.EIO, err.strerror or ""
        except BaseException as err:
            number, text = errno.EINVAL, str(err)
        try:
            os.write(report, f"{step} {number} {text}".encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def _limit(self, limits: dict[str, list[int | None]]) -> None:
        soft, hard = self.nofile
        wanted: list[tuple[str, int, int]] = [("nofile", soft, hard)]
        for name, (low, high) in limits.items():
            infinity = resource.RLIM_INFINITY
            wanted.append(
                (
                    name,
                    infinity if low is None else low,
                    infinity if high is None else high,
                )
            )
        for name, low, high in wanted:
            number = getattr(resource, f"RLIMIT_{name.upper()}", None)
            if number is None:
                raise OSError(errno.EINVAL, f"there is no limit {name!r}")
            try:
                resource.setrlimit(number, (low, high))
            except ValueError as err:
                raise OSError(errno.EPERM, f"{name}: {err}") from err
            if resource.getrlimit(number) != (low, high):
                raise OSError(errno.EPERM, f"{name}: the kernel set another limit")


# ---------------------------------------------------------------------- connections


class Connection:
    """This is one client of keeper.sock."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.fd: int = sock.fileno()
        self.received = bytearray()
        self.requests: deque[bytes] = deque()
        self.outgoing: list[bytes] = []
        self.unsent = b""
        self.size = 0
        self.closed = False
        self.half_closed = False
        self.waits_for_space = False

    def push(self, line: bytes) -> None:
        """This queues a line; it is sent at the end of the loop's turn."""
        if not self.closed:
            self.outgoing.append(line)
            self.size += len(line)

    def receive(self) -> None:
        """This reads what is there and splits it into requests.

        Raises:
            Refused: The client does not speak the protocol.
        """
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.half_closed = True
            return
        if self.received:
            self.received += data
            data = bytes(self.received)
        lines = data.split(b"\n")
        self.received = bytearray(lines.pop())
        if len(self.received) > MAX_LINE or any(len(x) > MAX_LINE for x in lines):
            raise Refused("a line is longer than 1 MiB")
        self.requests.extend(line for line in lines if line)

    def send(self) -> bool:
        """This sends what is queued; False means that the socket is full."""
        if self.outgoing:
            self.unsent += b"".join(self.outgoing)
            self.outgoing.clear()
        while self.unsent:
            try:
                sent = self.sock.send(self.unsent, _MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                self.half_closed = True
                self.unsent = b""
                return True
            self.unsent = self.unsent[sent:]
            self.size -= sent
        return True


_MSG_NOSIGNAL = 0x4000


# ----------------------------------------------------------------------------- tree


class Tree:
    """This finds the processes of each slot, and notes how they can be recognised."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._leader_children = f"/proc/self/task/{os.getpid()}/children"
        self.orphans: dict[int, Slot | None] = {}
        self.starts: dict[int, int] = {}

    def note(self, slot: Slot, pid: int, status: Stat) -> None:
        """This remembers that a process and its session are of this slot."""
        if len(slot.noted) > NOTED_MAX:
            for old in list(slot.noted):
                if old != slot.pid and not os.path.exists(f"/proc/{old}"):
                    del slot.noted[old]
                    slot.sessions.discard(old)
        slot.noted[pid] = status.start
        slot.sessions.add(status.session)

    def refresh(self) -> None:
        """This attributes what was re-parented to us since the last time."""
        data = read_file(self._leader_children, 1 << 22)
        if not data:
            return
        for text in data.split():
            pid = int(text)
            if pid in self.orphans or pid in self._keeper.deaths.mains:
                continue
            if pid in self._keeper.deaths.helpers:
                continue
            status = read_stat(pid)
            if status is None or status.state in "ZX":
                continue
            slot = self.attribute(pid, status)
            self.orphans[pid] = slot
            self.starts[pid] = status.start
            if slot is None:
                self._keeper.found_stranger(pid)
            else:
                slot.orphans[pid] = status.start
                self.note(slot, pid, status)

    def attribute(self, pid: int, status: Stat) -> Slot | None:
        """This says whose orphan a process is; None: nobody's that can be told."""
        run = self._run_of(pid)
        claimed = self._keeper.by_run.get(run) if run else None
        if claimed is not None:
            return claimed
        slots = self._keeper.slots.values()
        for slot in slots:
            if slot.noted.get(pid) == status.start:
                return slot
        for slot in slots:
            if status.session in slot.sessions and self._session_holds(slot, status):
                return slot
        keys = self._outputs_of(pid)
        for slot in slots:
            if slot.feed is not None and slot.feed.key in keys:
                return slot
        return None

    @staticmethod
    def _session_holds(slot: Slot, status: Stat) -> bool:
        """Whether a noted session id still means the session that was noted."""
        leader = read_stat(status.session)
        noted = slot.noted.get(status.session)
        return leader is None or noted is None or leader.start == noted

    @staticmethod
    def _run_of(pid: int) -> str | None:
        data = read_file(f"/proc/{pid}/environ", 1 << 21)
        if not data:
            return None
        marker = b"DUENDE_RUN_ID="
        for entry in data.split(b"\0"):
            if entry.startswith(marker):
                return entry[len(marker) :].decode("utf-8", "replace")
        return None

    @staticmethod
    def _outputs_of(pid: int) -> set[tuple[int, int]]:
        keys = set()
        for number in (1, 2):
            try:
                status = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if stat.S_ISFIFO(status.st_mode):
                keys.add((status.st_dev, status.st_ino))
        return keys

    def members(self, slot: Slot) -> list[tuple[int, int]]:
        """This lists (pid, start time) of a slot's whole tree now, main first."""
        self.refresh()
        roots = list(slot.orphans)
        if slot.alive and slot.pid is not None:
            roots.insert(0, slot.pid)
        if self._keeper.scope_of(slot) == "session":
            roots += self.survey([slot])[slot.name]
        found: dict[int, int] = {}
        queue_: deque[int] = deque(roots)
        while queue_:
            pid = queue_.popleft()
            if pid in found or pid in self._keeper.deaths.helpers:
                continue
            if pid != slot.pid and pid in self._keeper.deaths.mains:
                continue
            status = read_stat(pid)
            if status is None or status.state in "ZX":
                if pid != slot.pid:
                    continue
                found[pid] = slot.start or 0
            else:
                found[pid] = status.start
                self.note(slot, pid, status)
            queue_.extend(children_of(pid))
        return list(found.items())

    def survey(self, slots: list[Slot]) -> dict[str, dict[int, int]]:
        """This looks through all of /proc for processes of the given slots.

        It is for what is not our descendant: the trees of daemons that an earlier
        keeper started.
        """
        found: dict[str, dict[int, int]] = {slot.name: {} for slot in slots}
        by_session = {sid: slot for slot in slots for sid in slot.sessions}
        by_run = {slot.run: slot for slot in slots if slot.run}
        by_feed = {slot.feed.key: slot for slot in slots if slot.feed is not None}
        own = os.getpid()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == own:
                continue
            pid = int(entry)
            if pid in self._keeper.deaths.helpers:
                continue
            status = read_stat(pid)
            if status is None or status.state in "ZX":
                continue
            slot = by_session.get(status.session)
            if slot is None or not self._session_holds(slot, status):
                slot = by_run.get(self._run_of(pid) or "")
            if slot is None:
                for key in self._outputs_of(pid):
                    slot = by_feed.get(key)
            if slot is not None and self._keeper.deaths.mains.get(pid, slot) is slot:
                found[slot.name][pid] = status.start
        return found

    def holds(self, slot: Slot, pid: int) -> bool:
        """Whether a living process is in a slot's tree."""
        if slot.alive and pid == slot.pid:
            return True
        if pid in slot.orphans:
            return True
        status = read_stat(pid)
        if status is None:
            return False
        if slot.noted.get(pid) == status.start:
            return True
        chain = status
        own = os.getpid()
        current = pid
        for _ in range(1000):
            if chain.parent == slot.pid and slot.alive:
                self.note(slot, pid, status)
                return True
            if chain.parent in (0, 1, own):
                break
            current = chain.parent
            if self._keeper.deaths.mains.get(current):
                return False
            above = read_stat(current)
            if above is None:
                break
            chain = above
        self.refresh()
        if self.orphans.get(current) is slot:
            self.note(slot, pid, status)
            return True
        if self._keeper.scope_of(slot) == "session":
            return pid in self.survey([slot])[slot.name]
        return False

    def send(self, pid: int, start: int, number: int) -> bool:
        """This signals exactly the process that was meant, or nobody."""
        if pid in self.orphans or self._keeper.deaths.is_own_child(pid):
            try:
                os.kill(pid, number)
            except OSError:
                return False
            return True
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            status = read_stat(pid)
            if status is None or status.start != start:
                return False
            signal.pidfd_send_signal(fd, number)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def signal(self, slot: Slot, number: int, scope: str) -> int:
        """This signals a slot's processes, until no new one appears; it counts them."""
        if scope == "main":
            if not slot.alive or slot.pid is None:
                return 0
            return int(self.send(slot.pid, slot.start or 0, number))
        if number != signal.SIGKILL:
            return self._sweep(slot, number, scope, 4)[0]
        count, quiet = self._sweep(slot, number, scope, 2)
        if not quiet:
            # It forks faster than it is killed. What is stopped can't, and still
            # takes the place of what the pids limit would let be born.
            self._sweep(slot, signal.SIGSTOP, scope, 64)
            count += self._sweep(slot, number, scope, 4)[0]
        return count

    def _sweep(
        self, slot: Slot, number: int, scope: str, rounds: int
    ) -> tuple[int, bool]:
        """This signals in rounds; it says how many, and whether no new one came."""
        done: set[tuple[int, int]] = set()
        count = 0
        until = time.monotonic() + SWEEP_SECONDS
        for turn in range(rounds + 1):
            fresh = [
                member
                for member in self.members(slot)
                if member not in done
                and not (scope == "rest" and self.is_main(slot, member))
            ]
            if not fresh:
                return count, True
            if turn == rounds or time.monotonic() > until:
                return count, False
            for pid, start in fresh:
                done.add((pid, start))
                count += self.send(pid, start, number)
        return count, False

    @staticmethod
    def is_main(slot: Slot, member: tuple[int, int]) -> bool:
        """Whether a member is the slot's living main process."""
        return slot.alive and member[0] == slot.pid


# --------------------------------------------------------------------------------- loop


class Loop:
    """This is one epoll and one heap of timers; idle, it does not wake up."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._timer_count = 0
        self.mailbox: deque[tuple[Any, ...]] = deque()
        self.mail_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def watch(
        self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN
    ) -> None:
        """This calls `handler(events)` when something happens on fd."""
        self._handlers[fd] = handler
        self.poller.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """This stops watching fd (before it is closed)."""
        if self._handlers.pop(fd, None) is not None:
            try:
                self.poller.unregister(fd)
            except OSError:
                pass

    def later(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        """This calls `action` once, after `delay` seconds."""
        self.at(time.monotonic() + delay, action, *arguments)

    def tell(self, *message: Any) -> None:
        """This brings a message of another thread into the loop."""
        self.mailbox.append(message)
        try:
            os.eventfd_write(self.mail_fd, 1)
        except BlockingIOError:
            pass

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """This calls `action` once, when the monotonic clock shows `when`."""
        self._timer_count += 1
        heappush(self._timers, (when, self._timer_count, action, arguments))

    def turn(self, work_waits: bool) -> None:
        """This waits for events, unless work waits, and handles them and the timers."""
        timeout = -1.0
        if work_waits:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for fd, events in self.poller.poll(timeout, 1024):
            handler = self._handlers.get(fd)
            if handler is not None:
                self._call(handler, events)
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                _, _, action, arguments = heappop(self._timers)
                self._call(action, *arguments)

    @staticmethod
    def _call(action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception:
            # One daemon's trouble is not to be the others'.
            note_exception("event")


# ------------------------------------------------------------------------------- server


class Server:
    """This is keeper.sock: who is connected, and which of them is in charge."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.listener: Any = None
        self.connections: dict[int, Connection] = {}
        self.attached: Connection | None = None

    def listen(self) -> None:
        """This binds keeper.sock; the lock is ours, so an old socket is stale."""
        try:
            os.unlink("keeper.sock", dir_fd=self._keeper.state_fd)
        except FileNotFoundError:
            pass
        flags = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.listener = socket.socket(socket.AF_UNIX, flags)
        # Through the folder's fd, as STATE may be longer than sun_path.
        self.listener.bind(f"/proc/self/fd/{self._keeper.state_fd}/keeper.sock")
        os.chmod("keeper.sock", 0o600, dir_fd=self._keeper.state_fd)
        self.listener.listen(128)
        self._keeper.loop.watch(self.listener.fileno(), self._accept)

    def _accept(self, _: int) -> None:
        for _ in range(16):
            try:
                fd, _address = self.listener._accept()
            except BlockingIOError:
                return
            except OSError as err:
                # Level-triggered, it would come again at once.
                note(f"accept: {err}; again in 1 s")
                self._keeper.loop.unwatch(self.listener.fileno())
                self._keeper.loop.later(
                    1.0, self._keeper.loop.watch, self.listener.fileno(), self._accept
                )
                return
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            uid = int.from_bytes(credentials[4:8], sys.byteorder)
            if uid not in (0, os.geteuid()) or len(self.connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            connection = Connection(sock)
            self.connections[connection.fd] = connection

            def handle(events: int, connection: Connection = connection) -> None:
                self._on_connection(connection, events)

            self._keeper.loop.watch(connection.fd, handle)

    def _on_connection(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send(connection)
        if events & ~select.EPOLLOUT:
            try:
                connection.receive()
            except Refused as err:
                connection.push(encode_line({"error": str(err)}))
                connection.requests.clear()
                connection.half_closed = True

    def _send(self, connection: Connection) -> None:
        done = connection.send()
        if connection.closed:
            return
        if done is connection.waits_for_space:
            events = select.EPOLLIN if done else select.EPOLLIN | select.EPOLLOUT
            self._keeper.loop.poller.modify(connection.fd, events)
            connection.waits_for_space = not done
        if connection.size > OUT_LIMIT:
            note("a client does not read what it asked for; closed")
            self.close(connection)

    def flush(self) -> None:
        """This sends what the turn has queued, and ends what has been closed."""
        for connection in list(self.connections.values()):
            if connection.outgoing:
                self._send(connection)
            if connection.half_closed:
                self.close(connection)

    def close(self, connection: Connection) -> None:
        """This ends a connection."""
        if connection.closed:
            return
        connection.closed = True
        connection.requests.clear()
        self._keeper.loop.unwatch(connection.fd)
        self.connections.pop(connection.fd, None)
        connection.sock.close()
        if connection is self.attached:
            self.attached = None
            self._keeper.requests.follow([])
            if self._keeper.plane.wanted is not None and self._keeper.plane.pid is None:
                self._keeper.plane.plan(CONTROL_DELAY_FIRST)

    def has_requests(self) -> bool:
        """Whether a client waits for an answer."""
        return any(connection.requests for connection in self.connections.values())

    def serve(self) -> None:
        """This answers requests, for a bounded time."""
        until = time.monotonic() + TURN_SECONDS
        for connection in list(self.connections.values()):
            while connection.requests and not connection.closed:
                self._keeper.requests.serve(connection, connection.requests.popleft())
                if time.monotonic() > until:
                    return

    @staticmethod
    def answer(connection: Connection, identifier: Any, reply: Json) -> None:
        """This sends the one reply to a request that carried an id."""
        if identifier is None:
            return
        head: Json = {"re": identifier}
        if "error" not in reply:
            head["ok"] = True
        connection.push(encode_line({**head, **reply}))

    def event(self, event: Json) -> None:
        """This sends an event to the control plane, if there is one."""
        if self.attached is not None:
            self.attached.push(encode_line(event))


# ------------------------------------------------------------------------------- output


class Output:
    """This reads the FIFOs: at once after a pause, then as seldom as can be."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.due: deque[Feed] = deque()
        self._waiting: list[Feed] = []
        self._discarding = False
        self._scratch = bytearray(READ_SIZE)
        self._folder = open_private_folder(f"{keeper.options.state}/fifo", 0o700)

    def open(self, slot: Slot) -> None:
        """This makes the FIFO of a slot, or opens the one that is there.

        Raises:
            SpawnFailed: At step `log`.
        """
        owner = os.geteuid() if slot.uid is None else slot.uid
        try:
            if slot.feed is None:
                fd = self._open_fifo(slot.name)
                slot.feed = Feed(fd, slot)
                feed = slot.feed

                def handle(_: int) -> None:
                    self.due.append(feed)

                self._keeper.loop.watch(
                    fd, handle, select.EPOLLIN | select.EPOLLONESHOT
                )
            if slot.feed.owner != owner:
                os.fchown(slot.feed.fd, owner, -1)
                slot.feed.owner = owner
        except OSError as err:
            raise SpawnFailed("log", err.errno or errno.EIO) from err

    def fifo_path(self, slot: Slot) -> str | None:
        """This is where a slot's FIFO can be opened by path."""
        feed = slot.feed
        return (
            None if feed is None else f"{self._keeper.options.state}/fifo/{slot.name}"
        )

    def _open_fifo(self, name: str) -> int:
        # Read-write, so that the end of all writers is no end of file: the FIFO
        # is kept between runs, and a hung-up FIFO would wake the loop for ever.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(2):
            try:
                os.mkfifo(name, 0o600, dir_fd=self._folder)
            except FileExistsError:
                pass
            fd = -1
            try:
                fd = os.open(name, flags, dir_fd=self._folder)
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    return fd
                os.close(fd)
            except OSError as err:
                if err.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                    raise
            os.unlink(name, dir_fd=self._folder)
        raise OSError(errno.EEXIST, "something else is in the place of the FIFO")

    def serve(self) -> None:
        """This reads the FIFOs that are due, for a bounded time."""
        until = time.monotonic() + TURN_SECONDS
        for _ in range(len(self.due)):
            feed = self.due.popleft()
            try:
                self._serve_one(feed)
            except OSError as err:
                note(f"{feed.slot.name}: reading its output: {err}")
            if time.monotonic() > until:
                return

    def _serve_one(self, feed: Feed) -> None:
        slot = feed.slot
        if slot.feed is not feed:
            return
        if self._keeper.writer.backlog > QUEUE_LIMIT and not self._discarding:
            self._hold(feed)
            return
        total = self._read(feed, 4 * READ_SIZE)
        if not total:
            # Quiet: the next byte is to be read as soon as it comes.
            self._keeper.loop.poller.modify(
                feed.fd, select.EPOLLIN | select.EPOLLONESHOT
            )
            return
        now = time.monotonic()
        elapsed, feed.last = now - feed.last, now
        if elapsed > QUIET_SECONDS:
            feed.pause = 0.0
        if total * 2 >= feed.capacity:
            feed.grow()
            feed.pause = 0.0
            self.due.append(feed)
            return
        wanted = elapsed * feed.capacity / (4 * total)
        if wanted < FIRST_PAUSE:
            feed.grow()
        pause = min(MAX_PAUSE, wanted, max(FIRST_PAUSE, 2 * feed.pause))
        feed.pause = pause
        if pause < 0.001:
            self._keeper.loop.poller.modify(
                feed.fd, select.EPOLLIN | select.EPOLLONESHOT
            )
            return
        # On a common grid, so that many daemons are read in one wake-up.
        grid = 0.005 if pause > 0.01 else 0.001
        when = (int((now + pause) / grid) + 1) * grid
        self._keeper.loop.at(when, self.due.append, feed)

    def _read(self, feed: Feed, limit: int) -> int:
        """This moves up to `limit` bytes from a FIFO to the log writer."""
        total = 0
        log = feed.slot.log
        while total < limit:
            try:
                count = os.readv(feed.fd, [self._scratch])
            except BlockingIOError:
                break
            if not count:
                break
            total += count
            if log is None:
                continue
            if self._discarding:
                self._keeper.writer.post(self._keeper.writer.discarded, log, count)
            elif count <= READ_SIZE // 4:
                self._keeper.writer.feed(
                    log, self._scratch[:count], count, time.time_ns()
                )
            else:
                self._keeper.writer.feed(log, self._scratch, count, time.time_ns())
                pool = self._keeper.writer.pool
                self._scratch = pool.pop() if pool else bytearray(READ_SIZE)
            if count < READ_SIZE:
                break
        return total

    def drain(self, slot: Slot) -> None:
        """This reads a FIFO empty; bounded, as what is left may go on writing."""
        if slot.feed is not None:
            bound = 2 * slot.feed.capacity
            while bound > 0:
                count = self._read(slot.feed, READ_SIZE)
                if not count:
                    return
                bound -= count

    def _hold(self, feed: Feed) -> None:
        """This leaves output in its FIFO until the log disk has caught up."""
        self._waiting.append(feed)
        self._keeper.writer.wake_below = QUEUE_LIMIT // 2
        if len(self._waiting) == 1:
            self._keeper.loop.later(STALL_SECONDS, self._check_stall)
        if self._keeper.writer.backlog < QUEUE_LIMIT // 2:
            self.release()

    def release(self) -> None:
        """This goes on with the FIFOs that waited for the disk."""
        self._discarding = False
        self.due.extend(self._waiting)
        self._waiting.clear()

    def _check_stall(self) -> None:
        if not self._waiting and not self._discarding:
            return
        still = time.monotonic() - self._keeper.writer.progress
        if still >= STALL_SECONDS and self._keeper.writer.backlog > QUEUE_LIMIT // 2:
            if not self._discarding:
                note("the log disk is stuck: output is being dropped")
            self._discarding = True
            self._keeper.writer.wake_below = QUEUE_LIMIT // 2
            self.due.extend(self._waiting)
            self._waiting.clear()
        self._keeper.loop.later(max(0.05, STALL_SECONDS - still), self._check_stall)


# ---------------------------------------------------------------------------- sd_notify


class Notifier:
    """This binds and drains the notify sockets, and knows whom to believe."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.short_folder: str | None = None
        self._folders: dict[str, int] = {}
        runtime = keeper.options.runtime
        os.close(open_private_folder(runtime, 0o711))
        self.folder_of(f"{runtime}/notify/-")

    def path_of(self, slot: Slot) -> str:
        """This is where a slot's notify socket is: in RUNTIME, if that can be used.

        The path may be too long, and another user may have no way to it: root's own
        XDG_RUNTIME_DIR is closed to all. A daemon of an earlier keeper has the path
        in its environment: it stays.
        """
        if slot.notify_path is None:
            folder = f"{self._keeper.options.runtime}/notify"
            path = f"{folder}/{slot.name}"
            stranger = slot.uid is not None and slot.uid != os.geteuid()
            if len(os.fsencode(path)) > SUN_PATH_MAX or (
                stranger and not is_open_to_all(folder)
            ):
                path = f"{self._short_folder()}/{slot.name}"
            slot.notify_path = path
        return slot.notify_path

    def _short_folder(self) -> str:
        """This makes, once, a private folder whose name is short."""
        if self.short_folder is None:
            base = os.environ.get("TMPDIR", "/tmp")
            if len(os.fsencode(base)) > 16:
                base = "/tmp"
            path = f"{base}/duende-{os.urandom(6).hex()}"
            os.mkdir(path, 0o700)
            os.chmod(path, 0o711)
            self.short_folder = path
            self._keeper.journal.add({"t": "keeper", "notify": path})
        return self.short_folder

    def folder_of(self, path: str) -> int:
        """This opens, once, the folder of a socket's path."""
        folder = os.path.dirname(path)
        fd = self._folders.get(folder)
        if fd is None:
            fd = self._folders[folder] = open_private_folder(folder, 0o711)
        return fd

    def open(self, slot: Slot) -> None:
        """This binds the notify socket of a slot for the daemon's user.

        Raises:
            SpawnFailed: At step `notify`.
        """
        try:
            if slot.notify is None:
                folder = self.folder_of(self.path_of(slot))
                try:
                    os.unlink(slot.name, dir_fd=folder)
                except FileNotFoundError:
                    pass
                flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                sock = socket.socket(socket.AF_UNIX, flags)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                sock.bind(f"/proc/self/fd/{folder}/{slot.name}")
                os.chmod(slot.name, 0o600, dir_fd=folder)
                slot.notify = sock

                def handle(_: int) -> None:
                    self.read(slot)

                self._keeper.loop.watch(sock.fileno(), handle)
                slot.notify_owner = os.geteuid()
            owner = os.geteuid() if slot.uid is None else slot.uid
            if slot.notify_owner != owner:
                folder = self.folder_of(self.path_of(slot))
                os.chown(slot.name, owner, -1, dir_fd=folder)
                slot.notify_owner = owner
        except OSError as err:
            raise SpawnFailed("notify", err.errno or errno.EIO) from err

    def read(self, slot: Slot) -> None:
        """This drains a notify socket, a bounded number of messages a turn."""
        if slot.notify is None:
            return
        space = 32 + 16 + 4 * 256
        for _ in range(64):
            try:
                data, ancillary, flags, _address = slot.notify.recvmsg(
                    MAX_DATAGRAM + 1, space, _MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as err:
                note(f"{slot.name}: notify: {err}")
                return
            sender = -1
            uid = -1
            fds: list[int] = []
            for level, kind, value in ancillary:
                if level != socket.SOL_SOCKET:
                    continue
                if kind == SCM_CREDENTIALS and len(value) >= 12:
                    sender = int.from_bytes(value[0:4], sys.byteorder, signed=True)
                    uid = int.from_bytes(value[4:8], sys.byteorder)
                elif kind == SCM_RIGHTS:
                    for at in range(0, len(value) - 3, 4):
                        number = int.from_bytes(value[at : at + 4], sys.byteorder)
                        fds.append(number)
            try:
                if not flags & _MSG_TRUNC and len(data) <= MAX_DATAGRAM:
                    self._notified(slot, sender, uid, data)
            finally:
                # BARRIER=1 (sd_notify_barrier(3)) waits for exactly this.
                for number in fds:
                    os.close(number)

    def _notified(self, slot: Slot, sender: int, uid: int, data: bytes) -> None:
        if not slot.alive and not slot.orphans:
            return
        if uid not in (0, os.geteuid() if slot.uid is None else slot.uid):
            return
        if sender <= 0 or not self._keeper.tree.holds(slot, sender):
            return
        text = data.decode("utf-8", "replace")
        kept: list[str] = []
        for line in text.split("\n"):
            key, _, value = line.partition("=")
            if key == "STATUS":
                slot.status_text = value
            elif key == "READY" and value == "1":
                if not slot.ready:
                    slot.ready = True
                    self._note_slot(slot)
                    self._keeper.tree.members(slot)
            elif key == "STOPPING" and value == "1":
                slot.stopping = True
                self._note_slot(slot)
            elif key == "MAINPID":
                self._take_main(slot, value)
            kept.append(line)
        if (
            self._keeper.server.attached is not None
            and self._keeper.server.attached.size > OUT_LIMIT // 4
        ):
            return  # the control plane doesn't keep up; the slot remembers the rest
        self._keeper.server.event(
            {
                "ev": "notify",
                "name": slot.name,
                "run": slot.run,
                "pid": sender,
                "text": text,
                "at": clock(),
            }
        )

    def _note_slot(self, slot: Slot) -> None:
        self._keeper.journal.add(
            {
                "t": "note",
                "name": slot.name,
                "run": slot.run,
                "ready": slot.ready,
                "stopping": slot.stopping,
            }
        )

    def _take_main(self, slot: Slot, text: str) -> None:
        """This follows a MAINPID= of the tree to another process of the tree."""
        if not text.isdigit() or len(text) > 9:
            return
        pid = int(text)
        if pid == slot.pid or not slot.alive or pid in self._keeper.deaths.helpers:
            return
        if self._keeper.deaths.mains.get(
            pid
        ) is not None or not self._keeper.tree.holds(slot, pid):
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        status = read_stat(pid)
        if status is None or slot.noted.get(pid, status.start) != status.start:
            os.close(fd)
            return
        old, old_start = slot.pid, slot.start
        if old is not None and self._keeper.deaths.mains.pop(old, None) is not None:
            self._keeper.tree.orphans[old] = slot
            slot.orphans[old] = old_start or 0
        self._keeper.tree.orphans.pop(pid, None)
        slot.orphans.pop(pid, None)
        slot.pid, slot.start = pid, status.start
        slot.ino = os.fstat(fd).st_ino
        self._keeper.deaths.mains[pid] = slot
        self._keeper.tree.note(slot, pid, status)
        self._keeper.deaths.watch_main(slot, fd)
        head = {"name": slot.name, "run": slot.run, "pid": pid, "start": slot.start}
        self._keeper.numbered(
            {"ev": "main", **head}, {"t": "main", **head, "ino": slot.ino}
        )


# ------------------------------------------------------------------------------- deaths


class Deaths:
    """This waits for children, and for what is not one but was of an earlier keeper."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.mains: dict[int, Slot] = {}
        self.helpers: dict[int, Callable[[int], None]] = {}
        self.left_slots: set[Slot] = set()
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._reader, self.wakeup_fd = os.pipe2(flags)

    def begin(self) -> None:
        """This waits for what has ended already, then for SIGCHLD."""
        self._keeper.loop.watch(self._reader, self._changed)
        self.reap()

    def _changed(self, _: int) -> None:
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        """This waits for every child that has ended, then says what that means."""
        options = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        ended: list[tuple[Slot, int]] = []
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, options)
            except OSError:
                break
            if found is None:
                break
            pid, code = found.si_pid, found.si_code
            slot = self.mains.get(pid)
            if code in (os.CLD_STOPPED, os.CLD_CONTINUED, os.CLD_TRAPPED):
                if slot is not None and code != os.CLD_TRAPPED:
                    self._paused(slot, code == os.CLD_STOPPED)
                continue
            status = found.si_status
            if code == os.CLD_EXITED:
                status <<= 8
            elif code == os.CLD_DUMPED:
                status |= 0x80
            if slot is not None:
                if slot.alive and slot.notify is not None:
                    self._keeper.notifier.read(
                        slot
                    )  # its last words may name another main
                if self.mains.get(pid) is slot:
                    del self.mains[pid]
                    ended.append((slot, status))
                    continue
            if pid in self.helpers:
                self.helpers.pop(pid)(status)
                continue
            owner = self._keeper.tree.orphans.pop(pid, None)
            if owner is not None:
                owner.orphans.pop(pid, None)
                owner.noted.pop(pid, None)
        if ended or self.left_slots:
            self._conclude(ended)

    def _conclude(self, ended: Sequence[tuple[Slot, int | None]]) -> None:
        for slot, _ in ended:
            slot.alive = False
        self._keeper.tree.refresh()
        foreign = [
            slot for slot, _ in ended if self._keeper.scope_of(slot) == "session"
        ]
        if foreign:
            for name, members in self._keeper.tree.survey(foreign).items():
                for pid, start in members.items():
                    self.watch_left_over(self._keeper.slots[name], pid, start)
        for slot, status in ended:
            self._exited(slot, status)
        self.settle()

    def _exited(self, slot: Slot, status: int | None) -> None:
        if slot.pidfd >= 0:
            self._keeper.loop.unwatch(slot.pidfd)
            os.close(slot.pidfd)
            slot.pidfd = -1
        self._keeper.output.drain(slot)
        slot.exit = exit_record(status)
        slot.exited_at = clock()
        slot.paused = False
        slot.left = []
        if slot.orphans:
            slot.left = [pid for pid, _ in self._keeper.tree.members(slot)]
            self.left_slots.add(slot)
        head = {"name": slot.name, "run": slot.run, "pid": slot.pid}
        self._keeper.numbered(
            {
                "ev": "exit",
                **head,
                **slot.exit,
                "left": slot.left,
                "at": slot.exited_at,
            },
            {
                "t": "exit",
                "name": slot.name,
                "run": slot.run,
                "exit": slot.exit,
                "left": slot.left,
                "exited_at": slot.exited_at,
            },
        )
        if slot.orphans and slot.killing:
            self._keeper.tree.signal(slot, signal.SIGKILL, "tree")

    def settle(self) -> None:
        """This reports the slots of which nothing is left any more."""
        for slot in list(self.left_slots):
            if slot.orphans:
                continue
            self.left_slots.discard(slot)
            slot.left = []
            slot.killing = False
            self._keeper.output.drain(slot)
            head = {"name": slot.name, "run": slot.run}
            self._keeper.numbered(
                {"ev": "empty", **head, "at": clock()},
                {"t": "empty", **head, "left": []},
            )
        if self._keeper.ending and self._keeper.options.owner is not None:
            self._keeper._finish_if_empty()

    def _paused(self, slot: Slot, stopped: bool) -> None:
        if slot.killing:
            return  # we stopped it ourselves, to kill it
        slot.paused = stopped
        self._keeper.server.event(
            {
                "ev": "stopped" if stopped else "continued",
                "name": slot.name,
                "run": slot.run,
                "pid": slot.pid,
                "at": clock(),
            }
        )

    def watch_main(self, slot: Slot, fd: int) -> None:
        """This waits for the end of a main process that may not be our child."""
        if slot.pidfd >= 0:
            self._keeper.loop.unwatch(slot.pidfd)
            os.close(slot.pidfd)
        slot.pidfd = fd
        pid = slot.pid
        assert pid is not None

        def over(status: int | None) -> None:
            if slot.pidfd == fd and self.mains.get(pid) is slot:
                del self.mains[pid]
                if slot.notify is not None:
                    self._keeper.notifier.read(slot)
                self._conclude([(slot, status)])

        def handle(_: int) -> None:
            if self.is_own_child(pid):
                self.reap()
                return
            status = exit_info(fd)
            if status is None:
                status = zombie_status(pid, slot.start)
            if status is not None:
                over(status)
                return
            # It is a zombie of somebody else: the status comes when it is waited
            # for (EPOLLHUP), on kernels that can tell at all.
            self._keeper.loop.later(0.2, self._give_up_status, slot, fd, over)

        slot.foreign = not self.is_own_child(pid)
        self._keeper.loop.watch(fd, handle, select.EPOLLIN | select.EPOLLET)

    def _give_up_status(
        self, slot: Slot, fd: int, over: Callable[[int | None], None]
    ) -> None:
        if slot.pidfd == fd:
            over(exit_info(fd))

    def is_own_child(self, pid: int) -> bool:
        """Whether a living pid is a child of ours (so that it can't be reused)."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT | os.WSTOPPED)
        except OSError:
            return False
        return True

    def watch_left_over(self, slot: Slot, pid: int, start: int) -> None:
        """This watches what is not our child, to see when nothing is left."""
        if pid in slot.orphans:
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        status = read_stat(pid)
        if status is None or status.start != start:
            os.close(fd)
            return
        slot.orphans[pid] = start
        slot.left.append(pid)
        self._keeper.tree.note(slot, pid, status)

        def gone(_: int) -> None:
            self._keeper.loop.unwatch(fd)
            os.close(fd)
            slot.orphans.pop(pid, None)
            self.resurvey(slot)

        self._keeper.loop.watch(fd, gone, select.EPOLLIN | select.EPOLLONESHOT)

    def resurvey(self, slot: Slot) -> None:
        """This looks again for what is left of a daemon of an earlier keeper."""
        for pid, start in self._keeper.tree.survey([slot])[slot.name].items():
            self.watch_left_over(slot, pid, start)
        self.settle()


# ------------------------------------------------------------------------------- starts


class Starts:
    """This carries a `spawn` from the opened log to the running process."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.opens: list[tuple[LogFile, object]] = []
        self.ready: deque[tuple[Slot, Json]] = deque()

    def open_logs(self) -> None:
        """This has the logs opened of what is about to be started."""
        wanted, self.opens = self.opens, []
        self._keeper.writer.post(self._keeper.writer.open, wanted)
        # A stuck disk may cost output, never a start.
        results = [(log, ticket, 0, "") for log, ticket in wanted]
        self._keeper.loop.later(STALL_SECONDS, self.opened, results)

    def opened(self, results: list[tuple[LogFile, object, int, str]]) -> None:
        """This goes on with the starts whose logs are open (or could not be)."""
        for log, ticket, number, text in results:
            self._one_opened(log, ticket, number, text)

    def _one_opened(self, log: LogFile, ticket: Any, number: int, text: str) -> None:
        if ticket is None:
            return
        slot, request = ticket
        if not slot.opening or slot.run != request["run"] or slot.log is not log:
            return
        slot.opening = False
        if number:
            log.ready = False
            self.failed(slot, SpawnFailed("log", number, text))
        else:
            self.finish(slot, request)

    def finish(self, slot: Slot, spec: Json) -> None:
        """This starts the process and says that it runs."""
        output = -1
        try:
            environment = dict(spec["env"])
            environment.setdefault("DUENDE_RUN_ID", slot.run)
            if slot.log is not None:
                self._keeper.output.open(slot)
            self._keeper.notifier.open(slot)
            environment["NOTIFY_SOCKET"] = self._keeper.notifier.path_of(slot)
            if slot.log is not None and slot.feed is not None:
                try:
                    output = os.open(
                        f"/proc/self/fd/{slot.feed.fd}", os.O_RDWR | os.O_CLOEXEC
                    )
                except OSError as err:
                    raise SpawnFailed("log", err.errno or errno.EIO) from err
            self._keeper.journal.flush()
            null = self._keeper.spawner.null
            pid = self._keeper.spawner.spawn(
                spec, environment, output if output >= 0 else null
            )
        except SpawnFailed as err:
            self.failed(slot, err)
            return
        finally:
            if output >= 0:
                os.close(output)
        slot.pid = pid
        slot.alive = True
        slot.spawned_at = clock()
        self._keeper.deaths.mains[pid] = slot
        status = read_stat(pid)
        slot.start = status.start if status is not None else 0
        slot.sessions.add(pid)
        slot.noted[pid] = slot.start
        try:
            fd = os.pidfd_open(pid)
            slot.ino = os.fstat(fd).st_ino
            os.close(fd)
        except OSError:
            slot.ino = None
        head = {"name": slot.name, "run": slot.run, "pid": pid, "start": slot.start}
        log = slot.log
        self._keeper.numbered(
            {
                "ev": "spawned",
                **head,
                "at": slot.spawned_at,
                "log": None if log is None else log.describe(),
                "fifo": self._keeper.output.fifo_path(slot),
            },
            {"t": "pid", **head, "ino": slot.ino, "spawned_at": slot.spawned_at},
        )

    def failed(self, slot: Slot, err: SpawnFailed) -> None:
        """This says that there is no process, and why."""
        slot.failed = {"step": err.step, "errno": err.number, "text": err.text}
        head = {"name": slot.name, "run": slot.run}
        self._keeper.numbered(
            {"ev": "spawn-failed", **head, **slot.failed, "at": clock()},
            {"t": "failed", **head, "failed": slot.failed},
        )


# ----------------------------------------------------------------------------- requests


class Requests:
    """This does what the protocol's operations say, one method each."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.followed: set[str] | None = set()
        self._syncs: list[tuple[Connection, Any]] = []
        self._syncing = False

    def serve(self, connection: Connection, line: bytes) -> None:
        """This answers one request, whatever it is."""
        identifier: Any = None
        reply: Json | None
        try:
            request = loads(line.decode("utf-8"))
            if not isinstance(request, dict):
                raise Refused("a request is a JSON object")
            identifier = request.get("id")
            reply = self._perform(connection, request)
        except Refused as err:
            reply = {"error": str(err)}
        except (KeyError, TypeError, ValueError, UnicodeError) as err:
            reply = {"error": f"bad request: {type(err).__name__}: {err}"}
        except Exception as err:
            note_exception("request")
            reply = {"error": f"internal error: {type(err).__name__}: {err}"}
        if reply is not None and identifier is not None:
            self._keeper.server.answer(connection, identifier, reply)
        while self._keeper.starts.ready:
            slot, spec = self._keeper.starts.ready.popleft()
            try:
                self._keeper.starts.finish(slot, spec)
            except Exception as err:
                note_exception(f"spawn of {slot.name}")
                self._keeper.starts.failed(
                    slot, SpawnFailed("fork", errno.EIO, str(err))
                )

    def _perform(self, connection: Connection, request: Json) -> Json | None:
        operation = request["op"]
        if operation == "attach":
            return self._op_attach(connection, request)
        if operation == "peek":
            self._snapshot(connection)
            return {}
        if operation == "flush":
            self._flush(connection, request)
            return None
        if operation == "tree":
            return self._op_tree(request)
        if connection is not self._keeper.server.attached:
            raise Refused("not attached")
        handler = self._operations.get(operation)
        if handler is None:
            raise Refused(f"unknown op {operation!r}")
        return handler(self, connection, request)

    def slot_of(self, request: Json) -> Slot:
        """This finds the slot, and the run, that a request means."""
        slot = self._keeper.slots.get(request["name"])
        if slot is None:
            raise Refused("no such slot")
        run = request.get("run")
        if run is not None and run != slot.run:
            raise Refused("stale")
        return slot

    def _op_attach(self, connection: Connection, request: Json) -> Json:
        if request.get("version", PROTOCOL_VERSION) != PROTOCOL_VERSION:
            raise Refused(f"this keeper speaks version {PROTOCOL_VERSION}")
        older = self._keeper.server.attached
        self._keeper.server.attached = None
        if older is not None and older is not connection:
            self._keeper.server.close(older)
        self._keeper.epoch += 1
        self._keeper.plane.cancel()
        self._keeper.journal.add({"t": "epoch", "epoch": self._keeper.epoch})
        self.follow([])
        self._keeper.server.attached = connection
        self._snapshot(connection)
        return {"epoch": self._keeper.epoch}

    def _snapshot(self, connection: Connection) -> None:
        self._keeper.tree.refresh()
        for slot in self._keeper.slots.values():
            if slot.alive and not self._keeper.deaths.is_own_child(slot.pid or 0):
                status = read_stat(slot.pid or 0)
                slot.paused = status is not None and status.state == "T"
            described = slot.describe(
                self._keeper.scope_of(slot), self._keeper.output.fifo_path(slot)
            )
            connection.push(encode_line({"ev": "slot", **described}))
        connection.push(
            encode_line(
                {
                    "ev": "attached",
                    "version": PROTOCOL_VERSION,
                    "epoch": self._keeper.epoch,
                    "seq": self._keeper.seq,
                    "keeper_pid": self._keeper.pid,
                    "boot_id": self._keeper.boot_id.decode("ascii", "replace"),
                    "started_at": self._keeper.started_at,
                    "embedded": self._keeper.options.owner is not None,
                    "kill_scope": "subreaper" if self._keeper.subreaper else "session",
                    "blob": self._keeper.blob,
                    "orphans": [
                        {"pid": pid, "comm": comm_of(pid)}
                        for pid, slot in self._keeper.tree.orphans.items()
                        if slot is None
                    ],
                    "journal_ok": self._keeper.journal.ok,
                }
            )
        )

    def _op_spawn(self, _: Connection, request: Json) -> Json:
        name, run = request["name"], request["run"]
        if not is_name(name):
            raise Refused(f"{name!r} can't be the name of a slot")
        if not isinstance(run, str) or not run:
            raise Refused("a run id is a text")
        path, argv, env = request["path"], request["argv"], request["env"]
        if not path.startswith("/"):
            raise Refused("path must be absolute")
        if not argv or not all(isinstance(text, str) for text in argv):
            raise Refused("argv must be a list of texts, argv[0] included")
        if not all(isinstance(text, str) for text in env.values()):
            raise Refused("env must map texts to texts")
        if self._keeper.ending:
            raise Refused("ending")
        settings = request.get("log")
        slot = self._keeper.slots.get(name)
        if slot is None:
            slot = Slot(name)
        elif slot.alive or slot.opening or slot.orphans:
            raise Refused("busy")
        log = None
        if settings is not None:
            log = slot.log
            if log is None or log.path != settings["path"]:
                log = LogFile(name, settings)
            elif log.settings != settings:
                log.configure(settings)
                self._keeper.writer.post(self._keeper.writer.reconfigure, log)
        if slot.log is not None and slot.log is not log:
            self._keeper.writer.post(self._keeper.writer.close, slot.log)
        self._keeper.slots[name] = slot
        self._keeper.by_run.pop(slot.run, None)
        self._keeper.deaths.left_slots.discard(slot)
        slot.begin(run)
        self._keeper.by_run[run] = slot
        slot.log = log
        slot.log_settings = settings
        slot.uid = request.get("uid")
        slot.stop_timeout = float(request.get("stop_timeout") or 10.0)
        if "blob" in request:
            slot.blob = request["blob"]
        self._keeper.notifier.path_of(slot)
        self._keeper.journal.add(
            {
                "t": "intent",
                "name": name,
                "run": run,
                "log": settings,
                "notify": slot.notify_path,
                "stop_timeout": slot.stop_timeout,
                "uid": slot.uid,
                "blob": slot.blob,
                "boot": self._keeper.boot_id.decode("ascii", "replace"),
                "pidns": self._keeper.pid_namespace,
            }
        )
        if log is not None and not log.ready:
            log.followed = self.followed is None or name in self.followed
            slot.opening = True
            self._keeper.starts.opens.append((log, (slot, request)))
        else:
            self._keeper.starts.ready.append((slot, request))
        return {}

    def _op_signal(self, _: Connection, request: Json) -> Json:
        slot = self.slot_of(request)
        number, scope = request["sig"], request.get("scope", "main")
        if scope not in ("main", "tree", "rest"):
            raise Refused(f"unknown scope {scope!r}")
        if not isinstance(number, int) or not 0 <= number <= 64:
            raise Refused(f"unknown signal {number!r}")
        if number == signal.SIGKILL and (scope == "tree" or not slot.alive):
            self.keep_killing(slot)
        count = self._keeper.tree.signal(slot, number, scope)
        return {"count": count}

    def keep_killing(self, slot: Slot) -> None:
        """This follows a SIGKILL of a tree up until nothing is left of it."""
        if slot.killing:
            return
        slot.killing = True
        self._keeper.loop.later(0.02, self._kill_again, slot, slot.run, 0.02)

    def _kill_again(self, slot: Slot, run: str, delay: float) -> None:
        if slot.run != run or not slot.killing:
            return
        if not slot.alive and not slot.orphans:
            slot.killing = False
            return
        before = set(slot.noted)
        self._keeper.tree.signal(slot, signal.SIGKILL, "tree")
        # What is stuck in the kernel is asked ever less often; what still grows is
        # followed as fast as it can be.
        delay = 0.02 if set(slot.noted) - before else min(5.0, delay * 2)
        self._keeper.loop.later(delay, self._kill_again, slot, run, delay)

    def _op_tree(self, request: Json) -> Json:
        slot = self.slot_of(request)
        return {"pids": [pid for pid, _ in self._keeper.tree.members(slot)]}

    def _op_put(self, connection: Connection, request: Json) -> Json | None:
        name, blob = request["name"], request["blob"]
        if name == "":
            self._keeper.blob = blob
        else:
            slot = self._keeper.slots.get(name)
            if slot is None:
                if not is_name(name):
                    raise Refused(f"{name!r} can't be the name of a slot")
                slot = self._keeper.slots[name] = Slot(name)
            slot.blob = blob
        self._keeper.journal.add({"t": "put", "name": name, "blob": blob})
        if not request.get("sync"):
            return {}
        self._keeper.journal.flush()
        if not self._keeper.journal.ok:
            raise Refused("the journal can't be written")
        self._syncs.append((connection, request.get("id")))
        self._start_sync()
        return None

    def _start_sync(self) -> None:
        """This fsyncs in a thread of its own: the loop never waits for a disk."""
        if self._syncing or not self._syncs:
            return
        self._syncing = True
        waiting, self._syncs = self._syncs, []
        fd = os.dup(self._keeper.journal.fd)

        def sync() -> None:
            try:
                os.fsync(fd)
                os.fsync(self._keeper.state_fd)
                failure = ""
            except OSError as err:
                failure = str(err)
            os.close(fd)
            self._keeper.loop.tell("synced", waiting, failure)

        _thread.start_new_thread(sync, ())

    def synced(self, waiting: list[tuple[Connection, Any]], failure: str) -> None:
        """This answers those who waited for an fsync."""
        self._syncing = False
        for connection, identifier in waiting:
            reply = {"error": f"fsync: {failure}"} if failure else {}
            self._keeper.server.answer(connection, identifier, reply)
        self._start_sync()

    def _flush(self, connection: Connection, request: Json) -> None:
        names = request.get("names")
        for slot in list(self._keeper.slots.values()):
            if slot.feed is not None and (names is None or slot.name in names):
                self._keeper.output.drain(slot)
        identifier = request.get("id")
        self._keeper.writer.post(
            self._keeper.loop.tell, "flushed", connection, identifier
        )

    def follow(self, names: list[str] | None) -> None:
        """This chooses whose growing logs are told; None: all."""
        self.followed = None if names is None else set(names)
        for slot in self._keeper.slots.values():
            if slot.log is not None:
                slot.log.followed = names is None or slot.name in names

    def _op_follow(self, _: Connection, request: Json) -> Json:
        self.follow(request["names"])
        return {}

    def _op_forget(self, _: Connection, request: Json) -> Json:
        slot = self.slot_of(request)
        if slot.alive or slot.opening or slot.orphans:
            raise Refused("busy")
        if slot.feed is not None:
            self._keeper.output.drain(slot)
            self._keeper.loop.unwatch(slot.feed.fd)
            os.close(slot.feed.fd)
            slot.feed = None
        if slot.log is not None:
            self._keeper.writer.post(self._keeper.writer.close, slot.log)
        if slot.notify is not None:
            self._keeper.loop.unwatch(slot.notify.fileno())
            slot.notify.close()
        for path in (
            f"{self._keeper.options.state}/fifo/{slot.name}",
            slot.notify_path,
        ):
            try:
                os.unlink(path or "")
            except OSError:
                pass
        del self._keeper.slots[slot.name]
        self._keeper.by_run.pop(slot.run, None)
        self._keeper.deaths.left_slots.discard(slot)
        self._keeper.journal.add({"t": "forget", "name": slot.name})
        return {}

    def _op_control(self, _: Connection, request: Json) -> Json:
        argv = request["argv"]
        record = {"t": "control", "argv": argv, "env": request.get("env")}
        self._keeper.journal.add(dict(record))
        self._keeper.plane.want(record if argv else None)
        return {}

    def _op_exit(self, connection: Connection, request: Json) -> None:
        self._keeper.tree.refresh()
        if any(
            slot.alive or slot.opening or slot.orphans
            for slot in self._keeper.slots.values()
        ):
            raise Refused("busy")
        self._keeper.plane.wanted = None
        self._keeper.journal.add({"t": "control", "argv": None})
        self._keeper.ending = True
        self._keeper._kill_strangers()
        self._keeper.server.answer(connection, request.get("id"), {})
        self._keeper.finish()

    _operations: ClassVar[
        dict[str, Callable[[Requests, Connection, Json], Json | None]]
    ] = {
        "spawn": _op_spawn,
        "signal": _op_signal,
        "put": _op_put,
        "follow": _op_follow,
        "forget": _op_forget,
        "control": _op_control,
        "exit": _op_exit,
    }


# ------------------------------------------------------------------------ control plane


class ControlPlane:
    """This starts the control plane of a background project, again and again."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.wanted: Json | None = None
        self.pid: int | None = None
        self._delay = CONTROL_DELAY_FIRST
        self._since = 0.0
        self._due: object = None

    def want(self, record: Json | None) -> None:
        """This takes a new command line, and starts it; None ends the restarts."""
        self.wanted = record
        self.cancel()
        self._delay = CONTROL_DELAY_FIRST
        if record is not None and self.pid is None:
            self.start()

    def cancel(self) -> None:
        """This calls a planned start off: somebody has attached."""
        self._due = None

    def start(self) -> None:
        """This starts the control plane, unless it runs or is not wanted."""
        if self.wanted is None or self.pid is not None or self._keeper.ending:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        argv = self.wanted["argv"]
        try:
            output = os.open(
                "supervisor.log", flags, 0o600, dir_fd=self._keeper.state_fd
            )
            try:
                self._trim(output)
                environment = self.wanted.get("env")
                pid = self._keeper.spawner.quick(
                    argv[0],
                    argv,
                    dict(os.environ) if environment is None else environment,
                    (self._keeper.spawner.null, output, output),
                    umask=0o077,
                )
            finally:
                os.close(output)
        except (OSError, SpawnFailed) as err:
            note(f"control plane: {err}")
            self.plan(self._delay)
            self._delay = min(CONTROL_DELAY_MAX, self._delay * 2)
            return
        self.pid = pid
        self._since = time.monotonic()
        self._keeper.deaths.helpers[pid] = self._died

    def _trim(self, fd: int) -> None:
        """This keeps the end of supervisor.log when that has grown too long."""
        size = os.fstat(fd).st_size
        if size <= SUPERVISOR_LOG_MAX // 2:
            return
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        reading = os.open("supervisor.log", flags, dir_fd=self._keeper.state_fd)
        tail = os.pread(
            reading, SUPERVISOR_LOG_MAX // 4, size - SUPERVISOR_LOG_MAX // 4
        )
        os.close(reading)
        os.ftruncate(fd, 0)
        os.write(fd, tail[tail.find(b"\n") + 1 :])

    def _died(self, status: int) -> None:
        pid, self.pid = self.pid, None
        if self.wanted is None or self._keeper.ending:
            return
        if time.monotonic() - self._since >= CONTROL_STABLE:
            self._delay = CONTROL_DELAY_FIRST
        delay = self._delay
        self._delay = min(CONTROL_DELAY_MAX, delay * 2)
        record = exit_record(status)
        note(f"the control plane (pid {pid}) died: {record}; again in {delay:g} s")
        self._keeper.numbered(
            {
                "ev": "control",
                "pid": pid,
                "code": record["code"],
                "signal": record["signal"],
                "delay": delay,
            }
        )
        self.plan(delay)

    def plan(self, delay: float) -> None:
        """This starts the control plane in a while, unless that is called off."""
        ticket = self._due = object()

        def start() -> None:
            if self._due is ticket:
                self._due = None
                self.start()

        self._keeper.loop.later(delay, start)


# ----------------------------------------------------------------------------- recovery


class Recovery:
    """This finds the daemons that an earlier keeper left behind."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def recover(self) -> None:
        """This reads the journal and finds the daemons an earlier keeper left."""
        history = self._keeper.journal.read()
        self._keeper.seq = history.seq
        self._keeper.epoch = history.epoch
        self._keeper.blob = history.blob
        self._keeper.plane.wanted = history.control
        self._keeper.notifier.short_folder = history.notify
        intents = []
        for name, record in history.slots.items():
            if is_name(name):
                slot = self._restore(name, record)
                if record.get("intent"):
                    intents.append(slot)
        if intents:
            self._find_intents(intents)
        ended = [
            slot
            for slot in self._keeper.slots.values()
            if not slot.alive
            and slot.run
            and (slot.left or slot.exit is None)
            and slot.failed is None
        ]
        if ended:
            self._find_left_over(ended)
        self._keeper.journal.compact()

    def _restore(self, name: str, record: Json) -> Slot:
        slot = self._keeper.slots[name] = Slot(name)
        slot.begin(str(record.get("run") or ""))
        if slot.run:
            self._keeper.by_run[slot.run] = slot
        slot.blob = record.get("blob")
        slot.exit = record.get("exit")
        slot.failed = record.get("failed")
        slot.left = list(record.get("left") or ())
        slot.ready = bool(record.get("ready"))
        slot.stopping = bool(record.get("stopping"))
        slot.spawned_at = record.get("spawned_at")
        slot.exited_at = record.get("exited_at")
        slot.stop_timeout = float(record.get("stop_timeout") or 10.0)
        slot.uid = record.get("uid")
        slot.notify_path = record.get("notify")
        slot.log_settings = record.get("log")
        same_world = (
            record.get("boot", self._keeper.boot_id.decode())
            == self._keeper.boot_id.decode()
            and record.get("pidns", self._keeper.pid_namespace)
            == self._keeper.pid_namespace
        )
        pid, start = record.get("pid"), record.get("start")
        if slot.log_settings is not None:
            try:
                slot.log = LogFile(name, slot.log_settings)
                self._keeper.writer.post(self._keeper.writer.open, [(slot.log, None)])
            except (Refused, KeyError, TypeError, ValueError):
                slot.log_settings = None
        slot.pid, slot.start, slot.ino = pid, start, record.get("ino")
        if not same_world:
            slot.left = []
            if slot.exit is None and slot.failed is None and slot.run:
                self._set_exit(slot, None)
            return slot
        if pid is not None:
            slot.sessions.add(pid)
            slot.noted[pid] = start or 0
        if slot.exit is None and slot.failed is None and pid is not None:
            if not self._adopt(slot):
                self._set_exit(slot, None)
                slot.left = [pid]  # until the survey says that nothing is left
        return slot

    def _set_exit(self, slot: Slot, status: int | None) -> None:
        slot.exit = exit_record(status)
        slot.exited_at = clock()
        self._keeper.seq += 1

    def _adopt(self, slot: Slot) -> bool:
        """This takes over a main process of an earlier keeper, if it still is the one."""
        assert slot.pid is not None
        try:
            fd = os.pidfd_open(slot.pid)
        except OSError:
            return False
        # Only after the open can the pid not be reused under our eyes.
        status = read_stat(slot.pid)
        inode = os.fstat(fd).st_ino
        if (
            status is None
            or status.start != slot.start
            or (slot.ino not in (None, inode) and slot.ino)
        ):
            os.close(fd)
            return False
        slot.alive = True
        slot.exit = None
        self._keeper.deaths.mains[slot.pid] = slot
        self._keeper.tree.note(slot, slot.pid, status)
        self._keeper.deaths.watch_main(slot, fd)
        self._open_feed_quietly(slot)
        return True

    def _open_feed_quietly(self, slot: Slot) -> None:
        try:
            self._keeper.output.open(slot)
            self._keeper.notifier.open(slot)
        except SpawnFailed as err:
            note(f"{slot.name}: {err.step}: {err.text}")

    def _find_intents(self, slots: list[Slot]) -> None:
        """This looks for children whose pid was never written down.

        A child between vfork and exec still shows the dead keeper's command line,
        so while there is one, it looks again.
        """
        for slot in slots:
            slot.exit = None
        for _ in range(30):
            unborn = self._unborn()
            waiting = [slot for slot in slots if not slot.alive]
            for name, members in self._keeper.tree.survey(waiting).items():
                slot = self._keeper.slots[name]
                leaders = [
                    pid
                    for pid in sorted(members, key=lambda pid: members[pid])
                    if (found := read_stat(pid)) is not None and found.session == pid
                ]
                for pid in leaders:
                    slot.pid, slot.start, slot.ino = pid, members[pid], None
                    if self._adopt(slot):
                        slot.spawned_at = clock()
                        break
            if not unborn:
                break
            time.sleep(0.01)
        for slot in slots:
            if not slot.alive:
                slot.failed = {
                    "step": "fork",
                    "errno": 0,
                    "text": "the keeper died while it was starting this",
                }

    def _unborn(self) -> bool:
        """Whether there may be a child of a dead keeper of ours before its exec.

        In the middle of it, it shows no command line at all; so do kernel threads,
        which are children of 0 and 2.
        """
        marker = os.fsencode(self._keeper.options.state)
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self._keeper.pid:
                continue
            command = read_file(f"/proc/{entry}/cmdline", 8192) or b""
            ours = b"keeper" in command and marker in command.split(b"\0")
            if command and not ours:
                continue
            status = read_stat(int(entry))
            if status is None or status.state in "ZX":
                continue
            if ours or status.parent not in (0, 2):
                return True
        return False

    def _find_left_over(self, slots: list[Slot]) -> None:
        for name, members in self._keeper.tree.survey(slots).items():
            slot = self._keeper.slots[name]
            slot.left = []
            for pid, start in members.items():
                self._keeper.deaths.watch_left_over(slot, pid, start)
            if slot.exit is None and not slot.alive:
                self._set_exit(slot, None)
            if slot.left:
                self._keeper.deaths.left_slots.add(slot)
                self._open_feed_quietly(slot)


# -------------------------------------------------------------------------- the keeper


class Keeper:
    """This holds the parts together, and is what they know of each other."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.pid = os.getpid()
        self.state_fd = open_private_folder(options.state, 0o700)
        self.lock_fd = self._take_lock()
        self._redirect()
        self.subreaper = become_subreaper()
        self.boot_id = (read_file("/proc/sys/kernel/random/boot_id") or b"").strip()
        self.pid_namespace = os.stat("/proc/self/ns/pid").st_ino
        self.started_at = clock()
        self.slots: dict[str, Slot] = {}
        self.by_run: dict[str, Slot] = {}
        self.blob: Any = None
        self.epoch = 0
        self.seq = 0
        self.ending = False
        self.grown: dict[str, tuple[int, int]] = {}
        self.lost: dict[str, tuple[int, int]] = {}
        self.loop = Loop()
        self.spawner = Spawner()
        self.writer = LogWriter(options.state, self.loop.tell)
        self.journal = Journal(self.state_fd, self.describe_all)
        self.tree = Tree(self)
        self.output = Output(self)
        self.notifier = Notifier(self)
        self.server = Server(self)
        self.deaths = Deaths(self)
        self.starts = Starts(self)
        self.requests = Requests(self)
        self.plane = ControlPlane(self)

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open("lock", flags, 0o600, dir_fd=self.state_fd)
        for attempt in range(20):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Who only asks whether a keeper lives holds it for an instant.
                if attempt == 19:
                    text = os.pread(fd, 20, 0).strip()
                    raise LockTaken(int(text) if text.isdigit() else 0) from None
                time.sleep(0.002)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % self.pid, 0)
        return fd

    def _redirect(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open("keeper.log", flags, 0o600, dir_fd=self.state_fd)
        if os.fstat(fd).st_size > SUPERVISOR_LOG_MAX:
            os.ftruncate(fd, 0)
        os.dup2(fd, 2)
        os.close(fd)

    def run(self) -> NoReturn:
        """This is the loop."""
        self.loop.watch(self.loop.mail_fd, self._read_mail)
        self.deaths.begin()
        while True:
            try:
                self._turn()
            except Exception:
                note_exception("loop")
                time.sleep(0.01)

    def _turn(self) -> None:
        self.loop.turn(bool(self.output.due) or self.server.has_requests())
        self.server.serve()
        if self.starts.opens:
            self.starts.open_logs()
        if self.output.due:
            self.output.serve()
        self._finish_turn()

    def _finish_turn(self) -> None:
        self.journal.flush()
        self.writer.push()
        if self.grown:
            for name, (gen, size) in self.grown.items():
                self.server.event({"ev": "log", "name": name, "gen": gen, "size": size})
            self.grown.clear()
        if self.lost:
            lost, self.lost = self.lost, {}
            for name, (count, total) in lost.items():
                self.numbered(
                    {"ev": "dropped", "name": name, "bytes": count, "total": total}
                )
            self.journal.flush()
        self.server.flush()

    def numbered(self, event: Json, record: Json | None = None) -> None:
        """This gives an event the next number, journals that, and sends it."""
        self.seq += 1
        event["seq"] = self.seq
        if record is None:
            record = {"t": "seq"}
        record["q"] = self.seq
        self.journal.add(record)
        self.server.event(event)

    def _kill_strangers(self) -> None:
        """This ends the orphans that no slot can claim, before the keeper goes."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            self.tree.refresh()
            strangers = [pid for pid, s in self.tree.orphans.items() if s is None]
            if not strangers:
                return
            for pid in strangers:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            time.sleep(0.002)
            self.deaths.reap()

    def finish(self) -> NoReturn:
        """This ends the keeper; the logs are written out first."""
        for slot in self.slots.values():
            if slot.feed is not None:
                self.output.drain(slot)
        self.journal.flush()
        done = _thread.allocate_lock()
        done.acquire()
        self.writer.post(done.release)
        done.acquire(timeout=5.0)
        self._finish_turn()
        if self.options.owner is not None:
            remove_folder(self.options.runtime)
            remove_folder(self.options.state)
            # What the owner made for the two, if nothing else is in it.
            try:
                os.rmdir(os.path.dirname(self.options.state))
            except OSError:
                pass
        else:
            for slot in self.slots.values():
                try:
                    os.unlink(slot.notify_path or "")
                except OSError:
                    pass
            try:
                os.unlink("keeper.sock", dir_fd=self.state_fd)
            except OSError:
                pass
        if self.notifier.short_folder is not None:
            remove_folder(self.notifier.short_folder)
        os._exit(0)

    def _read_mail(self, _: int) -> None:
        try:
            os.eventfd_read(self.loop.mail_fd)
        except BlockingIOError:
            pass
        while self.loop.mailbox:
            message = self.loop.mailbox.popleft()
            kind, arguments = message[0], message[1:]
            if kind == "opened":
                self.starts.opened(*arguments)
            elif kind == "grown":
                log, gen, size = arguments
                self.grown[log.name] = (gen, size)
            elif kind == "dropped":
                log, count, total = arguments
                before = self.lost.get(log.name, (0, 0))[0]
                self.lost[log.name] = (before + count, total)
                slot = self.slots.get(log.name)
                if slot is not None:
                    slot.dropped = total
            elif kind == "writable":
                self.output.release()
            elif kind == "flushed":
                connection, identifier = arguments
                self.server.answer(connection, identifier, {})
            elif kind == "synced":
                self.requests.synced(*arguments)
            elif kind == "pack":
                self._pack(*arguments)

    def _pack(self, source: int, target: int) -> None:
        """This starts the niced child that compresses a finished log."""
        try:
            pid = self.spawner.quick(
                sys.executable,
                [sys.executable, "-I", "-S", self.options.program, "--gzip"],
                {},
                (source, target, 2),
            )
        except SpawnFailed as err:
            note(f"gzip: {err.text}")
            self.writer.post(self.writer.packed, 1)
        else:
            self.deaths.helpers[pid] = lambda status: self.writer.post(
                self.writer.packed, status
            )
        finally:
            os.close(source)

    def scope_of(self, slot: Slot) -> str:
        """This names how a slot's tree is found: `subreaper`, or `session`."""
        return "session" if slot.foreign or not self.subreaper else "subreaper"

    def found_stranger(self, pid: int) -> None:
        """This reports an orphan that no slot can claim."""
        self.numbered({"ev": "orphan", "pid": pid, "comm": comm_of(pid)})

    def watch_owner(self) -> None:
        """This ends everything when the application that owns us is gone."""
        owner = self.options.owner
        if owner is None:
            return
        try:
            fd = os.pidfd_open(owner)
        except OSError:
            self._owner_gone()
            return

        def gone(_: int) -> None:
            self.loop.unwatch(fd)
            self._owner_gone()

        self.loop.watch(fd, gone)

    def _owner_gone(self) -> None:
        self.ending = True
        self.plane.wanted = None
        for slot in list(self.slots.values()):
            if not slot.alive and not slot.orphans:
                continue
            self.tree.signal(slot, signal.SIGTERM, "tree")
            self.tree.signal(slot, signal.SIGCONT, "tree")
            self.loop.later(slot.stop_timeout, self._owner_kill, slot, slot.run)
        self._finish_if_empty()

    def _owner_kill(self, slot: Slot, run: str) -> None:
        if slot.run == run and (slot.alive or slot.orphans):
            self.tree.signal(slot, signal.SIGKILL, "tree")
            self.requests.keep_killing(slot)

    def _finish_if_empty(self) -> None:
        if any(slot.alive or slot.orphans for slot in self.slots.values()):
            return
        if self.plane.pid is not None:
            os.kill(self.plane.pid, signal.SIGTERM)
        self._kill_strangers()
        self.finish()

    def describe_all(self) -> list[Json]:
        """This renders everything that a compacted journal must hold."""
        boot = self.boot_id.decode("ascii", "replace")
        records: list[Json] = [
            {
                "t": "keeper",
                "pid": self.pid,
                "notify": self.notifier.short_folder,
                "epoch": self.epoch,
                "q": self.seq,
            },
            {"t": "put", "name": "", "blob": self.blob},
        ]
        if self.plane.wanted is not None:
            records.append(dict(self.plane.wanted))
        for slot in self.slots.values():
            described = slot.persist()
            described.update(boot=boot, pidns=self.pid_namespace)
            records.append({"t": "slot", "slot": described})
        return records


def comm_of(pid: int) -> str:
    """This is the short name of a process, for people."""
    return (read_file(f"/proc/{pid}/comm", 64) or b"?").decode("utf-8", "replace")[:-1]


def is_name(name: object) -> bool:
    """Whether a text may name a slot, and so a file."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 72
        and not name.startswith(".")
        and NAME_CHARACTERS.issuperset(name)
    )


_MSG_TRUNC = 0x20
_MSG_CMSG_CLOEXEC = 0x40000000


# ---------------------------------------------------------------------------- start


class LockTaken(Exception):
    """Another keeper holds the lock; `pid` is the one it wrote down."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


class Options:
    """This is the command line."""

    def __init__(self, program: str, arguments: list[str]) -> None:
        self.program = os.path.abspath(program)
        self.owner: int | None = None
        self.ready_fd: int | None = None
        values: dict[str, str] = {}
        rest = list(arguments)
        while rest:
            key = rest.pop(0)
            if key not in OPTION_NAMES or not rest:
                raise ValueError(f"unknown or incomplete option {key!r}")
            values[key] = rest.pop(0)
        try:
            self.state = os.path.abspath(values["--state"])
            self.runtime = os.path.abspath(values["--runtime"])
        except KeyError as err:
            raise ValueError(f"{err.args[0]} DIR is missing") from err
        if "--owner" in values:
            self.owner = int(values["--owner"])
        if "--ready-fd" in values:
            self.ready_fd = int(values["--ready-fd"])
        self.mode = values.get("--mode", "foreground")


OPTION_NAMES = ("--state", "--runtime", "--owner", "--ready-fd", "--mode")


def detach(options: Options) -> None:
    """This leaves everything of the starter behind: session, signals, fds, folder."""
    try:
        os.setsid()
    except PermissionError:
        pass  # the starter has made us a leader already
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGPIPE,
    ):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    os.chdir("/")
    kept = options.ready_fd
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                pass
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
    if kept is not None:
        os.set_inheritable(kept, False)


def say(options: Options, message: Json) -> None:
    """This tells the starter how the start went, once."""
    if options.ready_fd is not None:
        append_text(options.ready_fd, dumps(message) + "\n")
        os.close(options.ready_fd)
        options.ready_fd = None


def ignore_fork_warning() -> None:
    """This silences Python 3.12's warning about fork with threads.

    The child calls nothing but system calls until it is the daemon.
    """
    try:
        import _warnings

        entry = ("ignore", None, DeprecationWarning, None, 0)
        _warnings.filters.insert(0, entry)
    except (ImportError, AttributeError):
        pass


def start(options: Options) -> NoReturn:
    """This becomes the keeper, or says why not and exits with 1."""
    try:
        detach(options)
        keeper = Keeper(options)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(keeper.deaths.wakeup_fd, warn_on_full_buffer=False)
        Recovery(keeper).recover()
        keeper.server.listen()
        keeper.watch_owner()
    except LockTaken as err:
        say(options, {"error": "another keeper is running", "pid": err.pid})
        os._exit(1)
    except OSError as err:
        say(options, {"error": str(err), "errno": err.errno, "pid": None})
        os._exit(1)
    except Exception as err:
        note_exception("start")
        say(options, {"error": f"{type(err).__name__}: {err}", "pid": None})
        os._exit(1)
    ignore_fork_warning()
    sys.setswitchinterval(0.0005)
    say(options, {"ok": True, "pid": keeper.pid})
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    _thread.start_new_thread(run_loop, (keeper,))
    keeper.writer.run()


def run_loop(keeper: Keeper) -> None:
    """This is the body of the loop's thread, which alone takes SIGCHLD."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    if keeper.plane.wanted is not None and keeper.options.owner is None:
        # Both may have died. Whoever attaches first cancels this.
        keeper.plane.plan(5.0)
    keeper.run()


def main(arguments: list[str]) -> NoReturn:
    """This is the program."""
    if arguments[1:] == ["--gzip"]:
        run_gzip()
    try:
        options = Options(arguments[0], arguments[1:])
    except ValueError as err:
        append_text(2, f"keeper: {err}\n")
        sys.exit(2)
    start(options)


if __name__ == "__main__":
    main(sys.argv)
