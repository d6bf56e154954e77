"""A new service on the disk: all of it, or nothing.

It is made in a hidden folder beside its place, protos are compiled there, and then it is renamed.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.cli.new.layout import Choice, render
from kit.cli.new.source import VENDOR
from kit.cli.proto.compiler import OPENAPI, check_tools, generate
from kit.cli.proto.project import Project, absolute, find_project
from kit.cli.usage import WrongUsage
from kit.cli.writing import told, write_files

_TAKEN = frozenset({"api", "google", "grpc", "kit"})
"""Modules that services import, beside Python's own."""

_PACKAGE = '"""Services of this repository."""\n'


@dataclass(frozen=True, slots=True)
class Created:
    """What there is now.

    Attributes:
        root: of the project.
        files: that were written, relative to the root.
    """

    root: Path
    files: list[str]


def check_free(path: Path) -> None:
    """See that there is nothing at ``path``.

    Raises:
        WrongUsage: there is.
    """
    if path.exists() or path.is_symlink():
        raise WrongUsage(f"{path} is there already; remove it, or take another name")


def create_project(layout: Path, choice: Choice, path: Path) -> Created:
    """Make a project of its own at ``path``.

    Raises:
        WrongUsage: something is there, may not be written, or a proto of the layout is broken.
    """
    check_free(path)
    check_tools()
    with told(), _beside(path) as (made, place):
        made.mkdir(parents=True)
        files = _fill(made, render(layout, choice, project=True), choice.names.name)
        if choice.kit.wheel is not None:
            (made / VENDOR).mkdir()
            shutil.copy(choice.kit.wheel, made / VENDOR)
            files.append(f"{VENDOR}/{choice.kit.wheel.name}")
        place()
    return Created(path, sorted(files))


def create_service(layout: Path, choice: Choice, root: Path) -> Created:
    """Make a service in the project at ``root``: its home, and its API beside the others.

    Raises:
        WrongUsage: something is there, may not be written, or a proto of the layout is broken.
    """
    home = root / choice.home
    api = root / "api" / choice.names.package
    check_free(home)
    check_free(api)
    check_tools()
    with told(), _beside(home) as (made_home, place_home), _beside(api) as (made_api, place_api):
        with tempfile.TemporaryDirectory(prefix="kit-new-") as temporary:
            whole = Path(temporary)
            texts = render(layout, choice, project=False)
            files = _fill(whole, texts, "", openapi="none")
            if not (whole / choice.home).is_dir():
                raise WrongUsage(f"{layout} has no folder home, so nothing is made of it")
            parts = [(whole / choice.home, made_home, place_home)]
            if (whole / "api" / choice.names.package).is_dir():
                parts.append((whole / "api" / choice.names.package, made_api, place_api))
            for filled, made, _ in parts:
                made.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(filled, made)
        try:
            for _, _, place in parts:
                place()
        except OSError:
            shutil.rmtree(home, ignore_errors=True)
            raise
        folders = [Path(choice.home), *Path(choice.home).parents]
        folders += api.relative_to(root).parents if api.is_dir() else []
        packages = write_files(root, _missing_packages(root, folders))
    return Created(
        root, sorted({*(name for name in files if name != "api/__init__.py"), *packages})
    )


def mono_repo(path: Path) -> tuple[Path, str]:
    """The project around ``path``, and the service's folder in it as a package.

    Raises:
        WrongUsage: there is no project, or the folder cannot be a package.
    """
    existing = _existing(path)
    root = find_project(existing).root
    if not (root / "pyproject.toml").is_file():
        raise WrongUsage(
            f"--nomod adds a service to a project, and there is no pyproject.toml in {existing} "
            "or above; leave it out for a project of its own"
        )
    relative = absolute(path).relative_to(root)
    parts = [part.replace("-", "_") for part in relative.parts]
    for part in parts:
        if not part.isidentifier() or not part.isascii():
            raise WrongUsage(f"{relative}: {part!r} cannot be imported; take another folder")
    if parts[0] in sys.stdlib_module_names or parts[0] in _TAKEN:
        raise WrongUsage(
            f"{relative} would hide the module {parts[0]!r} from Python; take a folder for it, "
            f"such as services/{relative}"
        )
    return root, "/".join(parts)


def _fill(folder: Path, files: dict[str, str], title: str, *, openapi: str = OPENAPI) -> list[str]:
    """Write ``files`` and what is generated from their protos; the names of all."""
    write_files(folder, files)
    project = Project(folder)
    protos = sorted(name for name in files if name.endswith(".proto"))
    generated = generate(project, protos, openapi=openapi, title=title).files if protos else {}
    write_files(folder, generated)
    return [*files, *generated]


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, "Placing"]]:
    """A path to make something at, and what puts it at ``path``; else nothing is left."""
    existing = _existing(path.parent)
    hidden = Path(tempfile.mkdtemp(prefix=".kit-new-", dir=existing))
    inner = absolute(path).relative_to(existing)
    try:
        yield hidden / inner, Placing(hidden, existing, inner)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Placing:
    """Renames what was made."""

    hidden: Path
    existing: Path
    inner: Path

    def __call__(self) -> None:
        """Put it at its place, of which some folders may have come into being meanwhile."""
        for depth in range(1, len(self.inner.parts) + 1):
            part = Path(*self.inner.parts[:depth])
            if not (self.existing / part).exists():
                (self.hidden / part).rename(self.existing / part)
                return
        raise FileExistsError(17, "is there already", str(self.existing / self.inner))


def _existing(path: Path) -> Path:
    """The nearest folder at or above ``path`` that is there."""
    path = absolute(path)
    return next(each for each in (path, *path.parents) if each.is_dir())


def _missing_packages(root: Path, folders: Iterable[Path]) -> dict[str, str]:
    """``__init__.py`` for those of ``folders`` that have none."""
    return {
        f"{folder.as_posix()}/__init__.py": _PACKAGE
        for folder in folders
        if folder != Path() and not (root / folder / "__init__.py").exists()
    }
