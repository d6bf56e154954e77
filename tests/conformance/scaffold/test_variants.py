"""What ``kit new`` writes is linted, typed and tested, for every choice it offers.

All variants are made in one mono-repo, which lets one run of each tool check them together.
"""

import fcntl
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from kit.cli import main
from kit.cli.new.layout import DATABASES, MODES

TOOLS = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(300)

LONG = "a-service-with-30-characters-x"


def flags(mode: str, db: str) -> list[str]:
    return [f"--db={db}", *([f"--transaction={mode}"] if mode else [])]


def possible(mode: str, db: str) -> bool:
    """A transaction needs a database, xa one that can prepare."""
    return not mode or (db != "none" and (mode, db) != ("xa", "sqlite"))


VARIANTS = [(mode, db) for mode, db in product(("", *MODES), DATABASES) if possible(mode, db)]


def tool(folder: Path, *command: str) -> None:
    """Run a tool of the environment in ``folder``; what it says is the failure."""
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPY_CACHE_DIR": str(folder / ".mypy_cache")},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def make(*arguments: str) -> None:
    done = CliRunner().invoke(main, ["new", *arguments])
    assert done.exit_code == 0, f"kit new {' '.join(arguments)}\n{done.output}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One project with every variant as a service beside it, made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    root = shared / "variants" / "shop"
    with (shared / "variants.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "complete").exists():
            make_all(root)
            (root / "complete").touch()
    return root


def make_all(root: Path) -> None:
    make(str(root), "--db=mysql", "--transaction=tcc")
    for mode, db in VARIANTS:
        make(str(root / "services" / f"{mode or 'plain'}-{db}"), "--nomod", *flags(mode, db))
    make(str(root / "services" / LONG), "--nomod", *flags("saga", "sqlite"))
    pyproject = root / "pyproject.toml"
    text = pyproject.read_text().replace('"asyncmy.*"', '"asyncmy.*", "asyncpg.*"')
    pyproject.write_text(text)


def test_every_variant_is_formatted_linted_and_typed(repository: Path) -> None:
    """By the settings that the project itself brings."""
    homes = {each.name for each in (repository / "services").iterdir() if each.is_dir()}
    assert len(homes - {"__pycache__"}) == len(VARIANTS) + 1
    tool(repository, "ruff", "format", "--check", "--quiet", ".")
    tool(repository, "ruff", "check", "--quiet", ".")
    tool(repository, "mypy")


@pytest.mark.parametrize(
    "home", ["plain_none", "plain_sqlite", "msg_sqlite", "tcc_postgres", "xa_postgres", "tcc_mysql"]
)
def test_the_tests_of_a_variant_pass(repository: Path, home: str) -> None:
    """With the database and the coordinator that they start themselves."""
    tool(repository, "pytest", "-q", "-p", "no:xdist", f"services/{home}/tests")
    assert not list((repository / "services" / home).rglob("*.db"))


def test_every_proto_has_a_place_in_one_document(repository: Path) -> None:
    """``kit proto client`` describes all services of a repository."""
    tool(repository, "kit", "proto", "client", "api", "--json")
    document = (repository / "openapi.json").read_text()
    assert document.count('"/v1/accounts"') == 1  # the services share their paths
    tool(repository, "kit", "proto", "client", "api/xa_postgres", "--json")
    assert (repository / "openapi.json").read_text() == document
