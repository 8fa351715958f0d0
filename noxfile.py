"""What is checked, and how: a session a question, most of them for each package.

`nox` alone asks what a contributor wants answered before a push. `nox -t core` asks
everything about duende-core, `nox -s "tests(core)"` one thing. The environments hold
only what a package declares: in one big environment a missing dependency is invisible.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests", "typing"]
# Without this uv takes any sibling from the checkout, whatever version was asked for.
os.environ["UV_NO_SOURCES"] = "1"

ROOT = pathlib.Path(__file__).parent
DIST = ROOT / "dist"
PROJECTS = {
    path.parent.name: nox.project.load_toml(path)
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
PACKAGES = [
    nox.param(
        name,
        id=name.removeprefix("duende-"),
        tags=[name.removeprefix("duende-")],
    )
    for name in PROJECTS
]
each_package = nox.parametrize("package", PACKAGES)


def extras_of(package: str, extra: str) -> list[str]:
    """This lists the requirements of one extra of a local package."""
    optional = PROJECTS[package]["project"].get("optional-dependencies", {})
    return list(optional.get(extra, []))


def closure(requirements: list[str], found: dict[str, set[str]]) -> dict[str, set[str]]:
    """This collects the local packages that are reached, with the extras asked for."""
    for text in requirements:
        requirement = Requirement(text)
        name = requirement.name
        if name not in PROJECTS:
            continue
        new = name not in found
        extras = found.setdefault(name, set())
        fresh = requirement.extras - extras
        extras |= fresh
        if new:
            closure(PROJECTS[name]["project"].get("dependencies", []), found)
        for extra in fresh:
            closure(extras_of(name, extra), found)
    return found


def test_group(package: str) -> list[str]:
    """This is what a package's tests need beside the package."""
    return nox.project.dependency_groups(PROJECTS[package], "test")


def install(
    session: nox.Session,
    requirements: list[str],
    *extra: str,
    wheels: bool = False,
) -> None:
    """This puts in the requirements, local ones from the checkout or as wheels.

    No duende-* may come from an index: a sibling that is not declared would be
    fetched silently, and some other version of it would be tested.
    """
    local = closure(requirements, {})
    third = [text for text in requirements if Requirement(text).name not in PROJECTS]
    arguments: list[str] = []
    for name, extras in local.items():
        suffix = f"[{','.join(sorted(extras))}]" if extras else ""
        if wheels:
            [path] = DIST.glob(f"{name.replace('-', '_')}-*.whl")
            arguments.append(f"{path}{suffix}")
        else:
            arguments += ["-e", f"packages/{name}{suffix}"]
    session.install(*arguments, *third, *extra)
    listing = session.run(
        "python", "-I", "scripts/installed.py", silent=True, log=False
    )
    for name, origin in json.loads(str(listing)).items():
        if origin is None or name not in local:
            session.error(f"{name} came from an index, not from this checkout")


@nox.session
@each_package
def tests(session: nox.Session, package: str) -> None:
    """Run a package's tests with nothing installed but what it declares."""
    install(session, [package, *test_group(package)])
    report = str(ROOT / f".coverage.{package}")
    session.run(
        "coverage",
        "run",
        "-m",
        "pytest",
        f"packages/{package}/tests",
        *session.posargs,
        env={"COVERAGE_FILE": report},
    )


def sources_for(package: str, platform: str) -> list[str]:
    """This lists the modules that mean to run on a platform.

    A package names those that don't in [tool.duende.typing], so that what works
    where is written down once, and a listed module that was renamed is noticed.
    """
    source = ROOT / "packages" / package / "src"
    table = PROJECTS[package].get("tool", {}).get("duende", {}).get("typing", {})
    left_out = {source / path for path in table.get(f"not-{platform}", [])}
    for path in left_out:
        if not path.exists():
            raise FileNotFoundError(f"{package}: tool.duende.typing lists no {path}")
    found = [path for path in source.rglob("*.py") if path not in left_out]
    return sorted(str(path.relative_to(ROOT)) for path in found)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Report on what the last runs of the tests covered."""
    session.install("coverage>=7.6")
    session.run("coverage", "combine", "--keep", "--data-file=.coverage")
    session.run("coverage", "report", *session.posargs)


@nox.session
@each_package
def typing(session: nox.Session, package: str) -> None:
    """Check a package's types for every platform, and that its users get them all."""
    tools = (
        "mypy>=1.15",
        "pyright[nodejs]>=1.1.400",
        "types-psutil",
        "types-jsonschema",
    )
    install(session, [package, *test_group(package)], *tools)
    base = f"packages/{package}"
    paths = {"MYPYPATH": os.pathsep.join([f"{base}/src", base])}
    session.run("mypy", f"{base}/src", f"{base}/tests", env=paths)
    for platform in ("darwin", "win32"):
        # Silent: what is not named here can't run there, and its errors don't count.
        sources = sources_for(package, platform)
        options = ("--platform", platform, "--follow-imports=silent")
        session.run("mypy", *options, *sources, env=paths)
    session.run("python", "scripts/check_types.py", package.replace("-", "."))


@nox.session(default=False)
@each_package
def imports(session: nox.Session, package: str) -> None:
    """Import every module with the runtime dependencies alone."""
    install(session, [package])
    session.run(
        "python", "-I", "scripts/import_everything.py", package.replace("-", ".")
    )


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build every sdist, and every wheel from its sdist, into dist/."""
    session.install("build>=1.2", "hatchling>=1.27")
    shutil.rmtree(DIST, ignore_errors=True)
    for name in PROJECTS:
        # Our own hatchling instead of a fresh isolated one for each of twelve builds.
        session.run(
            "python",
            "-m",
            "build",
            "--no-isolation",
            "--outdir",
            str(DIST),
            f"packages/{name}",
            silent=True,
        )
    wheels = [str(path) for path in sorted(DIST.glob("*.whl"))]
    session.run("python", "scripts/check_wheels.py", *wheels)


@nox.session(default=False, requires=["build"])
@each_package
def wheel(session: nox.Session, package: str) -> None:
    """Run a package's tests against the built wheels."""
    install(session, [package, *test_group(package)], wheels=True)
    session.run(
        "python",
        "-I",
        "-c",
        "import duende; [path] = duende.__path__; assert 'site-packages' in path, path",
    )
    session.run("pytest", f"packages/{package}/tests", *session.posargs)


@nox.session(default=False)
@each_package
def minimums(session: nox.Session, package: str) -> None:
    """Run a package's tests with the oldest dependencies it declares (needs uv)."""
    if session.venv_backend != "uv":
        session.skip("only uv can resolve to the lowest versions; pip install uv")
    lowest = "--resolution=lowest-direct"
    install(session, [package, *test_group(package)], lowest)
    session.run("pytest", f"packages/{package}/tests", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, import layers, sibling ranges and spelling."""
    everything = [
        f"{name}[all]" if name == "duende-core" else name for name in PROJECTS
    ]
    tools = ("ruff>=0.12", "import-linter>=2.3", "codespell>=2.4")
    install(session, everything, *tools)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("python", "scripts/check_siblings.py")
    session.run("python", "scripts/detection_table.py", "--check")
    session.run("codespell", ".")


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """Run examples/quickstart: up, ps, a crash, back again, down."""
    install(session, ["duende-core[cli]"])
    session.run("python", "scripts/demo.py", *session.posargs)


@nox.session(default=False, requires=["build"])
def e2e(session: nox.Session) -> None:
    """Run the built wheels with programs that nobody here wrote."""
    if not any((ROOT / "e2e").glob("test_*.py")):
        session.skip("there is no test in e2e/")
    needs = ["duende-core[all]", "duende-test", *test_group("duende-core")]
    install(session, needs, wheels=True)
    session.run("pytest", "e2e", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the whole system beside its peers; JSON and a table."""
    if not (ROOT / "benchmarks" / "__main__.py").exists():
        session.skip("there is nothing in benchmarks/")
    install(session, ["duende-core[cli]"], "supervisor>=4.2")
    session.run("python", "benchmarks", *session.posargs)
