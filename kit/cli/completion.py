"""``kit completion``: what makes a shell complete commands, options and names of services."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    r"""Print what makes SHELL complete kit's commands, options and names of services.

    \b
    Examples:
      eval "$(kit completion bash)"        in ~/.bashrc; bash 4.4 or newer
      eval "$(kit completion zsh)"         in ~/.zshrc, after compinit
      kit completion fish > ~/.config/fish/completions/kit.fish
    """
    from kit.cli import main  # here: that module imports the commands

    found = get_completion_class(shell)
    assert found is not None, "click has all three"
    click.echo(found(main, {}, "kit", "_KIT_COMPLETE").source())
