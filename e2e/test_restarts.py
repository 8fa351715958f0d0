"""P8: restarts are bounded, and when the next one comes can be computed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from .project import Project, child, until

pytestmark = [pytest.mark.e2e, pytest.mark.real]

BACKOFF = "{ initial = '0.1s', multiplier = 2.0, max = '0.5s', jitter = %s }"


def starts(project: Project) -> list[float]:
    """These are the times at which the daemon was started, by its own clock."""
    return [float(text) for text in (project.root / "times").read_text().split()]


def plan(project: Project, name: str) -> dict[str, Any]:
    """This is what `duende check` says of a daemon."""
    report = project.ok("check", "-o", "json").json()
    [found] = [each for each in report["plan"] if each["name"] == name]
    result: dict[str, Any] = found
    return result


def test_p8_restarts_follow_the_schedule_and_end(project: Project) -> None:
    """What `check` announces is what happens: these delays, that many, then failed."""
    project.write(
        f"[daemon.a]\ncommand = {child('fail', 'times', 7)}\n"
        f"restart = {{ max_retries = 5, backoff = {BACKOFF % '0.0'} }}\n"
    )
    schedule = plan(project, "a")["backoff"]
    assert [0.1, 0.2, 0.4, 0.5, 0.5] == schedule
    project.run("up", "-d")
    row = project.is_in("a", "failed")
    assert (5, {"code": 7}) == (row["restarts"], row["exit"])
    assert row["next_restart_in"] is None
    times = starts(project)
    assert 6 == len(times)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # Never early; how late depends on the machine, and is bounded generously.
    assert all(gap >= delay for gap, delay in zip(gaps, schedule, strict=True)), gaps
    assert all(gap <= delay + 1.5 for gap, delay in zip(gaps, schedule, strict=True))
    delays = [
        round(event["delay"], 6) for event in project.events("a", "restart_scheduled")
    ]
    assert schedule == delays


def test_p8_jitter_stays_within_its_bounds(project: Project) -> None:
    """Delays are spread by the jitter that was configured, and by no more."""
    text = ""
    for number in range(12):
        text += (
            f'[daemon.d{number}]\ncommand = "false"\n'
            "restart = { max_retries = 1, backoff = { initial = '0.2s', jitter = 0.5 } }\n"
        )
    project.write(text)
    project.run("up", "-d")
    for number in range(12):
        project.is_in(f"d{number}", "failed")
    delays = [event["delay"] for event in project.events(kind="restart_scheduled")]
    assert 12 == len(delays)
    assert all(0.1 <= delay <= 0.3 for delay in delays), delays
    assert len({round(delay, 6) for delay in delays}) > 6, delays


def test_p8_ps_tells_when_the_next_restart_comes(project: Project) -> None:
    """`next_restart_in` counts down to the start that then happens."""
    project.write(
        f"[daemon.a]\ncommand = {child('fail', 'times', 1)}\n"
        "restart = { backoff = { initial = '3s', jitter = 0.0 } }\n"
    )
    project.run("up", "-d")
    first = project.is_in("a", "backoff")["next_restart_in"]
    assert 0 <= first <= 3.0
    later = until(
        lambda: (
            (r := project.row("a"))["state"] == "backoff"
            and r["next_restart_in"] < first
            and r
        ),
        "it counts down",
    )
    assert 0 <= later["next_restart_in"] < first
    until(lambda: len(starts(project)) == 2, "it was started again")
    one, two = starts(project)
    assert two - one >= 3.0


def test_p8_intensity_is_a_limit(project: Project) -> None:
    """More restarts within the window than allowed, and it is failed."""
    project.write(
        f"[daemon.a]\ncommand = {child('fail', 'times', 1)}\n"
        'restart = { policy = "always", max_in_window = { count = 3, window = "1m" }, '
        'backoff = { initial = "0s" } }\n'
    )
    project.run("up", "-d")
    row = project.is_in("a", "failed")
    assert 3 == row["restarts"]
    assert 4 == len(starts(project))
    assert "3 restarts within" in row["reason"]


def test_p8_a_stable_run_resets_the_delay(project: Project) -> None:
    """After `reset_after` of health, the first delay is the initial one again."""
    project.write(
        f"[daemon.a]\ncommand = {child('gate', 1)}\n"
        "restart = { backoff = { initial = '0.05s', multiplier = 20.0, jitter = 0.0, "
        "reset_after = '0.3s' } }\n"
    )
    project.up()

    def crash() -> None:
        pid = project.pid("a")
        (project.root / "end").touch()
        until(lambda: project.row("a")["state"] == "backoff", "it has ended")
        (project.root / "end").unlink()
        project.comes_back("a", pid)

    crash()
    until(
        lambda: project.get("/v1/daemons/a")["attempts"] == 0,
        "the run counts as stable",
    )
    crash()
    delays = [event["delay"] for event in project.events("a", "restart_scheduled")]
    assert [0.05, 0.05] == [round(delay, 6) for delay in delays]


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("never", 1, False),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("always", 0, True),
        ("unless-stopped", 0, True),
    ],
)
def test_p8_policy(project: Project, policy: str, code: int, again: bool) -> None:
    """Who is restarted after which end is what the policy says."""
    project.write(
        f"[daemon.a]\ncommand = {child('gate', code)}\n"
        f'restart = {{ policy = "{policy}", backoff = {{ initial = "0s" }} }}\n'
    )
    project.up()
    pid = project.pid("a")
    (project.root / "end").touch()
    if again:
        until(lambda: project.row("a")["restarts"] >= 1, "it was restarted")
        (project.root / "end").unlink()
    else:
        row = project.is_in("a", "failed" if code else "stopped")
        assert (0, {"code": code}) == (row["restarts"], row["exit"])
        assert pid != row["pid"]
