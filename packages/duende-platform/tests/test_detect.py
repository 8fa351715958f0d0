"""Where a program runs: every known false positive, and what must hold for all."""

from __future__ import annotations

import string
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.platform import Evidence, Platform, World, detect, detect_platform, explain
from duende.platform.detect import judge

from .worlds import PLACES

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("name", PLACES)
def test_a_known_place(name: str, tmp_path: Path) -> None:
    """Platform, container, machine and pod are what they are, and it is sure of it."""
    place = PLACES[name]
    report = detect(place.build(tmp_path))
    assert (
        report.platform.value,
        report.container,
        report.virtual_machine,
        report.pod,
    ) == (place.platform, place.container, place.machine, place.pod)
    assert 0.6 < report.confidence <= 1
    assert place.contradicts in " ".join(report.contradictions)


@pytest.mark.parametrize("name", PLACES)
def test_one_missing_trace_changes_no_container_to_a_machine(
    name: str, tmp_path: Path
) -> None:
    """No answer hangs on one file alone, where more than one speaks for it."""
    place = PLACES[name]
    report = detect(place.build(tmp_path))
    for left_out in report.evidence:
        rest = [each for each in report.evidence if each != left_out]
        agreeing = {
            each.source
            for each in rest
            if each.question == "container" and each.answer != "none"
        }
        if report.container is not None and len(agreeing) > 1:
            assert judge(rest).container is not None, left_out


questions = get_args(get_type_hints(Evidence)["question"])
evidence = st.builds(
    Evidence,
    question=st.sampled_from(questions),
    answer=st.sampled_from(["docker", "podman", "none", "unknown", "kvm", "yes"]),
    weight=st.floats(0, 1),
    source=st.sampled_from(["/a", "/b", "/c", "/d"]),
    found=st.text(max_size=5),
)


@given(found=st.lists(evidence, max_size=12), data=st.data())
def test_the_order_does_not_matter(found: list[Evidence], data: st.DataObject) -> None:
    """Nor does what is found twice; and the confidence is a probability."""
    mixed = data.draw(st.permutations(found + found[:2]))
    report = judge(found)
    assert judge(mixed) == report
    assert 0 <= report.confidence <= 1
    assert explain(report)


@given(found=st.lists(evidence, max_size=8), more=evidence)
def test_more_for_a_container_never_speaks_against_one(
    found: list[Evidence], more: Evidence
) -> None:
    """What speaks for it can only strengthen the belief."""
    added = Evidence("container", "docker", more.weight, "/new", more.found)
    if judge(found).container is not None:
        assert judge([*found, added]).container is not None


FILES = [
    "/.dockerenv",
    "/run/.containerenv",
    "/run/systemd/container",
    "/proc/1/environ",
    "/proc/1/cgroup",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/proc/self/uid_map",
    "/proc/cpuinfo",
    "/proc/cmdline",
    "/proc/version",
    "/proc/sys/kernel/osrelease",
    "/sys/class/dmi/id/sys_vendor",
    "/etc/hosts",
]
SCRAPS = st.sampled_from(
    [
        "0::/",
        "docker",
        "/kubepods/",
        " - overlay",
        "1 0 0:1 / /",
        "hypervisor",
        "\n",
        "=",
        "\0",
    ]
)


@given(
    files=st.dictionaries(
        st.sampled_from(FILES),
        st.one_of(
            st.binary(max_size=40), st.lists(SCRAPS).map(lambda x: " ".join(x).encode())
        ),
        max_size=6,
    ),
    environ=st.dictionaries(
        st.sampled_from(["container", "KUBERNETES_SERVICE_HOST"]),
        st.text(string.printable, max_size=10),
    ),
)
def test_whatever_the_files_hold_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    environ: dict[str, str],
) -> None:
    """Nothing raises, and what is said can be printed."""
    folder = tmp_path_factory.mktemp("world")
    for path, data in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    report = detect(World(str(folder), environ))
    assert all(line.isprintable() for line in explain(report).split("\n"))


def test_folders_and_loops_where_files_should_be(tmp_path: Path) -> None:
    """What can't be read counts as not there."""
    (tmp_path / "proc/cpuinfo").mkdir(parents=True)
    (tmp_path / "run").symlink_to("run")
    assert detect(World(str(tmp_path), {})).platform is Platform.LINUX


@pytest.mark.parametrize("value", [each.value for each in Platform])
def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """DUENDE_PLATFORM is what counts; the report says so, and what was found."""
    monkeypatch.setenv("DUENDE_PLATFORM", value.upper())
    assert detect_platform().value == value
    report = detect()
    assert report.overridden_by == "DUENDE_PLATFORM"
    assert report.evidence
    assert f"{value}, as DUENDE_PLATFORM says" in explain(report)


def test_a_variable_with_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that names what it can be."""
    monkeypatch.setenv("DUENDE_PLATFORM", "toaster")
    with pytest.raises(ValueError, match="'toaster'; it can be linux, macos"):
        detect()
    monkeypatch.setenv("DUENDE_PLATFORM", "")
    assert detect().overridden_by is None


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("darwin", "macos"),
        ("win32", "native"),
        ("freebsd14", "native"),
        ("emscripten", "wos"),
        ("wasi", "wos"),
    ],
)
def test_other_systems(
    monkeypatch: pytest.MonkeyPatch, name: str, platform: str
) -> None:
    """Where there is no Linux, the interpreter's own word is enough."""
    monkeypatch.setattr(sys, "platform", name)
    report: Any = detect()
    assert (report.platform.value, report.confidence) == (platform, 1.0)


@linux
@pytest.mark.real
def test_here() -> None:
    """This place gives an answer with evidence, whatever it is."""
    report = detect()
    assert report.platform in (Platform.LINUX, Platform.CONTAINER)
    assert report.evidence
    assert report.cgroup_version in (1, 2, None)
