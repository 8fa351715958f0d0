"""Children that misbehave in one way each: `python -I -S child.py MODE [ARGUMENT…]`.

They write to their current folder, which is the project's.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time


def notify(text: str) -> None:
    """This tells the supervisor something, as sd_notify(3) does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def append(name: str, text: str) -> None:
    """This adds a line to a file, at once and whole."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(name, flags, 0o644)
    os.write(descriptor, text.encode() + b"\n")
    os.close(descriptor)


def wait_for_ever() -> None:
    """This waits until a signal ends the process."""
    while True:
        signal.pause()


def branch(kind: str, pids: str) -> None:
    """This forks a child that gets away in one of several ways."""
    if os.fork():
        return
    if kind in ("setsid", "double", "bare", "mute"):
        os.setsid()
    if kind in ("double", "bare", "mute") and os.fork():
        os._exit(0)
    append(pids, f"{kind} {os.getpid()}")
    if kind == "mute":
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
    if kind in ("bare", "mute"):
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    wait_for_ever()


def tree(pids: str, *kinds: str) -> None:
    """This is a main process whose children try to get away; ready when all exist."""
    for kind in kinds:
        branch(kind, pids)
    append(pids, f"main {os.getpid()}")
    mine = len(kinds) + 1
    while True:
        with open(pids, encoding="utf-8") as stream:
            if len(stream.read().splitlines()) >= mine:
                break
        time.sleep(0.005)
    # Those that double-forked left a child behind that has ended.
    for kind in kinds:
        if kind in ("double", "bare", "mute"):
            os.wait()
    notify("READY=1")
    wait_for_ever()


def orphans(count: str) -> None:
    """This makes orphans, a batch at a time, which all end at once; then it stays."""
    left = int(count)
    while left:
        batch = min(left, 250)
        left -= batch
        reading, writing = os.pipe()
        for _ in range(batch):
            if os.fork() == 0:
                if os.fork() == 0:
                    os.close(writing)
                    os.read(reading, 1)
                os._exit(0)
        for _ in range(batch):
            os.wait()
        os.close(reading)
        os.close(writing)
    notify("READY=1")
    wait_for_ever()


def hold(lock: str) -> None:
    """This holds a lock for life: a second one of us at the same time is told of."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        append(lock + ".double", str(os.getpid()))
        sys.exit(3)
    append(lock + ".starts", str(os.getpid()))
    wait_for_ever()


def stubborn() -> None:
    """This ignores every polite request to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    notify("READY=1")
    wait_for_ever()


def fail(times: str, code: str) -> None:
    """This writes down when it was started, and exits."""
    append(times, repr(time.monotonic()))
    sys.exit(int(code))


def lines(count: str, end: str) -> None:
    """This writes numbered lines as fast as they are taken, and exits or stays."""
    number, total = 0, int(count)
    while number < total:
        stop = min(number + 500, total)
        text = b"".join(b"line %08d of a stream\n" % n for n in range(number, stop))
        while text:
            text = text[os.write(1, text) :]
        number = stop
    if end == "stay":
        append("written", str(number))
        wait_for_ever()
    sys.exit(int(end))


def counting() -> None:
    """This writes a numbered line every few milliseconds, and dies of SIGPIPE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    number = 0
    while True:
        os.write(1, b"line %08d of a stream\n" % number)
        number += 1
        time.sleep(0.002)


def late(signpost: str) -> None:
    """This is ready when a file appears."""
    while not os.path.exists(signpost):
        time.sleep(0.01)
    notify("READY=1")
    wait_for_ever()


def gate(code: str) -> None:
    """This stays until a file `end` appears, and exits with the code."""
    while not os.path.exists("end"):
        time.sleep(0.01)
    sys.exit(int(code))


def listen(path: str) -> None:
    """This listens while a file `open` exists, and doesn't while it does not."""
    listener: socket.socket | None = None
    while True:
        wanted = os.path.exists("open")
        if wanted and listener is None:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            listener.listen()
            append("listening", "open")
        elif not wanted and listener is not None:
            listener.close()
            os.unlink(path)
            listener = None
            append("listening", "closed")
        time.sleep(0.01)


if __name__ == "__main__":
    modes = {
        "tree": tree,
        "orphans": orphans,
        "hold": hold,
        "stubborn": stubborn,
        "fail": fail,
        "lines": lines,
        "counting": counting,
        "late": late,
        "gate": gate,
        "listen": listen,
    }
    modes[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
