"""Check that users of a package get a full type for everything public.

    python scripts/check_types.py duende.core

It asks `pyright --verifytypes`. Public is what `__all__` of the package offers, and all
of the modules where these names live; the other modules are nobody's interface.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys


def homes_of(package: str) -> set[str]:
    """This lists the modules that the public names of a package live in."""
    module = importlib.import_module(package)
    homes = {package}
    for name in module.__all__:
        home = getattr(getattr(module, name), "__module__", package)
        homes.add(home if home.startswith(package) else package)
    return homes


def main(package: str) -> int:
    """This checks one package and returns an exit code."""
    homes = homes_of(package)
    done = subprocess.run(
        ["pyright", "--ignoreexternal", "--outputjson", "--verifytypes", package],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    modules = {module["name"] for module in report["modules"]}
    public = bad = 0
    for symbol in report["symbols"]:
        name = symbol["name"]
        home = name
        while home and home not in modules:
            home = home.rpartition(".")[0]
        if home not in homes or not symbol["isExported"]:
            continue
        public += 1
        if symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]:
            continue
        bad += 1
        if not symbol["diagnostics"]:
            print(f"{name}: something that it refers to has no full type")
        for finding in symbol["diagnostics"]:
            line = finding.get("range", {}).get("start", {}).get("line", 0) + 1
            print(f"{finding['file']}:{line}: {name}: {finding['message']}")
    print(f"{package}: {public} public symbols, {bad} without a full type")
    if not public:
        print(f"{package} has no public symbol: is py.typed there?", file=sys.stderr)
    return 0 if public and not bad else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
