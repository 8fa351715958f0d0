"""Where the benchmarks work: a temporary folder with the compiled programs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ("Workplace",)

SOURCES = Path(__file__).parent / "sources"


class Workplace:
    """This is the folder of one run; it is removed at the end.

    Args:
        root: Where to make it; the temporary directory when None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="duende-bench-", dir=root))
        self.child = self._compiled("child")
        self.floor = self._compiled("floor")
        # A runtime folder is on a tmpfs wherever one logs in (XDG base directory
        # specification); the temporary folder often is not.
        shared = Path("/dev/shm")
        self._volatile = Path(
            tempfile.mkdtemp(
                prefix="duende-bench-", dir=shared if shared.is_dir() else root
            )
        )
        self._runs = 0

    def _compiled(self, name: str) -> Path:
        program = self.path / f"bench-{name}"
        source = SOURCES / f"{name}.c"
        command = ["gcc", "-O2", "-static", "-o", str(program), str(source)]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise SystemExit(
                "the benchmarks need gcc (Debian: gcc libc6-dev)"
            ) from None
        return program

    def new_folder(self) -> Path:
        """This makes an empty folder for one measurement."""
        self._runs += 1
        folder = self.path / f"{self._runs}"
        folder.mkdir()
        return folder

    def new_runtime_folder(self) -> Path:
        """This makes an empty folder in memory, for sockets, for one measurement."""
        folder = self._volatile / f"{self._runs}"
        folder.mkdir(mode=0o700)
        return folder

    def supervisor_programs(self) -> Path:
        """This makes a virtual environment with supervisord, once, and gives its bin.

        Raises:
            subprocess.CalledProcessError: It can't be installed.
        """
        folder = self.path / "supervisor"
        if not folder.exists():
            quiet = ["--quiet", "--disable-pip-version-check"]
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            # 4.3 no longer needs pkg_resources, which setuptools 82 removed.
            install = ["-m", "pip", "install", *quiet, "supervisor>=4.3"]
            subprocess.run([str(folder / "bin/python"), *install], check=True)
        return folder / "bin"

    def close(self) -> None:
        """This removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self._volatile, ignore_errors=True)

    @staticmethod
    def program(name: str) -> str | None:
        """This finds a program, also in the folders that a user's PATH leaves out."""
        path = os.environ.get("PATH", "")
        return shutil.which(name, path=f"{path}:/usr/sbin:/sbin:/usr/bin")
