"""``kit proto``: protos to begin with, code from protos, and classes for their services."""

import json
import sys
from pathlib import Path

import click

from kit.cli.usage import WrongUsage

PROTO_PATH = "KIT_PROTO_PATH"

_paths = click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
_includes = click.option(
    "-p",
    "--proto_path",
    "includes",
    metavar="FOLDER",
    multiple=True,
    envvar=PROTO_PATH,
    type=click.Path(path_type=Path),
    help=f"A folder with further protos to import, also from {PROTO_PATH}; the project's "
    "third_party is one.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Say what was written as JSON.")


@click.group()
def proto() -> None:
    """Write protos, and make code from them."""


@proto.command()
@click.argument("path", type=click.Path(path_type=Path))
@_json
def add(path: Path, as_json: bool) -> None:
    """Write a proto to begin with, at PATH.

    Its folder names the package, its file the service: five methods with HTTP rules, and an enum of
    errors with their codes.

    \b
    Example:
      kit proto add api/shop/v1/order.proto
    """
    from kit.cli.proto.add import add as skeleton
    from kit.cli.proto.project import find_project
    from kit.cli.writing import write_files

    project = find_project(path)
    name, text = skeleton(project, path)
    write_files(project.root, {name: text})
    if as_json:
        click.echo(json.dumps({"file": name}))
        return
    click.echo(f"CREATED {name}")
    click.echo(f"next: kit proto client {path}")


@proto.command()
@_paths
@_includes
@click.option(
    "--openapi",
    default="openapi.json",
    show_default=True,
    metavar="NAME",
    help="The OpenAPI document of all protos beside PATH, in the project's root; none for none.",
)
@click.option(
    "--python",
    metavar="PROGRAM",
    help="A Python with other versions of grpcio-tools and mypy-protobuf than this one's.",
)
@click.option(
    "-X",
    "options",
    metavar="OPTION",
    multiple=True,
    help="Handed to protoc, such as -X --experimental_editions.",
)
@_json
def client(
    paths: tuple[Path, ...],
    includes: tuple[Path, ...],
    openapi: str,
    python: str | None,
    options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make Python code from the protos at PATH: files, or folders with all below them.

    Beside each proto it writes messages and stubs with their types, an HTTP server and client for
    rules of google.api.http, and functions for the errors of enums with codes. google/api and
    errors/errors.proto are there to import. No protoc has to be installed.

    \b
    Examples:
      kit proto client api
      kit proto client api/shop/v1/order.proto -p ../protos
    """
    from kit.cli.proto.compiler import generate
    from kit.cli.proto.project import find_project
    from kit.cli.writing import write_files

    project = find_project(paths[0], includes, python or sys.executable)
    wanted = project.protos(paths)
    # The document is one for all: a run for one proto must not make it forget the others.
    known = wanted if openapi == "none" else sorted({*wanted, *project.api(wanted)})
    if not as_json:
        click.echo(f"generating from {len(wanted)} proto{'s' * (len(wanted) != 1)} …", err=True)
    made = generate(project, known, openapi=openapi, title=project.root.name, options=options)
    for warning in made.warnings:
        click.echo(f"kit: {warning}", err=True)
    bases = tuple(f"{_base(name)}_pb2" for name in wanted)
    files = {
        name: text
        for name, text in made.files.items()
        if name.startswith(bases) or name == openapi or name.endswith("/__init__.py")
    }
    changed = write_files(project.root, files)
    if as_json:
        click.echo(json.dumps({"files": sorted(files), "changed": changed}))
        return
    for name in changed:
        click.echo(f"WRITTEN {name}")
    if not changed:
        click.echo("everything is as it should be")


@proto.command()
@_paths
@_includes
@click.option(
    "-t",
    "--target-dir",
    "folder",
    default=Path("internal/service"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the classes go; the folder has to exist.",
)
@_json
def server(
    paths: tuple[Path, ...], includes: tuple[Path, ...], folder: Path, as_json: bool
) -> None:
    """Write a class for each service of the protos at PATH, with a method for each rpc.

    A file that is there keeps what is in it: only methods that its class lacks are added.

    \b
    Example:
      kit proto server api/shop/v1/order.proto -t internal/service
    """
    from kit.cli.proto.project import find_project
    from kit.cli.proto.server import skeletons
    from kit.cli.writing import told, write_files

    project = find_project(paths[0], includes)
    with told():
        made = skeletons(project, project.protos(paths), folder)
    if len({each.path for each in made}) < len(made):
        raise WrongUsage("two services would have the same file; give their protos one by one")
    write_files(Path(), {str(each.path): each.text for each in made})
    if as_json:
        click.echo(json.dumps([{"file": str(each.path), "added": each.added} for each in made]))
        return
    for each in made:
        added = f"added {', '.join(each.added)}" if each.added else "nothing is missing"
        click.echo(f"{each.path}: {added}")


def _base(name: str) -> str:
    return name.removesuffix(".proto").replace("-", "_")
