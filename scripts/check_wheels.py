"""Check that every wheel holds its own part of the namespace, whole, and no more.

An `__init__.py` in `duende/` installs without complaint and hides the other five.
"""

from __future__ import annotations

import pathlib
import sys
import zipfile


def problems(path: pathlib.Path) -> list[str]:
    """This lists what is wrong with one wheel."""
    distribution = path.name.partition("-")[0]
    portion = "duende/" + distribution.removeprefix("duende_") + "/"
    with zipfile.ZipFile(path) as wheel:
        everything = wheel.namelist()
    shipped = [name for name in everything if ".dist-info/" not in name]
    found = [
        f"{name} does not belong in it"
        for name in shipped
        if not name.startswith(portion) or "__pycache__" in name
    ]
    found += [
        f"{portion}{name} is missing"
        for name in ("__init__.py", "py.typed")
        if portion + name not in shipped
    ]
    if not path.name.endswith("-py3-none-any.whl"):
        found.append("it is not pure Python")
    if not any(name.endswith("licenses/LICENSE") for name in everything):
        found.append("the licence is missing")
    return found


def main(arguments: list[str]) -> int:
    """This checks each wheel and returns an exit code."""
    bad = 0
    for argument in arguments:
        path = pathlib.Path(argument)
        found = problems(path)
        bad += len(found)
        print(f"{path.name}: {'; '.join(found) or 'ok'}")
    if not arguments:
        print("no wheel to check", file=sys.stderr)
        return 2
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
