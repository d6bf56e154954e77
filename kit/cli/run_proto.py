"""The way from ``kit run`` to the generation of code: a proto changed, its code is made anew."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kit.cli.run_find import shown
from kit.cli.run_process import Board, Process

NAME = "proto"


def generator() -> tuple[str, ...] | None:
    """The command that takes protos as its last arguments, ``kit proto client``.

    ``None`` when this kit has no such command.
    """
    from kit.cli import main  # here: that module imports the commands

    context = click.Context(main)
    proto = main.get_command(context, "proto")
    if not isinstance(proto, click.Group) or proto.get_command(context, "client") is None:
        return None
    return (sys.executable, "-m", "kit.cli", "proto", "client")


async def generate(
    protos: Sequence[Path], root: Path, board: Board, command: Sequence[str] | None
) -> bool:
    """Make the code of ``protos`` anew; whether that went well.

    Args:
        protos: those that changed and are still there.
        root: where the command runs.
        board: where its lines are shown.
        command: takes protos as its last arguments; ``None``: there is no generator.
    """
    if command is None:
        board.show(NAME, "there is no kit proto client here: generate the code by hand")
        return True
    names = [shown(proto, root) for proto in protos]
    board.show(NAME, f"{', '.join(names)} changed")
    try:
        process = await Process.start(NAME, board, *command, *names, cwd=root)
    except OSError as error:
        board.show(NAME, f"cannot run {command[0]}: {error.strerror}")
        return False
    try:
        status = await process.ended()
    finally:
        process.kill()
    if status != 0:
        board.show(NAME, "no code was made; the services go on as they are")
    return status == 0
