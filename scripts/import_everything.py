"""Import every module of one package; what an extra brings may be missing.

Run with `python -I` in an environment that holds the package's runtime dependencies
alone. A module may fail to import only for want of a library that an extra declares,
and only where such modules live.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys

# Folder of the modules that need an extra -> the import names it brings.
EXTRAS = {
    "duende.core.cli": {"click"},
    "duende.core.control": {"h11"},
}


def may_miss(module: str, missing: str) -> bool:
    """This says whether the module may do without that library."""
    return any(
        (module == place or module.startswith(place + ".")) and missing in names
        for place, names in EXTRAS.items()
    )


def main(package: str) -> int:
    """This imports everything and returns an exit code."""
    root = importlib.import_module(package)
    names = [package] + [
        module.name for module in pkgutil.walk_packages(root.__path__, package + ".")
    ]
    bad = 0
    skipped = []
    for name in names:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if may_miss(name, missing):
                skipped.append(f"{name} (needs {missing})")
                continue
            print(f"{name}: {error}", file=sys.stderr)
            bad += 1
    print(f"{package}: {len(names)} modules, {bad} broken")
    for line in skipped:
        print(f"  without its extra: {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
