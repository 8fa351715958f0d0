"""Service managers: systemd of the system and of a user, and launchd."""

from __future__ import annotations

import os
import pwd
import shutil
import sys

from duende.platform.probes.answers import (
    absent,
    ask_program,
    last_line,
    unusable,
    usable,
)
from duende.platform.types import Capability
from duende.platform.world import World

__all__ = ("probe_launchd", "probe_systemd_system", "probe_systemd_user")


def probe_systemd_system(world: World) -> Capability:
    """This asks the system's manager for its version (sd_booted(3), systemctl(1))."""
    name = "systemd-system"
    if not world.exists("/run/systemd/system"):
        if shutil.which("systemctl") is None:
            return absent(name, "no /run/systemd/system, no systemctl")
        return absent(
            name,
            "systemd is installed, and this system was not booted with it (no "
            "/run/systemd/system)",
            "boot with systemd as process 1",
        )
    code, text = ask_program("systemctl", "show", "--property=Version,SystemState")
    if code != 0 or "Version=" not in text:
        return unusable(
            name,
            f"systemctl show: {last_line(text)}",
            "is D-Bus there? apt-get install dbus",
        )
    details = _properties(text)
    if os.geteuid() != 0:
        return unusable(
            name,
            f"it answers, and user {os.geteuid()} may not start units of the system",
            "use systemd-user, or run as root",
            **details,
        )
    return usable(name, "systemctl show answers, and this is root", **details)


def probe_systemd_user(world: World) -> Capability:
    """This asks the user's manager for its version; units there need no root."""
    name = "systemd-user"
    if not world.exists("/run/systemd/system"):
        return absent(name, "this system was not booted with systemd")
    folder = world.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    login = f"loginctl enable-linger {_user()}"
    if not os.path.exists(f"{folder}/systemd/private"):
        return unusable(
            name, f"no manager of this user runs (no {folder}/systemd)", login
        )
    code, text = ask_program(
        "systemctl",
        "--user",
        "show",
        "--property=Version,SystemState",
        XDG_RUNTIME_DIR=folder,
    )
    if code != 0 or "Version=" not in text:
        return unusable(name, f"systemctl --user show: {last_line(text)}", login)
    lingers = world.exists(f"/var/lib/systemd/linger/{_user()}")
    details = {**_properties(text), "linger": "yes" if lingers else "no"}
    reason = "systemctl --user show answers"
    if not lingers:
        reason += f"; without linger units end with the last session ({login})"
    return usable(name, reason, **details)


def probe_launchd(world: World) -> Capability:
    """This asks launchd which manager this process has (launchctl(1))."""
    if sys.platform != "darwin":
        return absent("launchd", f"it is macOS's, and this is {sys.platform}")
    code, text = ask_program("launchctl", "managername")
    if code != 0:
        return unusable("launchd", f"launchctl managername: {last_line(text)}")
    return usable("launchd", "launchctl managername answers", domain=text)


def _properties(text: str) -> dict[str, str]:
    names = {"Version": "version", "SystemState": "state"}
    pairs = (line.partition("=") for line in text.splitlines())
    return {names[key]: value for key, _, value in pairs if key in names}


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
