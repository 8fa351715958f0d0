"""How a probe answers, and the two ways it asks: a program, and a socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import Any

from duende.platform.types import Capability

__all__ = ("absent", "ask_program", "ask_socket", "last_line", "unusable", "usable")

SECONDS = 2.0
"""How long one question may take."""

MAX_BYTES = 256 * 1024


def usable(name: str, reason: str, **details: str) -> Capability:
    """This is something that works."""
    return Capability(name=name, state="usable", reason=reason, details=details)


def unusable(name: str, reason: str, mend: str = "", **details: str) -> Capability:
    """This is something that is there and does not work."""
    return Capability(
        name=name, state="unusable", reason=reason, mend=mend, details=details
    )


def absent(name: str, reason: str, mend: str = "") -> Capability:
    """This is something that isn't there."""
    return Capability(name=name, state="absent", reason=reason, mend=mend)


def ask_program(*command: str, **environ: str) -> tuple[int, str]:
    """This runs a program, and gives its exit code and what it said.

    Args:
        command: The program and its arguments.
        environ: What its environment has besides this process's.

    Returns:
        Code 124 when the time was over, 127 when there is no such program.
    """
    if shutil.which(command[0]) is None:
        return 127, f"there is no program {command[0]}"
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", **environ},
            start_new_session=True,
        )
    except OSError as error:
        return 126, f"{command[0]} can't be run: {error.strerror}"
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        # With all that it started: a child of its would keep the pipe open.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124, f"{command[0]} gave no answer in {SECONDS:g} s"
    finally:
        assert process.stdout is not None, "it is a pipe"
        process.stdout.close()
    return process.returncode, output.decode("utf-8", "replace").strip()


def ask_socket(path: str, resource: str) -> dict[str, Any]:
    """This asks an HTTP server at a Unix socket for a JSON object.

    Raises:
        OSError: It can't be reached, is too slow, or answers something else.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(SECONDS)
        deadline = time.monotonic() + SECONDS
        peer.connect(path)
        # 1.0: the body comes in one piece and ends with the connection (RFC 9112).
        peer.sendall(f"GET {resource} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        data = b""
        while len(data) < MAX_BYTES and (part := peer.recv(65536)):
            data += part
            peer.settimeout(max(deadline - time.monotonic(), 0.001))
    head, _, body = data.partition(b"\r\n\r\n")
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if b" 200 " not in head.split(b"\r\n")[0] + b" " or not isinstance(answer, dict):
        raise OSError("it answers something else than an engine does")
    return answer


def last_line(text: str) -> str:
    """This is what a program said last, which is where it says why it failed."""
    return (text.splitlines() or ["no answer"])[-1][:200]
