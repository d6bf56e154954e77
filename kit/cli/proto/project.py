"""Where protos are: the project's root, and the files below it."""

import keyword
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.cli.usage import WrongUsage

ROOT_MARKS = ("pyproject.toml", ".git", "go.mod")
THIRD_PARTY = "third_party"
MAX_PROTOS = 2_000

_PART = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Project:
    """A project with protos.

    Attributes:
        root: the folder from which protos import each other, and Python modules too.
        includes: further folders with protos that are imported, not generated.
        python: has protoc and mypy-protobuf; by default this one.
    """

    root: Path
    includes: tuple[Path, ...] = ()
    python: str = sys.executable

    def name_of(self, path: Path) -> str:
        """``path`` as protos import it: relative to the root, with slashes.

        Raises:
            WrongUsage: it is outside of the root.
        """
        try:
            return absolute(path).relative_to(self.root).as_posix()
        except ValueError:
            raise WrongUsage(f"{path} is outside of the project {self.root}") from None

    def protos(self, paths: Iterable[Path]) -> list[str]:
        """The names of the protos at ``paths``: files, or folders with all below them.

        Raises:
            WrongUsage: there is none, there are too many, or a path is no proto.
        """
        found: set[str] = set()
        for path in paths:
            if path.is_dir():
                below = [each for each in _walk(absolute(path)) if not self._included(each)]
                if not below:
                    raise WrongUsage(
                        f"{path}: no .proto file in this folder; kit proto add makes one"
                    )
                found.update(map(self.name_of, below))
            elif not path.exists():
                raise WrongUsage(f"{path}: no such file or folder")
            elif path.suffix != ".proto":
                raise WrongUsage(f"{path} is no .proto file")
            else:
                found.add(self.name_of(path))
        if len(found) > MAX_PROTOS:
            raise WrongUsage(f"{len(found)} protos; at most {MAX_PROTOS} are taken at a time")
        for name in found:
            check_name(name)
        return sorted(found)

    def api(self, names: Iterable[str]) -> list[str]:
        """The protos of all top folders in which ``names`` are: what the document describes."""
        tops = {name.partition("/")[0] for name in names}
        folders = [self.root / top for top in sorted(tops) if (self.root / top).is_dir()]
        return self.protos(folders) if folders else sorted(names)

    def _included(self, path: Path) -> bool:
        return any(path.is_relative_to(each) for each in self.includes)


def find_project(
    start: Path, includes: Sequence[Path] = (), python: str = sys.executable
) -> Project:
    """The project around ``start``: the nearest folder with one of :data:`ROOT_MARKS`.

    Without any it is the working folder. Its ``third_party`` is an include, as in kratos.

    Raises:
        WrongUsage: an include is no folder.
    """
    for include in includes:
        if not include.is_dir():
            raise WrongUsage(f"--proto_path {include}: no such folder")
    start = absolute(start)
    around = (each for each in (start, *start.parents) if each.is_dir())
    marked = (each for each in around if any((each / mark).exists() for mark in ROOT_MARKS))
    root = next(marked, absolute(Path()))
    third_party = root / THIRD_PARTY
    found = [absolute(each) for each in includes]
    if third_party.is_dir() and third_party not in found:
        found.append(third_party)
    return Project(root, tuple(found), python)


def absolute(path: Path) -> Path:
    """``path`` from the root of the file system, without ``..``; links stay as they are."""
    return Path(os.path.normpath(path.absolute()))


def check_name(name: str) -> None:
    """Refuse a proto whose Python modules could not be imported.

    Raises:
        WrongUsage: a part of the path is a word of Python or has other characters.
    """
    *folders, file = name.removesuffix(".proto").split("/")
    for part in (*folders, file.replace("-", "_")):
        if keyword.iskeyword(part):
            raise WrongUsage(
                f"{name}: {part!r} is a word of Python and cannot be imported; rename it"
            )
        if not _PART.fullmatch(part):
            raise WrongUsage(
                f"{name}: {part!r} is no name of a package; use small letters, digits and _, "
                f"such as {_mended(name)}"
            )


def _mended(name: str) -> str:
    """``name`` with the characters that a package may have."""
    parts = name.removesuffix(".proto").lower().split("/")
    legal = (re.sub(r"[^a-z0-9_]+", "_", part).strip("_") for part in parts)
    return "/".join(f"x{part}" if part[:1].isdigit() else part or "x" for part in legal) + ".proto"


def _walk(folder: Path) -> Iterable[Path]:
    """All protos below ``folder``, but for hidden folders, environments and third parties."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".")
            and each not in {THIRD_PARTY, "node_modules", "venv"}
            and not (Path(at) / each / "pyvenv.cfg").exists()
        )
        yield from (Path(at) / each for each in sorted(files) if each.endswith(".proto"))
