"""Check that each package accepts its siblings as they are in this checkout.

A range such as `duende-mlock>=0.1,<0.2` must have a floor and a cap and hold the
version beside it: an editable install would satisfy itself with any version at all.
"""

from __future__ import annotations

import pathlib
import sys
import tomllib

from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parent.parent


def main() -> int:
    """This checks every range and returns an exit code."""
    projects = {}
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        projects[path.parent.name] = tomllib.loads(path.read_text())["project"]
    bad = 0
    checked = 0
    for name, project in projects.items():
        texts = list(project.get("dependencies", []))
        for group in project.get("optional-dependencies", {}).values():
            texts += group
        for text in texts:
            requirement = Requirement(text)
            sibling = projects.get(requirement.name)
            if sibling is None or requirement.name == name:
                continue
            checked += 1
            bounds = {specifier.operator for specifier in requirement.specifier}
            if not {">=", "<"} <= bounds:
                print(f"{name}: {text!r} needs a floor and a cap", file=sys.stderr)
                bad += 1
            if not requirement.specifier.contains(sibling["version"]):
                found = f"{requirement.name} here is {sibling['version']}"
                print(f"{name}: {text!r}, but {found}", file=sys.stderr)
                bad += 1
    print(f"{checked} ranges between siblings, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
