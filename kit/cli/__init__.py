"""The ``kit`` command."""

import os

import click

import kit
import kit.cli._python
from kit.cli.completion import completion
from kit.cli.dev import dev
from kit.cli.doctor import doctor
from kit.cli.gostyle import GoGroup
from kit.cli.new import new
from kit.cli.proto import proto
from kit.cli.run import run

# Read when grpc is imported. With its fork handlers one in ten processes that uvloop starts while a
# call is under way dies of SIGSEGV before it is our program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


@click.group("kit", cls=GoGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kit.__version__, prog_name="kit")
def main() -> None:
    """Tools for services built on kit."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"kit {kit.__version__}")


main.add_command(completion)
main.add_command(dev)
main.add_command(doctor)
main.add_command(new)
main.add_command(proto)
main.add_command(run)
