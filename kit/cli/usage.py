"""How a command refuses what it was asked: in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

WRONG_USAGE = 2


class WrongUsage(click.ClickException):
    """Arguments or files that the user has to mend: a line for each problem, exit status 2."""

    exit_code = WRONG_USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it on stderr."""
        for line in self.message.splitlines():
            click.echo(f"kit: {line}", file=file, err=file is None)


class Commands(click.Group):
    """Sub-commands whose wrong arguments are told in one line, as everything else is."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click does."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx else "kit"
        raise WrongUsage(f"{exc.format_message().rstrip('.')}; see {path} --help") from exc
