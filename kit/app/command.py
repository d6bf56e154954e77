"""A command of the shell around an asynchronous ``main``: event loop, flags, exit status.

Exit status: 0 done, 1 failed at run time, 2 wrong usage or configuration; a failure is said in
one line a problem on stderr.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from kit import log
from kit.config import ConfigError
from kit.errors import Error

T = TypeVar("T")

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class UsageError(Exception):
    """Arguments that each parse and cannot be meant; the text is one line for people."""


class Flags(argparse.ArgumentParser):
    """Flags as Go and GNU write them: ``-conf x``, ``-conf=x``, ``--conf x``, ``--conf=x``.

    Args:
        prog: the name of the command.
        description: one sentence, for ``-help``.
        version: what ``-version`` prints after the name.
    """

    def __init__(self, prog: str, description: str, version: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, add_help=False)
        self.add("help", aliases=("h",), action="help", help="show this and exit")
        self.add("version", action="version", version=f"{prog} {version}", help="show it and exit")

    def add(self, name: str, *, aliases: tuple[str, ...] = (), **options: Any) -> None:
        """A flag in both spellings; ``options`` are those of ``add_argument``."""
        spellings = [f"{dashes}{word}" for word in (name, *aliases) for dashes in ("-", "--")]
        self.add_argument(*spellings, **options)

    def error(self, message: str) -> NoReturn:
        """End the process with one line instead of the whole usage."""
        self.exit(WRONG_USAGE, f"{self.prog}: {message}; see {self.prog} -help\n")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in an event loop of its own: uvloop's where that is installed."""
    try:
        import uvloop
    except ImportError:
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def run_command(prog: str, main: Coroutine[Any, Any, int | None]) -> int:
    """Run ``main`` and tell how it ended; what it returns is the exit status, ``None`` is 0.

    An unexpected exception is a bug: it is logged with its stack.
    """
    try:
        return run(main) or 0
    except (ConfigError, UsageError) as exc:
        for line in str(exc).splitlines():
            _say(prog, line)
        return WRONG_USAGE
    except Error as exc:
        _say(prog, exc.message or exc.reason or str(exc))
    except OSError as exc:
        _say(prog, str(exc.strerror or exc))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001  (the end of the process is where it is told)
        log.get_logger().fatal("%s: %s", type(exc).__name__, exc, exc_info=exc)
    finally:
        log.flush()
    return FAILED


def _say(prog: str, line: str) -> None:
    log.flush()
    print(f"{prog}: {line}", file=sys.stderr)  # noqa: T201  (an answer to the user, no log line)
