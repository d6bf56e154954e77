"""``kit new``: a service that runs, is checked and tested by its own commands."""

import json
from pathlib import Path

import click

from kit.cli.usage import WrongUsage

# As in kit.cli.new.layout, which is only imported when something is made.
_DATABASES = ("sqlite", "postgres", "mysql", "none")
_MODES = ("msg", "saga", "tcc", "xa")


@click.command()
@click.argument("path", metavar="NAME", type=click.Path(path_type=Path))
@click.option(
    "--db",
    type=click.Choice(_DATABASES),
    help="Where it keeps its data.  [default: none; with a transaction one that fits]",
)
@click.option(
    "--transaction",
    type=click.Choice(_MODES),
    help="Add transfers as transactions of this mode: who begins them, and their branches.",
)
@click.option("--nomod", is_flag=True, help="Add a service to the project around NAME.")
@click.option(
    "-r",
    "--repo",
    "layout",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A layout of your own in place of the kit's.",
)
@click.option(
    "--kit",
    "kit_from",
    metavar="WHAT",
    help="Where the project gets the kit from: a wheel, a checkout, a requirement or a URL.  "
    "[default: from where this one was installed]",
)
@click.option("--json", "as_json", is_flag=True, help="Say what was made as JSON.")
def new(
    path: Path,
    db: str | None,
    transaction: str | None,
    nomod: bool,
    layout: Path | None,
    kit_from: str | None,
    as_json: bool,
) -> None:
    """Make a service: its API, its code, its tests, and what builds and checks it.

    NAME is the folder, and its last part the name of the service.

    \b
    Examples:
      kit new bank
      kit new bank --transaction saga --db postgres
      kit new services/stock --nomod
    """
    from kit.cli.new.create import check_free, create_project, create_service, mono_repo
    from kit.cli.new.layout import Choice, choose, own_layout
    from kit.cli.new.names import names_of
    from kit.cli.new.source import KitSource, kit_source

    names = names_of(path.name)
    database, mode = choose(db, transaction)
    if not as_json:
        click.echo(f"making {path} …", err=True)
    if nomod:
        if kit_from is not None:
            raise WrongUsage("--kit is for a project of its own; this one has its pyproject.toml")
        root, home = mono_repo(path)
        choice = Choice(names, database, mode, home, KitSource())
        created = create_service(layout or own_layout(), choice, root)
        steps = [
            f"see that {root / 'pyproject.toml'} has kit[{','.join(choice.runtime)}]",
            f"cd {root} && python -m {home.replace('/', '.')}.main",
        ]
    else:
        check_free(path)
        choice = Choice(names, database, mode, "", kit_source(kit_from))
        created = create_project(layout or own_layout(), choice, path)
        steps = [f"cd {path}", "make test", "make run"]
    if as_json:
        answer = {"service": names.name, "root": str(created.root), "files": created.files}
        click.echo(json.dumps({**answer, "next": steps}))
        return
    for file in created.files:
        click.echo(f"CREATED {file}")
    if names.package != names.name:
        click.echo(f"{names.name} is {names.package} in Python and in protos")
    for step in steps:
        click.echo(f"next: {step}")
