"""The ``kit`` command."""

import click

import kit
import kit.cli._python
from kit.cli.new import new
from kit.cli.proto import proto
from kit.cli.usage import Commands


@click.group("kit", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kit.__version__, prog_name="kit")
def main() -> None:
    """Tools for services built on kit."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"kit {kit.__version__}")


main.add_command(new)
main.add_command(proto)
