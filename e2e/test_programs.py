"""Programs that nobody here wrote, through everything that a daemon goes through."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from .project import Project, free_port, until
from .world import lives, read_process, tree_of

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.slow]

Find = Callable[[str], str]


def talk(port: int, text: bytes, end: bytes, timeout: float = 5.0) -> bytes:
    """This sends some bytes and reads until the answer's last ones."""
    with socket.create_connection(("127.0.0.1", port), timeout) as stream:
        stream.sendall(text)
        answer = b""
        while not answer.endswith(end):
            part = stream.recv(65536)
            if not part:
                break
            answer += part
        return answer


def is_refused(port: int) -> bool:
    """Whether nobody listens at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return True
    return False


def go_through_life(
    project: Project, name: str, use: Callable[[], None], port: int
) -> None:
    """This starts, uses, crashes, pauses, resumes, stops and starts a daemon."""
    project.up()
    use()
    for count, number in enumerate((signal.SIGKILL, signal.SIGSEGV), start=1):
        before = project.row(name)
        family = tree_of(before["pid"])
        os.kill(before["pid"], number)
        after = project.comes_back(name, before["pid"])
        assert {"signal": number.name} == after["exit"]
        assert before["restarts"] + 1 == after["restarts"], count
        assert not [each for each in family if lives(each.pid)]
        use()
    project.ok("pause", name)
    pid = project.pid(name)
    assert "paused" == project.row(name)["state"]
    assert {"T"} == {each.state for each in tree_of(pid)}
    with pytest.raises((OSError, AssertionError, subprocess.SubprocessError)):
        use()
    project.ok("resume", name)
    assert "running" == project.row(name)["state"]
    use()
    assert pid == project.pid(name)
    family = tree_of(pid)
    project.ok("stop", name)
    assert "stopped" == project.row(name)["state"]
    assert not [each for each in family if lives(each.pid)]
    assert is_refused(port)
    project.ok("start", name)
    use()


def end(project: Project, name: str, port: int) -> None:
    """This ends the project, and asks the world whether that is so."""
    family = tree_of(project.pid(name))
    project.ok("down")
    assert not [each for each in family if lives(each.pid)]
    assert is_refused(port)


RESTART = 'restart = { policy = "always", backoff = { initial = "50ms" } }\n'


def test_redis_is_ready_by_notify(project: Project, program: Find) -> None:
    """Redis says READY=1 itself, and answers PING after every crash."""
    server, port = program("redis-server"), free_port()
    words = [server, "--port", port, "--bind", "127.0.0.1", "--supervised", "systemd"]
    words += ["--daemonize", "no", "--save", "", "--dir", project.root]
    command = json.dumps([str(word) for word in words])
    project.write(f'[daemon.redis]\ncommand = {command}\nready = "notify"\n{RESTART}')

    def use() -> None:
        assert b"+PONG\r\n" == talk(port, b"PING\r\n", b"\r\n", 1.0)

    go_through_life(project, "redis", use, port)
    # Redis ignores SIGHUP: refused, and nothing happens to it.
    pid = project.pid("redis")
    refused = project.run("reload", "redis")
    assert 1 == refused.code
    assert "SIGHUP" in refused.err
    assert pid == project.pid("redis")
    use()
    end(project, "redis", port)


def write_nginx(folder: Path, port: int, answer: str) -> Path:
    """This writes a configuration that needs nothing but its folder."""
    path = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    path.write_text(
        f"{user}daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\n"
        f"error_log stderr;\nevents {{ worker_connections 64; }}\n"
        f"http {{\naccess_log {folder}/access.log;\n{temporary}"
        f"server {{ listen 127.0.0.1:{port}; "
        f'location / {{ return 200 "{answer}"; }} }}\n}}\n'
    )
    return path


def test_nginx_reloads_and_reopens(project: Project, program: Find) -> None:
    """Nginx takes a new configuration by SIGHUP, and a new log file by SIGUSR1."""
    server, port = program("nginx"), free_port()
    conf = write_nginx(project.root, port, "one")
    words = [server, "-p", str(project.root), "-c", str(conf), "-e", "stderr"]
    project.write(
        f"[daemon.web]\ncommand = {json.dumps(words)}\n"
        f'ready = "http://127.0.0.1:{port}/"\nstop = {{ signal = "QUIT" }}\n{RESTART}'
    )

    def fetch() -> str:
        url = f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(url, timeout=1.0) as reply:
            text: bytes = reply.read()
            return text.decode()

    def use() -> None:
        assert fetch() in ("one", "two")

    go_through_life(project, "web", use, port)
    pid = project.pid("web")
    write_nginx(project.root, port, "two")
    project.ok("reload", "web")
    until(lambda: fetch() == "two", "the new configuration answers")
    log = project.root / "access.log"
    log.rename(project.root / "access.log.old")
    project.ok("signal", "USR1", "web")
    until(log.exists, "nginx opened a new log")
    fetch()
    until(lambda: "GET /" in log.read_text(), "nginx writes to it")
    assert pid == project.pid("web")
    end(project, "web", port)


def test_memcached_keeps_what_it_was_told(project: Project, program: Find) -> None:
    """Memcached is ready by its port, stores and gives back, after every crash."""
    server, port = program("memcached"), free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    words = [server, "-l", "127.0.0.1", "-p", str(port), *user]
    project.write(
        f"[daemon.cache]\ncommand = {json.dumps(words)}\n"
        f'ready = "tcp://127.0.0.1:{port}"\n{RESTART}'
    )

    def use() -> None:
        stored = talk(port, b"set key 0 0 5\r\nvalue\r\n", b"\r\n", 1.0)
        assert b"STORED\r\n" == stored
        found = talk(port, b"get key\r\n", b"END\r\n", 1.0)
        assert b"VALUE key 0 5\r\nvalue\r\nEND\r\n" == found

    go_through_life(project, "cache", use, port)
    end(project, "cache", port)


def test_postgres_as_its_own_user(
    project: Project, program: Find, root_only: None
) -> None:
    """Postgres runs as its user, recovers after every crash, and stops fast on SIGINT."""
    port = free_port()
    data = project.root / "data"
    data.mkdir(mode=0o700)
    switch = [program("setpriv"), "--reuid=postgres", "--regid=postgres"]
    chown = subprocess.run(["chown", "postgres:postgres", str(data)], check=False)
    if chown.returncode:
        pytest.skip("there is no user postgres")
    initdb = [*switch, "--init-groups", program("initdb"), "-D", str(data)]
    subprocess.run(
        [*initdb, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    words = [program("postgres"), "-D", str(data), "-p", str(port), "-c", "fsync=off"]
    words += [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={data}",
    ]
    probe = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    project.write(
        f"[daemon.db]\ncommand = {json.dumps(words)}\n"
        'user = "postgres"\nworking_dir = "data"\n'
        f"ready = {{ exec = {json.dumps(probe)} }}\n"
        f'stop = {{ signal = "SIGINT", timeout = "20s" }}\n{RESTART}'
    )
    query = [program("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]

    def use() -> None:
        found = subprocess.run(
            [*query, "-Atc", "select 1"],
            capture_output=True,
            text=True,
            timeout=2.0,
            check=False,
            cwd="/",
        )
        assert "1\n" == found.stdout, found.stderr

    go_through_life(project, "db", use, port)
    pid = project.pid("db")
    process = read_process(pid)
    assert process is not None
    uid = Path(f"/proc/{pid}").stat().st_uid
    assert data.stat().st_uid == uid
    project.ok("reload", "db")
    until(
        lambda: any("SIGHUP" in line for line in project.log("db")),
        "postgres read its configuration again",
    )
    assert pid == project.pid("db")
    assert any("fast shutdown" in line for line in project.log("db"))
    end(project, "db", port)
