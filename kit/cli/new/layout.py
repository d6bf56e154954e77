"""A service as files: the templates of a layout, filled in.

A layout is a folder with three others: ``api`` becomes ``api/<package>`` of the project, ``home``
the folder of the service, ``project`` what a repository has once. Names may have ``__package__``
and ``__module__`` in them. A file that comes out blank is left out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2

from kit.cli import templates
from kit.cli.new.names import Names
from kit.cli.new.source import KitSource
from kit.cli.usage import WrongUsage

NONE = "none"
DATABASES = ("sqlite", "postgres", "mysql", NONE)
MODES = ("msg", "saga", "tcc", "xa")
MAX_FILES = 1_000

_MARKS = {"postgres": ("$1", "$2", "$3"), "mysql": ("%s", "%s", "%s")}
_SQLITE_MARKS = ("?", "?", "?")
_ENDING = ".j2"


@dataclass(frozen=True, slots=True)
class Branch:
    """A method that the coordinator calls.

    Attributes:
        rpc: in the proto.
        method: in the business.
        doc: what it does.
    """

    rpc: str
    method: str
    doc: str


_BRANCHES = {
    "msg": (
        Branch("Deposit", "deposit", "Put the money into an account."),
        Branch("Withdrawn", "withdrawn", "Answer whether the money was taken."),
    ),
    "saga": (
        Branch("Withdraw", "withdraw", "Take the money from an account."),
        Branch("WithdrawRevert", "withdraw_revert", "Undo Withdraw."),
        Branch("Deposit", "deposit", "Put the money into an account."),
        Branch("DepositRevert", "deposit_revert", "Undo Deposit."),
    ),
    "tcc": (
        Branch("WithdrawTry", "withdraw_try", "Hold the money of an account."),
        Branch("WithdrawConfirm", "withdraw_confirm", "Take the money that is held."),
        Branch("WithdrawCancel", "withdraw_cancel", "Let it go."),
        Branch("DepositTry", "deposit_try", "See whether there is such an account."),
        Branch("DepositConfirm", "deposit_confirm", "Put the money into it."),
        Branch("DepositCancel", "deposit_cancel", "Give it up."),
    ),
    "xa": (
        Branch("Withdraw", "withdraw", "Take the money, for good once the coordinator says so."),
        Branch("Deposit", "deposit", "Put the money in, for good once the coordinator says so."),
    ),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user wants.

    Attributes:
        names: of the service.
        db: one of :data:`DATABASES`.
        transaction: one of :data:`MODES`; empty for none.
        home: the folder of the service in a mono-repo, with slashes; empty where it is the project.
        kit: where the kit comes from.
    """

    names: Names
    db: str
    transaction: str
    home: str
    kit: KitSource

    @property
    def runtime(self) -> list[str]:
        """The extras of the kit that the service needs."""
        return [*([] if self.db == NONE else [self.db]), "uvloop"]

    def values(self) -> dict[str, object]:
        """What templates may use."""
        names = self.names
        return {
            "name": names.name,
            "package": names.package,
            "service": names.service,
            "cls": names.cls,
            "module": names.module,
            "snake": names.snake,
            "env": names.env,
            "db": self.db,
            "transaction": self.transaction,
            "branches": _BRANCHES.get(self.transaction, ()),
            "m": _MARKS.get(self.db, _SQLITE_MARKS),
            "prefix": "".join(f"{part}." for part in self.home.split("/") if part),
            "home": f"{self.home}/" if self.home else "",
            "runtime": self.runtime,
            "kit": self.kit,
        }


def choose(db: str | None, transaction: str | None) -> tuple[str, str]:
    """The database and the mode; where no database is named, one that fits.

    Raises:
        WrongUsage: they do not fit together.
    """
    mode = transaction or ""
    if db is None:
        db = {"": NONE, "xa": "postgres"}.get(mode, "sqlite")
    if mode and db == NONE:
        raise WrongUsage(
            f"--transaction {mode} needs a database, where its barrier notes what it has seen; "
            "add --db sqlite, postgres or mysql"
        )
    if mode == "xa" and db == "sqlite":
        raise WrongUsage(
            "--transaction xa needs a database that prepares transactions; SQLite does not: add "
            "--db postgres or mysql, or take --transaction saga"
        )
    return db, mode


def own_layout() -> Path:
    """The folder of the kit's own layout: a place to begin from."""
    return Path(templates.__path__[0]) / "service"


def render(layout: Path, choice: Choice, *, project: bool) -> dict[str, str]:
    """The files of a new service by their names below the project's root.

    Args:
        layout: a folder as the module describes it.
        choice: what the user wants.
        project: with what a repository has once.

    Raises:
        WrongUsage: the layout is no folder, is empty, or a template is wrong.
    """
    folders = {
        "api": f"api/{choice.names.package}/",
        "home": f"{choice.home}/" if choice.home else "",
    }
    if project:
        folders["project"] = ""
    environment = templates.environment(layout)
    values = choice.values()
    made: dict[str, str] = {}
    for folder, place in folders.items():
        for name in _below(layout / folder):
            template = f"{folder}/{name}"
            try:
                text = environment.get_template(template).render(values)
            except (jinja2.TemplateError, UnicodeDecodeError) as exc:
                line = getattr(exc, "lineno", None)
                where = f"{layout / template}:{line}" if line else f"{layout / template}"
                raise WrongUsage(f"{where}: {exc}") from exc
            if text.strip():
                target = name.removesuffix(_ENDING)
                for key in ("package", "module"):
                    target = target.replace(f"__{key}__", str(values[key]))
                made[f"{place}{target}"] = (
                    templates.wrapped(text) if target.endswith(".py") else text
                )
    if not made:
        raise WrongUsage(
            f"{layout} is no layout: it has none of the folders api, home and project; "
            f"{own_layout()} is one to begin from"
        )
    return made


def _below(folder: Path) -> Iterator[str]:
    """The names of all files below ``folder``, with slashes.

    Raises:
        WrongUsage: there are too many.
    """
    found = 0
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in {".git", "__pycache__"})
        for file in sorted(files):
            found += 1
            if found > MAX_FILES:
                raise WrongUsage(f"{folder} has more than {MAX_FILES} files; is it a layout?")
            yield (Path(at) / file).relative_to(folder).as_posix()
