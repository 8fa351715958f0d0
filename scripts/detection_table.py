"""Write the table of docs/platform-detection.md that says what each detector answers.

    python scripts/detection_table.py [--check]

The places are the library of the tests (packages/duende-platform/tests/worlds.py). The
other detectors are restated in a line each: they are as short as that.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

from duende.platform import World, detect

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "platform-detection.md"
LIBRARY = ROOT / "packages" / "duende-platform" / "tests" / "worlds.py"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = (
    "| place | container | duende | `/.dockerenv` | `docker` in cgroup | `container=` |\n"
    "|---|---|---|---|---|---|\n"
)


def places() -> dict[str, Any]:
    """This loads the library of places."""
    spec = importlib.util.spec_from_file_location("worlds", LIBRARY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worlds"] = module
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.PLACES
    return found


def others(world: World) -> list[bool]:
    """This is what three usual checks say: is it a container?"""
    cgroups = [world.read(f"/proc/{pid}/cgroup") or "" for pid in ("1", "self")]
    first = world.read_bytes("/proc/1/environ") or b""
    return [
        world.exists("/.dockerenv"),
        any("docker" in text for text in cgroups),
        b"container=" in first or "container" in world.environ,
    ]


def cell(said: bool, true: bool) -> str:
    """This is an answer, in bold where it is wrong."""
    text = "yes" if said else "no"
    return text if said is true else f"**{text}**"


def render() -> str:
    """This makes the table."""
    rows = []
    wrong = [0, 0, 0, 0]
    for name, place in places().items():
        with tempfile.TemporaryDirectory() as folder:
            world = place.build(Path(folder))
            report = detect(world)
            answers = [report.container is not None, *others(world)]
        true = place.container is not None
        wrong = [n + (said is not true) for n, said in zip(wrong, answers, strict=True)]
        ours = (
            f"{cell(answers[0], true)}, {report.platform.value} {report.confidence:.0%}"
        )
        cells = [cell(said, true) for said in answers[1:]]
        kind = place.container or "no"
        rows.append(f"| {name} | {kind} | {ours} | {' | '.join(cells)} |\n")
    total = f"| **wrong, of {len(rows)}** | | {' | '.join(str(n) for n in wrong)} |\n"
    return HEAD + "".join(rows) + total


def main(arguments: list[str]) -> int:
    """This writes the page, or says that it is not up to date."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = before + BEGIN + render() + END + after
    if arguments == ["--check"]:
        if new != text:
            print(
                f"{PAGE.name}: run python scripts/detection_table.py", file=sys.stderr
            )
        return int(new != text)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
