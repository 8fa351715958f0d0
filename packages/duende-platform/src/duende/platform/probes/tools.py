"""Programs that run daemons."""

from __future__ import annotations

import shutil

from duende.platform.probes.answers import (
    absent,
    ask_program,
    last_line,
    unusable,
    usable,
)
from duende.platform.types import Capability
from duende.platform.world import World

__all__ = ("probe_wasmtime",)


def probe_wasmtime(world: World) -> Capability:
    """This asks wasmtime for its version."""
    program = shutil.which("wasmtime", path=world.environ.get("PATH"))
    if program is None:
        return absent(
            "wasmtime", "no program wasmtime", "install it from the Bytecode Alliance"
        )
    code, text = ask_program(program, "--version")
    if code != 0 or not text.startswith("wasmtime"):
        return unusable("wasmtime", f"wasmtime --version: {last_line(text)}")
    return usable("wasmtime", "wasmtime --version answers", version=last_line(text))
