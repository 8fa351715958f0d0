"""What was measured: samples by figure and peer, and the table made of them."""

from __future__ import annotations

import statistics
from typing import Any

__all__ = ("FIGURES", "Results")

FIGURES = {
    "first": ("up to first child running, ms", "60"),
    "running-100": ("100 children running, ms", "120"),
    "running-1000": ("1,000 children running, ms", "350"),
    "respawn-100": ("SIGKILL to new process at 100, ms", "1.5"),
    "respawn-100-again": ("… the same child again at once, ms", "1.5"),
    "respawn-1000": ("SIGKILL to new process at 1,000, ms", "2.0"),
    "respawn-1000-again": ("… the same child again at once, ms", "2.0"),
    "all-back": ("SIGKILL of all 1,000: all back, ms", "350"),
    "stop-children": ("stop of 1,000: children gone, ms", "100"),
    "stop-supervisor": ("stop of 1,000: supervisor gone, ms", "250"),
    "idle": ("idle CPU at 1,000, ms a minute", "0"),
    "pss-0": ("PSS at 0 children, MB", "25"),
    "pss-1000": ("PSS at 1,000 children, MB", "32"),
    "blocks": ("one writer, 4 kB blocks, MB/s", "350"),
    "lines": ("one writer, 100-byte lines, MB/s", "150"),
    "steady": ("100 writers, 10,000 lines/s, % of a core", "20"),
    "ps-100": ("list 100 (duende ps), ms", "60"),
    "ps-1000": ("list 1,000 (duende ps), ms", "90"),
    "python-interpreter": ("Daemon class: interpreter, ms", "–"),
    "python-imports": ("Daemon class: runner and its imports, ms", "–"),
    "python-module": ("Daemon class: the daemon's module, ms", "–"),
    "python-loop": ("Daemon class: event loop and context, ms", "–"),
    "python-init": ("Daemon class: init to READY, ms", "–"),
    "python-ready": ("Daemon class: spawn to READY, ms", "report"),
}
"""Each figure's title, and what duende is to reach."""


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


class Results:
    """This collects samples and what went wrong."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.failures: dict[str, dict[str, str]] = {}

    def add(self, figure: str, peer: str, *values: float) -> None:
        """This adds samples."""
        self.samples.setdefault(figure, {}).setdefault(peer, []).extend(values)

    def fail(self, figure: str, peer: str, text: str) -> None:
        """This notes why a figure could not be had, or is not to be trusted."""
        self.failures.setdefault(figure, {})[peer] = text

    def as_json(self) -> dict[str, Any]:
        """This is everything, with each figure's median, p95 and extremes."""
        return {
            "figures": {
                figure: {
                    "title": FIGURES[figure][0],
                    "reach": FIGURES[figure][1],
                    "peers": {
                        peer: {
                            "median": round(statistics.median(values), 4),
                            "p95": round(_quantile(values, 0.95), 4),
                            "min": round(min(values), 4),
                            "max": round(max(values), 4),
                            "samples": len(values),
                        }
                        for peer, values in peers.items()
                    },
                }
                for figure, peers in self.samples.items()
            },
            "failures": self.failures,
        }

    def table(self, peers: list[str]) -> str:
        """This is a Markdown table: a row a figure, a column a peer."""
        rows = [["figure", *peers, "reach"]]
        for figure, (title, reach) in FIGURES.items():
            found = self.samples.get(figure, {})
            if not found and figure not in self.failures:
                continue
            cells = [self._cell(figure, peer) for peer in peers]
            rows.append([title, *cells, reach])
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = [
            "| "
            + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
            + " |"
            for row in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        for figure, failures in self.failures.items():
            lines += [f"{figure}, {peer}: {text}" for peer, text in failures.items()]
        return "\n".join(lines)

    def _cell(self, figure: str, peer: str) -> str:
        values = self.samples.get(figure, {}).get(peer)
        if not values:
            return "failed" if peer in self.failures.get(figure, {}) else "–"
        text = _number(statistics.median(values))
        if figure.startswith("respawn"):
            text += f" (p95 {_number(_quantile(values, 0.95))})"
        return text


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
