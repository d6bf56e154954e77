"""A click group that behaves as the other programs: single-dash flags parse, errors are a line."""

import sys
from collections.abc import Sequence
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

INTERRUPTED = 130


class GoGroup(click.Group):
    """The group at the top: whatever is below it takes Go's spelling of its own long options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after the dashes are doubled where that makes a known option."""
        return super().parse_args(ctx, double_dashes(self, ctx, args))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click does, with one line for what is wrong instead of usage and hints."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            if isinstance(error, NoArgsIsHelpError):
                error.show()
            else:
                where = error.ctx.command_path if error.ctx else "kit"
                told = error.format_message().rstrip(".")
                click.echo(f"{where}: {told}; see {where} --help", err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            if type(error).show is click.ClickException.show:
                click.echo(f"kit: {error.format_message()}", err=True)
            else:
                error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("kit: stopped", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)


def double_dashes(command: click.Command, ctx: click.Context, args: list[str]) -> list[str]:
    """``args`` with ``-name`` as ``--name`` where the command it belongs to has that option.

    What comes after ``--`` is for somebody else and stays as it is.
    """
    known = _long_options(command, ctx)
    changed: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return changed + args[place:]
        if arg.startswith("-"):
            name = f"-{arg.partition('=')[0]}"
            changed.append(f"-{arg}" if len(name) > 3 and name in known else arg)
            continue
        changed.append(arg)
        if isinstance(command, click.Group):
            below = command.get_command(ctx, arg)
            if below is None:
                return changed + args[place + 1 :]
            command = below
            known = _long_options(command, ctx)
    return changed


def _long_options(command: click.Command, ctx: click.Context) -> set[str]:
    return {
        name
        for parameter in command.get_params(ctx)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
