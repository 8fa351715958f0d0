"""What was found, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from duende.platform.types import Capability, Evidence, Platform, PlatformReport

__all__ = ("explain", "explain_capabilities")

_PLATFORMS = {
    Platform.LINUX: "Linux",
    Platform.MACOS: "macOS",
    Platform.CONTAINER: "a container",
    Platform.PEPITA: "a pepita microVM",
    Platform.WOS: "WebAssembly",
    Platform.NATIVE: "another system",
}

_SIGNS = {"usable": "+", "unusable": "!", "absent": "-"}


def explain(report: PlatformReport) -> str:
    """This says where a program runs, and what that is concluded from, in lines."""
    return "\n".join(_lines(report))


def explain_capabilities(found: Mapping[str, Capability]) -> str:
    """This lists what works (+), what is there and does not (!), what isn't there (-)."""
    width = max((len(name) for name in found), default=0)
    lines = []
    for name, each in found.items():
        details = ", ".join(f"{key} {value}" for key, value in each.details.items())
        text = f"{each.reason} ({details})" if details else each.reason
        lines.append(f"{_SIGNS[each.state]} {name:{width}}  {_plain(text)}")
        if each.mend:
            lines.append(f"{'':{width + 2}}  to have it: {_plain(each.mend)}")
    return "\n".join(lines)


def _lines(report: PlatformReport) -> Iterator[str]:
    sure = f"{report.confidence:.0%}"
    if report.overridden_by:
        yield f"platform: {report.platform.value}, as {report.overridden_by} says"
    else:
        what = _PLATFORMS[report.platform]
        yield f"platform: {report.platform.value} ({what}, {sure} sure)"
    yield f"container: {report.container or 'no'}"
    yield f"virtual machine: {report.virtual_machine or 'none seen'}"
    yield f"Kubernetes pod: {_answer(report.pod)}"
    yield f"chroot: {_answer(report.chroot)}"
    yield f"user namespace of its own: {_answer(report.user_namespace)}"
    yield f"pid namespace of its own: {_answer(report.pid_namespace)}"
    yield f"control groups: {_cgroups(report.cgroup_version)}"
    if report.evidence:
        yield "evidence:"
        yield from _evidence(report.evidence)
    if report.contradictions:
        yield "not believed:"
        yield from (f"  {_plain(each)}" for each in report.contradictions)


def _evidence(evidence: Iterable[Evidence]) -> Iterator[str]:
    for each in evidence:
        yield (
            f"  {each.weight:.2f}  {each.question} {each.answer}: "
            f"{each.source}: {_plain(each.found)}"
        )


def _answer(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "can't be seen"}[value]


def _cgroups(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _plain(text: str) -> str:
    """This shows what a terminal would obey; other programs wrote parts of it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )
