"""The files that tell about a machine; of this one, or of another kept in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import final

__all__ = ("MOUNTS", "World")

MOUNTS = "/proc/self/mountinfo"

MAX_BYTES = 1024 * 1024
"""More of a file than this is not read: what is asked for here is small."""


@final
class World:
    """This reads a machine's files, environment and namespaces; it never raises.

    Paths are those of the machine. With another `root` they are looked for below it:
    another machine's files, or a copy of some of them.
    """

    __slots__ = ("environ", "root")

    def __init__(
        self, root: str = "/", environ: Mapping[str, str] | None = None
    ) -> None:
        self.root: str = root
        self.environ: Mapping[str, str] = os.environ if environ is None else environ

    @property
    def is_here(self) -> bool:
        """Whether it is the machine this runs on, which can also be asked by calls."""
        return self.root == "/"

    def path(self, path: str) -> str:
        """This is where a file of the machine really is."""
        return os.path.join(self.root, path.lstrip("/"))

    def read_bytes(self, path: str) -> bytes | None:
        """This is what a file holds; None where it can't be read."""
        try:
            with open(self.path(path), "rb") as file:
                return file.read(MAX_BYTES)
        except OSError:
            return None

    def read(self, path: str) -> str | None:
        """This is the text of a file, without blanks around it."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", "replace").strip(" \n\0")

    def number(self, path: str) -> int | None:
        """This is the number that a file holds; None where it holds something else."""
        text = self.read(path) or ""
        return int(text) if text.isdecimal() and text.isascii() else None

    def exists(self, path: str) -> bool:
        """This says whether there is something of that name."""
        return os.path.lexists(self.path(path))

    def readlink(self, path: str) -> str | None:
        """This is what a symbolic link says; None where there is none."""
        try:
            return os.readlink(self.path(path))
        except OSError:
            return None

    def listdir(self, path: str) -> tuple[str, ...]:
        """This lists a folder in order; nothing where it can't be read."""
        try:
            return tuple(sorted(os.listdir(self.path(path))))
        except OSError:
            return ()

    def inode(self, path: str) -> int | None:
        """This is the inode number of a file."""
        try:
            return os.stat(self.path(path)).st_ino
        except OSError:
            return None

    def mounts(self) -> Iterator[tuple[str, str, str]]:
        """This lists mounts (proc(5)): what of it, where, and type, source, options."""
        for line in (self.read(MOUNTS) or "").split("\n"):
            first, dash, last = line.partition(" - ")
            fields = first.split(" ")
            if dash and len(fields) >= 5:
                yield fields[3], fields[4], last

    def attribute(self, path: str, name: str) -> bytes | None:
        """This is an extended attribute of a file (xattr(7))."""
        if sys.platform != "linux":
            return None
        try:
            return os.getxattr(self.path(path), name)
        except OSError:
            return None

    def namespace(self, kind: str, pid: str = "self") -> int | None:
        """This is the number of a process's namespace (namespaces(7)).

        Args:
            kind: "pid", "user", "mnt" and so on.
            pid: Whose; 1's can be seen with rights over it only.
        """
        link = self.readlink(f"/proc/{pid}/ns/{kind}")
        if link is None:
            return None
        _, _, number = link.partition(":[")
        number = number.rstrip("]")
        return int(number) if number.isdecimal() and number.isascii() else None
