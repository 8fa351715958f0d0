"""The counters that every daemon carries: rate, errors, duration.

Nothing here exports them; it only counts, cheaply enough for a hot path.
"""

from __future__ import annotations

from typing import final

import attrs

__all__ = ("DaemonMetrics",)


@final
@attrs.define
class DaemonMetrics:
    """This counts what a daemon does: requests, errors, and how long they took.

    All counters only grow. `duration_sum` and `duration_max` are seconds.
    """

    requests: int = 0
    errors: int = 0
    duration_count: int = 0
    duration_sum: float = 0.0
    duration_max: float = 0.0

    def record_request(self) -> None:
        """This counts one piece of work taken up."""
        self.requests += 1

    def record_error(self) -> None:
        """This counts one piece of work that failed."""
        self.errors += 1

    def record_duration(self, seconds: float) -> None:
        """This counts how long one piece of work took, in seconds."""
        self.duration_count += 1
        self.duration_sum += seconds
        self.duration_max = max(self.duration_max, seconds)

    @property
    def duration_mean(self) -> float:
        """The mean duration in seconds; 0 before the first."""
        return self.duration_sum / self.duration_count if self.duration_count else 0.0

    @property
    def error_ratio(self) -> float:
        """The share of requests that failed, 0 to 1; 0 before the first."""
        return self.errors / self.requests if self.requests else 0.0
