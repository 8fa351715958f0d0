"""The `duende` command. `main` is the program; click is imported here alone.

`ps`, `status`, `ls` and `version` are read from the arguments by hand (`fast`):
importing click would take longer than they do. All else, and whatever `fast` does not
understand, goes to `app`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ("main", "run")

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main() -> NoReturn:
    """This runs the command line of this process and ends it."""
    sys.exit(run(sys.argv[1:], end_at_once=True))


def run(arguments: list[str], *, end_at_once: bool = False) -> int:
    """This runs one command line and returns its exit code.

    Args:
        arguments: The command line without the program's name.
        end_at_once: Leave out the interpreter's teardown after a verb that only
            reads; it would take longer than the verb.
    """
    try:
        from duende.core.cli.fast import run_fast

        code = run_fast(arguments)
        if code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            if end_at_once and "COVERAGE_RUN" not in os.environ:
                os._exit(code)
            return code
        code = _run_all(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough (`| head`). The interpreter would flush once
        # more at its end and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _run_all(arguments: list[str]) -> int:
    try:
        import click  # noqa: F401
    except ImportError:
        print(
            "duende: the command needs click, which is not installed; "
            "pip install 'duende-core[cli]'",
            file=sys.stderr,
        )
        return 1
    from duende.core.cli.app import run_app

    return run_app(arguments)
