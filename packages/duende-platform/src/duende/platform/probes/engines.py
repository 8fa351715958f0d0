"""Container engines: docker, podman, containerd."""

from __future__ import annotations

import errno
import os
import shutil

from duende.platform.probes.answers import (
    absent,
    ask_program,
    ask_socket,
    last_line,
    unusable,
    usable,
)
from duende.platform.types import Capability
from duende.platform.world import World

__all__ = ("probe_containerd", "probe_docker", "probe_podman")


def probe_docker(world: World) -> Capability:
    """This asks the Docker Engine API for its version."""
    start = "start it: systemctl start docker; for another socket set DOCKER_HOST=unix://PATH"
    host = world.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix:///"):
        return unusable(
            "docker",
            f"DOCKER_HOST is {host}, which is no path of a Unix socket",
            "set DOCKER_HOST=unix:///var/run/docker.sock",
        )
    places = [host[len("unix://") :]] if host else []
    places += [] if host else ["/var/run/docker.sock", *_of_user(world, "docker.sock")]
    return _engine("docker", places, "apt-get install docker.io", start)


def probe_podman(world: World) -> Capability:
    """This asks podman's API service for its version."""
    start = (
        "systemctl --user enable --now podman.socket; as root without --user; without "
        "systemd: podman system service -t 0 unix:///run/podman/podman.sock"
    )
    host = world.environ.get("CONTAINER_HOST", "")
    of_root = ["/run/podman/podman.sock"] if os.geteuid() == 0 else []
    places = [host[len("unix://") :]] if host.startswith("unix://") else of_root
    places += [] if host else _of_user(world, "podman/podman.sock")
    return _engine("podman", places, "apt-get install podman", start)


def probe_containerd(world: World) -> Capability:
    """This has ctr ask containerd for its version."""
    place = world.environ.get("CONTAINERD_ADDRESS") or "/run/containerd/containerd.sock"
    program = shutil.which("ctr")
    if not os.path.exists(place):
        if program is None:
            return absent(
                "containerd",
                f"no ctr, and no {place}",
                "apt-get install containerd",
            )
        return unusable(
            "containerd",
            f"ctr is installed, and nothing serves {place}",
            "start it: systemctl start containerd; for another socket set "
            "CONTAINERD_ADDRESS",
            program=program,
        )
    if program is None:
        return unusable(
            "containerd", f"{place} is there, and no ctr", "install ctr", socket=place
        )
    code, text = ask_program("ctr", "--address", place, "--timeout", "2s", "version")
    if code != 0 or "Server:" not in text:
        return unusable(
            "containerd",
            f"ctr version: {last_line(text)}",
            "run as root, or start it: systemctl start containerd",
            socket=place,
        )
    server = text.partition("Server:")[2]
    version = next(
        (
            line.split(":", 1)[1].strip()
            for line in server.splitlines()
            if "Version:" in line
        ),
        "unknown",
    )
    return usable(
        "containerd", f"ctr version at {place}", version=version, socket=place
    )


def _engine(name: str, places: list[str], install: str, start: str) -> Capability:
    refusals = []
    for place in places:
        try:
            answer = ask_socket(place, "/version")
        except FileNotFoundError:
            continue
        except OSError as error:
            refusals.append((place, error))
            continue
        server = f"{answer.get('Components')} {answer.get('Platform')}"
        is_podman = "Podman Engine" in server
        if is_podman != (name == "podman"):
            other = "podman" if is_podman else "another engine"
            return unusable(
                name, f"{other} serves {place}", "use that engine", socket=place
            )
        return usable(
            name,
            f"GET /version at {place}",
            version=str(answer.get("Version")),
            api=str(answer.get("ApiVersion")),
            socket=place,
        )
    for place, refusal in refusals:
        if refusal.errno in (errno.EACCES, errno.EPERM):
            return unusable(
                name,
                f"{place} may not be opened by user {os.geteuid()}",
                f"add the user to the group {name} (that is root's power), or use the "
                "engine's rootless mode",
                socket=place,
            )
        return unusable(
            name, f"{place}: {refusal.strerror or refusal}", start, socket=place
        )
    program = shutil.which(name)
    looked = " or ".join(places) or "no socket"
    if program is None:
        return absent(name, f"no program {name}, nothing at {looked}", install)
    return unusable(
        name,
        f"{program} is installed, and nothing serves {looked}",
        start,
        program=program,
    )


def _of_user(world: World, name: str) -> list[str]:
    folder = world.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return [f"{folder}/{name}"]
