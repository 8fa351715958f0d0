"""Locked memory stays in RAM when a rival wants it: shown in a guest that swaps."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from .guest import run_in_guest

pytestmark = [pytest.mark.e2e, pytest.mark.uml]

PROOF = Path(__file__).with_name("swap_proof.py")
MIB = 1024 * 1024


def show(*words: str, **environ: str) -> dict[str, dict[str, Any]]:
    """This runs the proof, and reads what it saw."""
    python, proof = shlex.quote(sys.executable), shlex.quote(str(PROOF))
    variables = " ".join(f"{name}={shlex.quote(environ[name])}" for name in environ)
    script = f"""
mkswap /dev/ubda >&2 && swapon /dev/ubda || exit 1
env {variables} {python} {proof} {shlex.join(words)} >"$OUT/seen" || exit 1
echo; echo SEEN; cat "$OUT/seen"
"""
    result = run_in_guest(script, memory="192M", disk_mb=512)
    assert result.code == 0, result.output
    seen: dict[str, dict[str, Any]] = json.loads(result.output.split("\nSEEN\n")[1])
    return seen


def test_only_the_unlocked_daemon_is_swapped_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its VmSwap grows by megabytes; that of the locked ones stays 0, all the time."""
    seen = show()
    with capsys.disabled():
        print(
            "\nrequests over 24 MiB, ms (before → first, median, worst under pressure):"
        )
        for kind, found in seen.items():
            under = found["under_ms"]
            print(
                f"  {kind:9} {found['before_ms']['median']:7.2f} → "
                f"{found['first_ms']:8.2f} {under['median']:8.2f} {under['max']:8.2f}"
                f"   VmSwap {found['pressed']['VmSwap'] / MIB:5.1f} MiB"
            )
    assert seen["unlocked"]["pressed"]["VmSwap"] > 8 * MIB
    assert seen["unlocked"]["pressed"]["VmLck"] == 0
    for kind in ("locked", "onfault"):
        for moment in ("before", "pressed", "after"):
            assert seen[kind][moment]["VmSwap"] == 0, (kind, moment)
            assert seen[kind][moment]["VmLck"] > 24 * MIB, (kind, moment)


def test_the_proof_can_fail() -> None:
    """With locking switched off, the same daemons are swapped out like the other."""
    seen = show("swapped", DUENDE_MLOCK="off")
    for kind in ("locked", "onfault"):
        assert seen[kind]["pressed"]["VmLck"] == 0
        assert seen[kind]["pressed"]["VmSwap"] > 8 * MIB
