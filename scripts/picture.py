"""Make docs/demo.svg, the README's picture, from a real run of the demo.

    .venv/bin/python scripts/picture.py [docs/demo.svg]

Nothing in it is typed by hand: it is what scripts/demo.py printed, line by line.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = 108
CHARACTER = 7.2  # pixels: 12 px of a monospaced face
LINE = 17
MARGIN = 18
STATES = re.compile(r"\b(running|ready|yes|backoff|SIGKILL|starting|failed)\b")
COLOURS = {
    "running": "#7ee787",
    "ready": "#7ee787",
    "yes": "#7ee787",
    "starting": "#e3b341",
    "backoff": "#e3b341",
    "failed": "#ff7b72",
    "SIGKILL": "#ff7b72",
}


def lines_of(transcript: str) -> list[str]:
    """This keeps the part of a transcript that a newcomer wants to see, cut to fit."""
    commands = re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]
    wanted = ("duende up", "duende ps", "curl", "kill", "duende down")
    kept = ["$ " + command for command in commands if command.startswith(wanted)]
    lines = "".join(kept).strip().splitlines()
    return [
        line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…" for line in lines
    ]


def paint(line: str) -> str:
    """This turns a line into the inside of an SVG text element."""
    if line.startswith("$ "):
        return (
            f'<tspan fill="#79c0ff">$</tspan>'
            f'<tspan fill="#ffffff" font-weight="bold"> {escape(line[2:])}</tspan>'
        )
    parts = STATES.split(line)
    return "".join(
        f'<tspan fill="{COLOURS[part]}">{part}</tspan>'
        if part in COLOURS
        else escape(part)
        for part in parts
    )


def render(lines: list[str]) -> str:
    """This draws the lines as a terminal."""
    width = round(max(map(len, lines)) * CHARACTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    texts = "\n".join(
        f'<text x="{MARGIN}" y="{MARGIN + LINE * number + 12}">{paint(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="duende up, ps, a crash, '
        'a restart, and down">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        '<g fill="#c9d1d9" xml:space="preserve" style="white-space: pre" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
        f'DejaVu Sans Mono, monospace" font-size="12">\n{texts}\n</g>\n</svg>\n'
    )


def main(arguments: list[str]) -> int:
    """This runs the demo and writes the picture."""
    path = pathlib.Path(arguments[0] if arguments else ROOT / "docs" / "demo.svg")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        print(done.stdout, "The demo failed, so there is no picture.", file=sys.stderr)
        return 1
    path.write_text(render(lines_of(done.stdout)))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
