"""``kit run``: the services of a folder, each started again when what it is made of changes."""

import shlex
import sys
from pathlib import Path

import click

from kit.cli.run_find import NONE_FOUND, Service, chosen, complete, services_of


class PassingCommand(click.Command):
    """Keeps what comes after ``--`` apart, in ``ctx.meta["passed"]``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with the part before ``--``."""
        before, passed = list(args), list[str]()
        if "--" in args:
            place = args.index("--")
            before, passed = args[:place], args[place + 1 :]
        ctx.meta["passed"] = passed
        return super().parse_args(ctx, before)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Names the part after ``--``."""
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENT ...]"]


@click.command(cls=PassingCommand, short_help="Run services, and again at each change.")
@click.argument("which", nargs=-1, metavar="[NAME|FOLDER] ...", shell_complete=complete)
@click.option("--all", "everything", is_flag=True, help="All services of the folder.")
@click.option("--reload/--no-reload", default=True, help="Start again at changes; on by default.")
@click.option(
    "--generate",
    metavar="COMMAND",
    help="Makes code of protos that changed, it gets their paths; kit proto client by default.",
)
@click.pass_context
def run(
    ctx: click.Context, which: tuple[str, ...], everything: bool, reload: bool, generate: str | None
) -> None:
    r"""Run the services of this folder, each started again when it changes.

    A service is a main.py here or up to two folders below, such as apps/NAME/main.py. It is given
    -conf with its configs, and what comes after -- as it stands. Code, protos and configuration are
    watched; a proto is generated first. A service that ends by itself waits for the next change.
    Ctrl-C lets all of them drain; a second one kills them.

    \b
    Examples:
      kit run                              the service here, or one of several
      kit run trans orders                 two of apps/, with their logs side by side
      kit run ../users . -- -conf test.yaml
      kit run --all --no-reload            ends when they do, with the worst status

    Exit status: 0 after Ctrl-C, 1 when a service failed (--no-reload), 2 when there is none.
    """
    services = pick(which, everything=everything)
    from kit.app import run as run_async
    from kit.cli.run_process import Board
    from kit.cli.run_proto import generator
    from kit.cli.run_supervise import KIT, Supervisor, until_signal
    from kit.cli.run_watch import TooMuch

    names = [service.name for service in services]
    board = Board([*names, KIT])
    try:
        supervisor = Supervisor(
            services,
            board,
            arguments=ctx.meta["passed"],
            generator=shlex.split(generate) if generate else generator(),
            reload=reload,
        )
    except TooMuch as error:
        raise click.UsageError(str(error)) from None
    ctx.exit(1 if run_async(until_signal(supervisor.run(), supervisor.kill)) else 0)


def pick(which: tuple[str, ...], *, everything: bool) -> list[Service]:
    """The services to run: those named, else all, else the only one, else the one asked for.

    Raises:
        click.UsageError: there is none, or there are several and nobody to ask.
    """
    here = Path.cwd()
    if which:
        if everything:
            raise click.UsageError("--all and names do not go together; leave one out")
        return chosen(which, here)
    services = services_of(here)
    if not services:
        raise click.UsageError(f"no service in {here} or above: {NONE_FOUND}")
    if everything or len(services) == 1:
        return services
    names = [service.name for service in services]
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"there are several services: {', '.join(names)}; name those to run, or use --all"
        )
    answer = click.prompt("Which service", type=click.Choice([*names, "all"]), err=True)
    return [each for each in services if answer in ("all", each.name)]
