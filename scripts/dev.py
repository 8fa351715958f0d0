"""Set up a checkout, and run something in it: the two commands of the README.

    python3 scripts/dev.py demo     set up, then run the demo
    python3 scripts/dev.py test     set up, then run every package's tests
    python3 scripts/dev.py setup    only set up
    python3 scripts/dev.py nox ...  set up, then run nox with these arguments

It needs Python 3.11 or later and nothing else. It makes `.venv` beside the README,
puts in the six packages (editable) and the tools that pyproject.toml lists under
`dev`, and starts nox, which builds a clean environment a package.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "duende-dev.stamp"
SESSIONS = {"demo": ["-s", "demo"], "test": ["-s", "tests"]}


def fail(text: str) -> None:
    """This ends the script with one clear message."""
    print(f"dev.py: {text}", file=sys.stderr)
    raise SystemExit(1)


def check_python() -> None:
    """This refuses a Python that can't do it, and says what to do."""
    if sys.version_info < (3, 11):  # noqa: UP036  # the reason why we ask
        version = ".".join(map(str, sys.version_info[:3]))
        fail(f"Python 3.11 or later is needed; {sys.executable} is {version}")
    try:
        import ensurepip  # noqa: F401  # Debian ships venv without it
        import venv  # noqa: F401
    except ModuleNotFoundError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(
            "this Python can't make virtual environments (Debian and Ubuntu put that "
            "into a package of its own)\n"
            f"    sudo apt-get install python3-venv    # or python{version}-venv"
        )


def run(*command: str | os.PathLike[str], quiet: bool = False) -> None:
    """This shows a command, runs it at the root, and ends with its exit code."""
    print("+", *(str(part) for part in command), flush=True)
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, cwd=ROOT, stdout=output, check=False)
    if done.returncode:
        raise SystemExit(done.returncode if done.returncode > 0 else 1)


def wanted() -> str:
    """This is what the environment depends on: change it, and it is made anew."""
    digest = hashlib.sha256(sys.version.encode())
    files = [ROOT / "pyproject.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def set_up() -> None:
    """This makes `.venv`, unless it is there and nothing that it depends on changed."""
    import tomllib

    if STAMP.exists() and STAMP.read_text() == wanted():
        return
    run(sys.executable, "-m", "venv", "--clear", VENV)
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = workspace["dependency-groups"]["dev"]
    editable: list[str] = []
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())
        extra = "[all]" if "optional-dependencies" in project["project"] else ""
        editable += ["-e", f"{path.parent.relative_to(ROOT)}{extra}"]
        group = project.get("dependency-groups", {}).get("test", [])
        tools += [text for text in group if not text.startswith("duende-")]
    pip = (BIN / "python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", *editable, *dict.fromkeys(tools))
    STAMP.write_text(wanted())


def main(arguments: list[str]) -> None:
    """This reads the command line."""
    verb, *rest = arguments or ["help"]
    if verb not in {"setup", "nox", *SESSIONS}:
        print(__doc__)
        raise SystemExit(0 if verb in {"help", "-h", "--help"} else 2)
    check_python()
    set_up()
    if verb == "setup":
        print(f"ready: {VENV}")
        return
    chosen = (
        rest if verb == "nox" else [*SESSIONS[verb], *(["--", *rest] if rest else [])]
    )
    run(BIN / "python", "-m", "nox", *chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
