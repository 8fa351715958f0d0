"""Where this program runs. Evidence is weighed; no single file decides."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable

from duende.platform.containers import (
    container_evidence,
    namespace_evidence,
    pod_evidence,
)
from duende.platform.machines import machine_evidence, pepita_evidence
from duende.platform.namespaces import is_first, maps_users
from duende.platform.types import Evidence, Platform, PlatformReport
from duende.platform.world import World

__all__ = ("VARIABLE", "detect", "detect_platform", "judge")

VARIABLE = "DUENDE_PLATFORM"
"""The environment variable that overrides what is detected."""

ENOUGH = 0.5
"""From so much confidence on an answer is given."""


def detect_platform() -> Platform:
    """This says which kind of platform the program runs on.

    DUENDE_PLATFORM overrides it, by one of the values of `Platform`.

    Raises:
        ValueError: The variable is set to something else.
    """
    return detect().platform


def detect(world: World | None = None) -> PlatformReport:
    """This looks at the machine, and says where the program runs and why it thinks so.

    Args:
        world: Another machine's files than this one's.

    Raises:
        ValueError: DUENDE_PLATFORM is set, and is no platform.
    """
    here = World() if world is None else world
    override = _override(here)
    if here.is_here and sys.platform != "linux":
        platform = _elsewhere(sys.platform)
        found = Evidence("platform", platform.value, 1.0, "sys.platform", sys.platform)
        return PlatformReport(
            platform=override or platform,
            confidence=1.0,
            evidence=(found,),
            overridden_by=VARIABLE if override else None,
        )
    evidence = [
        *container_evidence(here),
        *namespace_evidence(here),
        *machine_evidence(here),
        *pod_evidence(here),
        *pepita_evidence(here),
    ]
    first_pid = is_first(here, "pid")
    return judge(
        evidence,
        chroot=_is_chroot(here),
        user_namespace=maps_users(here),
        pid_namespace=None if first_pid is None else not first_pid,
        cgroup_version=_cgroup_version(here),
        override=override,
    )


def judge(
    evidence: Iterable[Evidence],
    *,
    chroot: bool | None = None,
    user_namespace: bool | None = None,
    pid_namespace: bool | None = None,
    cgroup_version: int | None = None,
    override: Platform | None = None,
) -> PlatformReport:
    """This weighs evidence; in which order it was found doesn't matter."""
    found = sorted(set(evidence), key=lambda each: (each.question, -each.weight, each))
    of = {
        question: [each for each in found if each.question == question]
        for question in ("container", "machine", "pod", "platform")
    }
    in_container = _container_belief(of["container"])
    pod = _belief(of["pod"]) >= ENOUGH
    contradictions = []
    container = None
    if in_container >= ENOUGH:
        container = _kind(of["container"])
        if pod and container in ("unknown", "containerd", "docker", "podman"):
            container = "kubernetes"
        refuted = [each for each in of["container"] if each.answer == "none"]
    else:
        refuted = [each for each in of["container"] if each.answer != "none"]
    for each in refuted:
        verdict = "a container" if container else "no container"
        contradictions.append(
            f"{each.source} ({each.found}) speaks for {each.answer}, "
            f"and the rest for {verdict}"
        )
    machine = None
    if _belief([each for each in of["machine"] if each.answer != "none"]) >= ENOUGH:
        machine = _kind(of["machine"])
        if any(each.answer == "none" and each.weight >= 0.9 for each in of["machine"]):
            machine = None
        if machine == "wsl1":
            machine = None
    pepita = _belief(of["platform"])
    if pepita >= 0.8 and container is None:
        platform, confidence = Platform.PEPITA, pepita
    elif container is not None:
        platform, confidence = Platform.CONTAINER, in_container
    else:
        platform, confidence = Platform.LINUX, 1 - in_container
        contradictions += [
            f"{each.source} ({each.found}) alone does not make a pepita"
            for each in of["platform"]
        ]
    return PlatformReport(
        platform=override or platform,
        confidence=round(min(max(confidence, 0.0), 1.0), 3),
        container=container,
        virtual_machine=machine,
        pod=pod,
        chroot=chroot,
        user_namespace=user_namespace,
        pid_namespace=pid_namespace,
        cgroup_version=cgroup_version,
        evidence=tuple(found),
        contradictions=tuple(contradictions),
        overridden_by=VARIABLE if override else None,
    )


def _belief(evidence: list[Evidence]) -> float:
    """This combines independent evidence for one answer (noisy or)."""
    return 1 - math.prod(1 - each.weight for each in evidence)


def _container_belief(evidence: list[Evidence]) -> float:
    """This sets what speaks for a container against what speaks for none.

    Weights become odds, which multiply when evidence is independent (Bayes); two
    sources that name one thing twice count once.
    """
    strongest: dict[tuple[str, str], float] = {}
    for each in evidence:
        key = (each.answer, each.source)
        strongest[key] = max(strongest.get(key, 0.0), each.weight)
    odds = 0.0
    for (answer, _), weight in strongest.items():
        bounded = min(weight, 0.99)
        change = math.log((0.5 + bounded / 2) / (0.5 - bounded / 2))
        odds += -change if answer == "none" else change
    # Nothing found: a container is unlikely, as each leaves some trace.
    odds += math.log(0.3)
    return 1 / (1 + math.exp(-odds))


def _kind(evidence: list[Evidence]) -> str:
    """This picks the kind that most speaks for, a known one before "unknown"."""
    sums: dict[str, float] = {}
    for each in evidence:
        if each.answer != "none":
            doubt = 1 - sums.get(each.answer, 0.0)
            sums[each.answer] = 1 - doubt * (1 - each.weight)
    known = {kind: value for kind, value in sums.items() if kind != "unknown"}
    return max(sorted(known), key=lambda kind: known[kind]) if known else "unknown"


def _override(world: World) -> Platform | None:
    text = world.environ.get(VARIABLE)
    if not text:
        return None
    try:
        return Platform(text.strip().lower())
    except ValueError:
        known = ", ".join(each.value for each in Platform)
        raise ValueError(f"{VARIABLE} is {text!r}; it can be {known}") from None


def _elsewhere(name: str) -> Platform:
    if name == "darwin":
        return Platform.MACOS
    if name in ("wasi", "emscripten"):
        return Platform.WOS
    return Platform.NATIVE


def _is_chroot(world: World) -> bool | None:
    """This compares our root with process 1's; not all may look."""
    if not world.is_here:
        return None
    try:
        ours, its = os.stat("/"), os.stat("/proc/1/root/.")
    except OSError:
        return None
    if world.namespace("mnt") != world.namespace("mnt", "1"):
        return False  # another mount namespace is a container's way, not chroot's
    return (ours.st_dev, ours.st_ino) != (its.st_dev, its.st_ino)


def _cgroup_version(world: World) -> int | None:
    kinds = {last.split(" ", 1)[0] for _, _, last in world.mounts()}
    versions = {"cgroup": 1, "cgroup2": 2}
    return min((versions[kind] for kind in kinds & versions.keys()), default=None)
