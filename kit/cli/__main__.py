"""``python -m kit.cli``: the command ``kit`` of this very interpreter."""

from kit.cli import main

main(prog_name="kit")
