"""Which services a folder has, and how each is started.

A service is a ``main.py`` at the root of a project, or one or two folders below it. The root is the
nearest folder above with a ``pyproject.toml``, so a folder of several projects is fine, too. It is
started as a module from that root, so that it imports what stands there, with the root's own
``.venv`` where there is one, and is given ``-conf`` with its configuration.

Source: go-kratos/kratos cmd/kratos/internal/run (mains below, else up to five folders above).
"""

import os
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
from click.shell_completion import CompletionItem

HIGHEST = 5
"""How many folders above are looked at when there is nothing here."""
DEEPEST = 2
"""How many folders below."""
PROJECT = "pyproject.toml"
NOT_CODE = frozenset({"__pycache__", "node_modules", "build", "dist", "tests", "venv", "env"})
NONE_FOUND = "there is no main.py that takes -conf; kit new makes one"

_SERVES = re.compile(r"[\"']-{0,2}conf[\"']")
"""What a main that takes ``-conf`` has; a tool beside the services has it not."""


@dataclass(frozen=True, slots=True)
class Service:
    """What can be started.

    Attributes:
        name: of the project, or of its folder below the root.
        root: where it is started, what its imports begin at.
        module: ``main``, or ``apps.NAME.main``.
        conf: file or folder for ``-conf``; ``None`` when there is none to be found.
        others: the folders of the root's other services, whose code it has no part in.
    """

    name: str
    root: Path
    module: str
    conf: Path | None
    others: tuple[Path, ...] = field(default=(), repr=False)

    def command(self, arguments: Sequence[str] = ()) -> list[str]:
        """Program and arguments; ``-conf`` of ``arguments`` wins."""
        given = any(re.match(r"--?conf($|=)", argument) for argument in arguments)
        conf = [] if given or self.conf is None else ["-conf", shown(self.conf, self.root)]
        return [python_of(self.root), "-m", self.module, *conf, *arguments]

    @property
    def environment_prefix(self) -> str:
        """What variables for its configuration begin with: ``TRANS`` for ``trans``."""
        own = re.split(r"[/.]", self.name)[-1]  # without what tells it from another one
        return re.sub(r"\W", "_", own).upper()


def services_of(folder: Path) -> list[Service]:
    """The services of ``folder``; those of the nearest project above when it has none."""
    for place in (folder, *folder.parents)[: HIGHEST + 1]:
        if place != folder and not (place / PROJECT).is_file():
            continue
        if found := _services_at(place):
            return found
    return []


def chosen(words: Sequence[str], folder: Path) -> list[Service]:
    """What ``words`` mean: names of services of ``folder``, or folders with services.

    Raises:
        click.UsageError: one of them is neither, or a folder has none.
    """
    here = {service.name: service for service in services_of(folder)}
    found: dict[tuple[Path, str], Service] = {}
    for word in words:
        for service in [here[word]] if word in here else _at(folder / word, word, list(here)):
            found[service.root, service.module] = service
    return _distinct(list(found.values()))


def complete(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of services here that begin with ``incomplete``; folders come from the shell."""
    names = [service.name for service in services_of(Path.cwd())]
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def python_of(root: Path) -> str:
    """The interpreter of a project: that of its ``.venv``, of the active environment, else ours."""
    places = [root / ".venv"]
    if active := os.environ.get("VIRTUAL_ENV"):
        places.append(Path(active))
    for place in places:
        python = place / "bin" / "python"
        if python.exists():
            return str(python)
    return sys.executable


def shown(path: Path, root: Path) -> str:
    """``path`` relative to ``root`` where it is below."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _services_at(place: Path) -> list[Service]:
    """Those whose ``main.py`` is at ``place`` or at most :data:`DEEPEST` folders below."""
    return _distinct([_service(main.parent, place) for main in _mains(place)])


def _service(home: Path, place: Path) -> Service:
    """The service whose ``main.py`` is in ``home``, found from ``place``."""
    root = _project_of(home) or place
    parts = home.relative_to(root).parts
    others = {main.parent for main in _mains(root)} - {home}
    return Service(
        home.name if parts else _project_name(root),
        root,
        ".".join((*parts, "main")),
        _conf_of(root, home),
        # Not those that ``home`` is below of: they share its code.
        tuple(sorted(other for other in others if other not in home.parents)),
    )


def _mains(place: Path, depth: int = 0) -> list[Path]:
    """The ``main.py`` of services, at ``place`` first."""
    main = place / "main.py"
    at_root = depth == 0 and (place / PROJECT).is_file()
    found = [main] if main.is_file() and (at_root or _takes_conf(main)) else []
    if depth < DEEPEST:
        try:
            below = sorted(each for each in place.iterdir() if each.is_dir())
        except OSError:
            below = []
        for folder in below:
            if folder.name not in NOT_CODE and folder.name.isidentifier():
                found += _mains(folder, depth + 1)
            elif (folder / PROJECT).is_file():  # my-shop: a project, and no part of a module's name
                found += _mains(folder)
    return found


def _project_of(home: Path) -> Path | None:
    """The nearest folder with a ``pyproject.toml``, ``home`` or above."""
    places = (home, *home.parents)[: HIGHEST + 1]
    return next((place for place in places if (place / PROJECT).is_file()), None)


def _conf_of(root: Path, app: Path) -> Path | None:
    shared = root / "configs"
    if app == root:
        return shared if shared.exists() else None
    for place in (
        app / "configs",
        shared / app.name,
        shared / f"{app.name}.yaml",
        shared / "config.yaml",
        shared,
    ):
        if place.exists():
            return place
    return None


def _takes_conf(main: Path) -> bool:
    try:
        return _SERVES.search(main.read_text(errors="replace")) is not None
    except OSError:
        return False


def _at(place: Path, word: str, names: list[str]) -> list[Service]:
    place = place.resolve()
    if not place.is_dir():
        known = f"; the services here are {', '.join(names)}" if names else ""
        raise click.UsageError(f"{word!r} is neither a service nor a folder{known}")
    found = _services_at(place)
    if not found:
        raise click.UsageError(f"no service in {place}: {NONE_FOUND}")
    return found


def _distinct(services: list[Service]) -> list[Service]:
    """The services; those that share a name get their root in front, or that of their module."""
    names = [service.name for service in services]
    roots = {service.root for service in services}
    return [
        service
        if names.count(service.name) == 1
        else replace(service, name=f"{service.root.name}/{service.name}")
        if len(roots) > 1
        else replace(service, name=service.module.removesuffix(".main"))
        for service in services
    ]


def _project_name(root: Path) -> str:
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        return str(project["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return root.name
