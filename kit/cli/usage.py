"""How a command refuses what it was asked: in one line."""

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
