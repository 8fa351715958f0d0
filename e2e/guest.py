"""A whole machine for a test: User-mode Linux on this machine's files, no KVM needed.

Its kernel is an ordinary process (user-mode-linux(1)); in it systemd is process 1, with
control groups of version 2 and, if wanted, a disk of its own for swap.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

from .conftest import missing

INIT = Path(__file__).with_name("guest-init.sh")
KERNEL = "linux.uml"


@attrs.frozen(kw_only=True)
class GuestResult:
    """This is what a script in a guest printed, and how it ended."""

    code: int
    output: str


def _hidden() -> list[str]:
    """This lists what the guest needs of folders that it has its own of."""
    needed = {str(INIT.parents[1]), sys.prefix, sys.base_prefix}
    return sorted(
        path for path in needed if path.startswith(("/tmp/", "/var/", "/run/"))
    )


def run_in_guest(
    script: str, *, memory: str = "512M", disk_mb: int = 0, seconds: float = 150.0
) -> GuestResult:
    """This runs a shell script as root in a guest, and ends the guest with it.

    The script sees this machine's files, read-only; /run, /tmp and /var are its own and
    empty, but for this checkout and this Python, wherever they are. What it writes into
    the folder $OUT is gone with the guest. With `disk_mb` there is an empty /dev/ubda.
    """
    kernel = shutil.which(KERNEL, path="/usr/bin:/usr/local/bin")
    if kernel is None:
        missing(f"{KERNEL} is not installed: apt-get install user-mode-linux")
    if not Path("/lib/systemd/systemd").exists():
        missing("systemd is not installed: apt-get install systemd dbus")
    with tempfile.TemporaryDirectory(prefix="duende-guest-") as folder:
        out = Path(folder)
        (out / "script").write_text(script)
        arguments = [
            f"mem={memory}",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            f"init={INIT}",
            f"guest_out={out}",
            f"guest_show={':'.join(_hidden())}",
            "con=null",
            "con0=fd:0,fd:1",
            "quiet",
        ]
        if disk_mb:
            disk = out / "disk"
            with disk.open("wb") as file:
                file.truncate(disk_mb * 1024 * 1024)
            arguments.append(f"ubd0={disk}")
        console = out / "console"
        with console.open("wb") as output:
            guest = subprocess.Popen(
                [str(kernel), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                guest.wait(seconds)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()
        code = out / "code"
        printed = out / "output"
        text = printed.read_text(errors="replace") if printed.exists() else ""
        if not code.exists():
            last = console.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the guest did not finish:\n{text}\n{last}")
        return GuestResult(code=int(code.read_text()), output=text)
