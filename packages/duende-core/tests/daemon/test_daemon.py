"""The base class: what is there without being asked for."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from duende.core.daemon import Daemon, kebab_name
from duende.core.metrics import DaemonMetrics
from duende.core.types import ExitReason


class HTTPWorker(Daemon):
    def __init__(self) -> None:
        """No super().__init__() on purpose."""

    async def run(self, ctx: Any) -> ExitReason | None:
        return None


class Named(HTTPWorker):
    name = "my-name"


def test_identity_needs_no_super_init() -> None:
    """Every object has an id of its own that stays, a name and metrics."""
    one, other = HTTPWorker(), HTTPWorker()
    assert isinstance(one.id, uuid.UUID)
    assert one.id == one.id
    assert one.id != other.id
    assert isinstance(one.metrics, DaemonMetrics)
    assert one.metrics is one.metrics
    assert one.metrics is not other.metrics


def test_name_is_the_class_in_kebab_case_unless_set() -> None:
    """The class's name is used until something else is said."""
    assert HTTPWorker().name == "http-worker"
    assert Named().name == "my-name"
    worker = HTTPWorker()
    worker.name = "other"
    assert worker.name == "other"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ticker", "ticker"),
        ("MyWorker2", "my-worker2"),
        ("my_worker", "my-worker"),
        ("_Private", "private"),
        ("Ñ", "daemon"),
        ("A" * 80, "a" * 63),
    ],
)
def test_kebab_names(text: str, expected: str) -> None:
    """Any Python name becomes a name that a duende.toml could have."""
    assert kebab_name(text) == expected


def test_only_run_is_abstract() -> None:
    """A class without run can't be created; nothing else is asked for."""
    assert Daemon.__abstractmethods__ == {"run"}
    with pytest.raises(TypeError):
        Daemon()  # type: ignore[abstract]  # that is the point


@pytest.mark.anyio
async def test_health_is_good_by_default() -> None:
    """A daemon that says nothing of its health is healthy."""
    answer = await HTTPWorker().health_check()
    assert not isinstance(answer, bool)
    assert answer.is_healthy is True


def test_metrics_count() -> None:
    """Rate, errors and duration add up."""
    metrics = DaemonMetrics()
    assert (metrics.duration_mean, metrics.error_ratio) == (0.0, 0.0)
    for seconds in (1.0, 3.0):
        metrics.record_request()
        metrics.record_duration(seconds)
    metrics.record_error()
    assert (metrics.requests, metrics.errors) == (2, 1)
    assert (metrics.duration_sum, metrics.duration_max) == (4.0, 3.0)
    assert (metrics.duration_mean, metrics.error_ratio) == (2.0, 0.5)
