"""The floor in Python: the same loop as floor.c, run as `python -I -S floor.py`.

It imports what the loop needs, and nothing of duende.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time

_PAUSE = 0.02
_READ = 65536


def main(child: str, count: int, folder: str | None) -> None:
    """This starts children, starts again each that ends, and copies their output."""
    numbers: dict[int, int] = {}
    outputs: dict[int, int] = {}
    files: dict[int, int] = {}
    ready = select.epoll()
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    ready.register(wake, select.EPOLLIN)

    def start(number: int) -> None:
        actions = []
        output = -1
        if folder is not None:
            mine, output = os.pipe()
            os.set_blocking(mine, False)
            fcntl.fcntl(mine, fcntl.F_SETPIPE_SZ, 1 << 20)
            actions.append((os.POSIX_SPAWN_DUP2, output, 1))
            outputs[mine] = number
            ready.register(mine, select.EPOLLIN)
        pid = os.posix_spawn(
            child,
            [child, str(number)],
            os.environ,
            file_actions=actions,
            setsid=True,
        )
        numbers[pid] = number
        if output >= 0:
            os.close(output)

    def copy(descriptor: int) -> int:
        total = 0
        while True:
            try:
                data = os.read(descriptor, _READ)
            except BlockingIOError:
                return total
            if not data:
                ready.unregister(descriptor)
                os.close(descriptor)
                del outputs[descriptor]
                return total
            os.write(files[outputs[descriptor]], data)
            total += len(data)

    for number in range(count):
        if folder is not None:
            path = f"{folder}/{number}.log"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            files[number] = os.open(path, flags, 0o600)
        start(number)
    while True:
        read_back = 0
        signalled = False
        for descriptor, _ in ready.poll():
            if descriptor == wake:
                signalled = True
            else:
                read_back += copy(descriptor)
        if not signalled:
            if read_back < _READ // 4:
                time.sleep(_PAUSE)
            continue
        if signal.SIGTERM in os.read(wake, _READ):
            for pid in numbers:
                os.kill(pid, signal.SIGTERM)
            for _ in range(len(numbers)):
                os.wait()
            for descriptor in tuple(outputs):
                copy(descriptor)
            os._exit(0)
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            start(numbers.pop(pid))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
