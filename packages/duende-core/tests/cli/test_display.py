"""What `up` shows, and when it counts as done; tables; what is told from records."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.cli import recorded
from duende.core.cli.display import TerminalDisplay
from duende.core.cli.initializing import procfile_commands, render_initial
from duende.core.cli.output import Printer, duration_text, escaped, size_text
from duende.core.cli.starting import _Expectation
from duende.core.types import Event


def printer(*, quiet: bool = False) -> Printer:
    """This prints without colours."""
    return Printer(quiet=quiet, no_color=True, environ={})


def row(name: str, state: str, **more: Any) -> dict[str, object]:
    """This is a row of the overview, as far as `up -d` looks at it."""
    return {"name": name, "state": state, "ready": False, "restarts": 0, **more}


class TestExpectation:
    """When `up -d` may return, and with what."""

    def judge(self, *rows: dict[str, object], wanted: str = "") -> tuple[Any, Any]:
        """This takes one look."""
        expectation = _Expectation(frozenset(wanted.split()) if wanted else None)
        return expectation.judge(rows, 0.0), expectation.failures

    def test_ready_paused_and_stopped_by_hand_are_done(self) -> None:
        """Nothing is waited for that will not change by itself."""
        rows = [
            row("a", "running", ready=True),
            row("b", "paused"),
            row("c", "stopped"),
        ]
        assert ([], {}) == self.judge(*rows)

    def test_what_starts_is_waited_for(self) -> None:
        """Starting, waiting and not yet begun are pending."""
        rows = [row("a", "starting"), row("b", "waiting"), row("c", "created")]
        assert ["a", "b", "c"] == self.judge(*rows)[0]

    def test_what_is_not_wanted_is_not(self) -> None:
        """A daemon that is not enabled stays created, and holds nothing up."""
        assert ([], {}) == self.judge(row("c", "created"), wanted="other")

    def test_failures_have_their_reason(self) -> None:
        """failed and backoff are failures, and what waits for them is another."""
        rows = [
            row("a", "failed", reason="bad"),
            row("b", "backoff", reason="exit code 1"),
            row("c", "waiting", reason="waits for a to be ready"),
        ]
        assert [] == self.judge(*rows)[0]
        assert {
            "a": "bad",
            "b": "exit code 1",
            "c": "waits for a to be ready",
        } == self.judge(*rows)[1]

    def test_a_restart_before_ready_is_a_failure(self) -> None:
        """With a backoff of 0 no state but the count tells."""
        expectation = _Expectation(None)
        assert ["a"] == expectation.judge([row("a", "starting")], 0.0)
        assert [] == expectation.judge([row("a", "starting", restarts=1)], 0.1)
        assert ["a"] == list(expectation.failures)

    def test_a_standstill_ends(self) -> None:
        """A supervisor that begins nothing is given up after a minute."""
        expectation = _Expectation(None)
        assert ["a"] == expectation.judge([row("a", "created")], 0.0)
        assert ["a"] == expectation.judge([row("a", "created")], 59.0)
        assert [] == expectation.judge([row("a", "created")], 61.0)
        assert {"a": "it stays created"} == expectation.failures


class TestDisplay:
    """The display of a foreground `up`."""

    def test_logs_and_failures(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        """Output goes to stdout with padded names; the rest to stderr."""
        display = TerminalDisplay(printer(), ["db", "web"], "duende -f x.toml")
        display.log("db", b"hello\n")
        display.log("web", b"\xff")
        display.failed("db", "exit code 1", [b"last \x1b[31m words\n"])
        display.note("a note")
        display.close()
        out, err = capfdbinary.readouterr()
        assert b"db  | hello\nweb | \xff\n" == out
        assert rb"    last \x1b[31m words" in err
        assert b"duende -f x.toml logs db" in err
        assert err.endswith(b"duende: a note\n")

    def test_quiet(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        """-q leaves out notes, not failures."""
        display = TerminalDisplay(printer(quiet=True))
        display.note("a note")
        display.ready({"daemons": []})
        display.failed("db", "why", [])
        display.close()
        assert capfdbinary.readouterr().err.startswith(b"duende: db failed: why\n")

    def test_events(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        """State changes are told, and more of them once everything is up."""
        display = TerminalDisplay(printer())
        change = Event(seq=1, at="", daemon="db", type="state", to="stopped")
        display.event(change)
        display.ready({"daemons": [row("db", "running")]})
        display.event(change)
        display.close()
        expected = b"duende: 1 daemon is ready; Ctrl-C stops in order\n"
        expected += b"duende: db is stopped\n"
        assert expected == capfdbinary.readouterr().err

    def test_a_stuck_terminal_holds_up_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With nobody reading, every call returns, what is too much is dropped."""
        reading, writing = os.pipe()
        stuck = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
        monkeypatch.setattr(sys, "stdout", stuck)
        display = TerminalDisplay(printer())
        line = b"x" * 1000
        done = threading.Event()

        def flood() -> None:
            for _ in range(20_000):
                display.log("db", line)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert done.wait(20), "a display that nobody reads held its caller up"
        thread.join()
        assert display._dropped > 10_000
        os.close(reading)  # the writer gets EPIPE and ends
        display.close()
        stuck.close()


class TestRecorded:
    """What is told when only the keeper lives."""

    def test_rows(self) -> None:
        """A slot and the record in its blob make a row of `ps -o json`."""
        slot: dict[str, object] = {
            "name": "web-1",
            "alive": True,
            "pid": 7,
            "exit": {"code": None, "signal": 11},
            "kill_scope": "subreaper",
            "spawned_at": [1, 1_000_000_000],
            "blob": {"id": "i", "status": "running", "ready": True, "restarts": 3},
        }
        found = recorded._row(slot)
        assert ("web-1", 1, "running", True, 7, 3, {"signal": "SIGSEGV"}) == tuple(
            found[key]
            for key in ("name", "instance", "state", "ready", "pid", "restarts", "exit")
        )
        assert "1970-01-01T00:00:01.000000Z" == found["started_at"]

    @pytest.mark.parametrize(
        ("slot", "status", "state"),
        [
            ({"alive": True, "paused": True}, "running", "paused"),
            ({"alive": True}, "backoff", "running"),
            ({"alive": True}, "starting", "starting"),
            ({"alive": False}, "backoff", "backoff"),
            ({"alive": False, "exit": {"code": 1}}, "running", "failed"),
            ({"alive": False, "exit": {"code": 0}}, "running", "stopped"),
        ],
    )
    def test_states(self, slot: dict[str, object], status: str, state: str) -> None:
        """What the keeper has seen wins over what was recorded before."""
        assert state == recorded._state(slot, {"status": status})


class TestText:
    """Durations, sizes and escapes."""

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (None, "-"),
            (0.04, "0.0s"),
            (59.9, "59.9s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (90_000, "1d01h"),
        ],
    )
    def test_durations(self, seconds: float | None, text: str) -> None:
        """Two units at most."""
        assert text == duration_text(seconds)

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (None, "-"),
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (3_500_000, "3.3M"),
            (15 * 1024**3, "15G"),
            (2**60, "1048576T"),
        ],
    )
    def test_sizes(self, size: int | None, text: str) -> None:
        """Powers of 1024."""
        assert text == size_text(size)

    @given(st.text())
    def test_escaped_text_is_harmless(self, text: str) -> None:
        """Whatever is escaped has no control character and no direction mark."""
        found = escaped(text)
        assert not any(
            ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2028\u200f"
            for c in found
        )


class TestInit:
    """What `init` writes."""

    def test_procfile_lines(self) -> None:
        """Comments and nonsense are left out; names are made ours."""
        text = "# x: y\nWeb: run it\n\nbroken\n_a_: b\n"
        assert {"web": "run it", "a": "b"} == procfile_commands(text)

    def test_shell_syntax_gets_its_shell(self, tmp_path: Path) -> None:
        """What needs a shell is given one, and quoted for TOML."""
        import tomllib

        (tmp_path / "Procfile").write_text('web: A="1" serve | tee \\x\n')
        parsed = tomllib.loads(render_initial(tmp_path))
        assert ["sh", "-c", 'A="1" serve | tee \\x'] == parsed["daemon"]["web"][
            "command"
        ]

    def test_a_module_that_does_not_parse(self, tmp_path: Path) -> None:
        """It is not looked at, and nothing is imported."""
        (tmp_path / "app.py").write_text("def (")
        assert "[daemon.hello]" in render_initial(tmp_path)
