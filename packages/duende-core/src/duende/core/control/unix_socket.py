"""Unix sockets at any path: bound without a window, connected when too long.

A socket address holds 107 bytes of path (sun_path of unix(7), less the NUL). A
longer path is reached through a descriptor of its folder: /proc/self/fd/N/NAME.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from duende.core.errors import (
    AlreadyRunning,
    DaemonError,
    NotSupported,
    PermissionDenied,
    PlatformError,
)

__all__ = (
    "LONGEST_PATH",
    "bind_private",
    "check_replaceable",
    "connect",
    "is_too_long",
)

LONGEST_PATH = 107
"""Bytes of a path that fit into sun_path (unix(7)): 108 less the final NUL."""


def is_too_long(path: str) -> bool:
    """This says whether a path does not fit into a socket address."""
    return len(os.fsencode(path)) > LONGEST_PATH


class _Reachable:
    """This is a folder held open for as long as a long path in it is needed."""

    def __init__(self, path: str) -> None:
        self._folder: int | None = None
        self.path = path
        if is_too_long(path):
            if not os.path.isdir("/proc/self/fd"):
                raise NotSupported(
                    f"socket path {path!r} is longer than {LONGEST_PATH} bytes, and "
                    "there is no /proc/self/fd here to shorten it",
                    "use --socket with a shorter path",
                )
            folder, name = os.path.split(path)
            self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._folder}/{name}"

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)


def connect(path: str, timeout: float | None) -> socket.socket:
    """This connects a blocking stream socket; `timeout` seconds for each operation.

    Raises:
        OSError: Nothing listens there (FileNotFoundError, ConnectionRefusedError),
            or it may not be reached.
    """
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(timeout)
        with _Reachable(path) as reachable:
            stream.connect(reachable)
    except BaseException:
        stream.close()
        raise
    return stream


def bind_private(path: str, backlog: int = 1024) -> socket.socket:
    """This makes a listening socket that is 0600 from its first instant.

    It is bound under a temporary name, listens, and is then renamed over what a
    dead predecessor left, so that a client finds the old one or a working one.

    Raises:
        AlreadyRunning: A living process listens at the path.
        PlatformError: Something that is no socket lies there, or the folder is
            missing or unusable.
        PermissionDenied: The folder may not be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    check_replaceable(path)
    # What a predecessor of the same pid left between bind and rename is removed.
    temporary = os.path.join(folder, f".{name[:40]}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with _Reachable(temporary) as reachable:
            _unlink_quietly(temporary)
            # unix_bind (net/unix/af_unix.c) makes the file with the mode that the
            # socket has, less the umask: so it is never wider than this.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(reachable)
            os.chmod(reachable, 0o600)  # an umask may have left less than that
        try:
            listener.listen(backlog)
            os.rename(temporary, path)
        except BaseException:
            _unlink_quietly(temporary)
            raise
    except OSError as err:
        listener.close()
        raise _bind_error(path, err) from err
    except BaseException:
        listener.close()
        raise
    return listener


def check_replaceable(path: str) -> None:
    """This says whether a socket may be made at a path.

    Raises:
        AlreadyRunning: A living process listens there.
        PlatformError: Something that is no socket lies there.
        PermissionDenied: It is somebody else's.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as err:
        raise _bind_error(path, err) from err
    if not stat.S_ISSOCK(found.st_mode):
        raise PlatformError(
            f"{path!r} exists and is no socket, so it is not replaced",
            "remove it, or give another path with --socket",
        )
    try:
        connect(path, timeout=1.0).close()
    except PermissionError as err:
        raise PermissionDenied(
            f"{path!r} is somebody else's socket", "give another path with --socket"
        ) from err
    except OSError:
        return  # nobody listens: left by a process that died
    raise AlreadyRunning(
        f"another supervisor listens at {path!r}",
        "give another path with --socket, or stop that one with 'duende down'",
    )


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _bind_error(path: str, err: OSError) -> DaemonError:
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"the control socket {path!r} could not be made: {err.strerror}",
            "check who may write its folder, or give another path with --socket",
        )
    return PlatformError(
        f"the control socket {path!r} could not be made: {err.strerror}",
        "check its folder, or give another path with --socket",
    )
