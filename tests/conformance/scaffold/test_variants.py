"""What ``kit new`` writes is linted, typed and tested, for every choice it offers.

All variants are made in one mono-repo, which lets one run of each tool check them together.
"""

import fcntl
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from kit.cli import main
from kit.cli.new.layout import DATABASES, MODES
from kit.ports import free_port
from kit.transport.http import HttpClient
from tests.conformance.scaffold.conftest import LONGEST_S
from tests.engines import engine_at, hearing
from tests.processes import processes

TOOLS = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(4 * LONGEST_S)

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


async def test_a_service_speaks_on_the_engines_of_its_configuration(
    repository: Path, tmp_path: Path
) -> None:
    """It answers on the one, begins transactions on the other, and refuses what is none."""
    grpc, http = free_port(), free_port()
    new_gid, submit = "/dtmgimp.Dtm/NewGid", "/dtmgimp.Dtm/Submit"
    config = (repository / "services" / "saga_sqlite" / "configs" / "config.yaml").read_text()
    assert config.count("    engine: grpcio #") == config.count("\n  engine: grpcio #") == 1
    async with hearing(new_gid, submit) as (coordinator, heard), processes(repository) as run:
        settings = {
            "HTTP_ADDR": f"127.0.0.1:{http}",
            "GRPC_ADDR": f"127.0.0.1:{grpc}",
            "ADMIN_ADDR": "127.0.0.1:0",
            "ETCD_ENDPOINTS": "",
            "DATABASE": str(tmp_path / "test.db"),
            "DTM": coordinator,
            "BRANCHES": f"127.0.0.1:{grpc}",
            "SAGA_SQLITE_SERVER_GRPC_TIMEOUT": "30s",
            "SAGA_SQLITE_SERVER_HTTP_TIMEOUT": "30s",
        }
        command = (sys.executable, "-m", "services.saga_sqlite.main")
        engines = {f"SAGA_SQLITE_{key}_ENGINE": "lean" for key in ("SERVER_GRPC", "TRANSACTION")}
        service = await run.start("service", *command, env=settings | engines)
        await service.listens(grpc, http, within=60)
        assert await engine_at(f"127.0.0.1:{grpc}") == "lean"
        async with HttpClient(f"127.0.0.1:{http}", timeout=30) as client:
            for path, body in (
                ("/v1/accounts", b'{"name": "ann", "balance": 100}'),
                ("/v1/accounts", b'{"name": "bob", "balance": 100}'),
                ("/v1/transfers", b'{"source": "ann", "target": "bob", "amount": 30}'),
            ):
                await client.request("POST", path, body=body, content_type="application/json")
        assert heard == {new_gid: "lean", submit: "lean"}
        assert await service.stop() == 0

        wrong = await run.start("wrong", *command, env=settings | dict.fromkeys(engines, "netty"))
        assert await wrong.ended(60) == 2
        for key in ("server.grpc.engine", "transaction.engine"):
            assert re.search(rf"{key}: .*'grpcio' or 'lean'.*netty", wrong.output), wrong.output


def test_every_proto_has_a_place_in_one_document(repository: Path) -> None:
    """``kit proto client`` describes all services of a repository."""
    tool(repository, "kit", "proto", "client", "api", "--json")
    document = (repository / "openapi.json").read_text()
    assert document.count('"/v1/accounts"') == 1  # the services share their paths
    tool(repository, "kit", "proto", "client", "api/xa_postgres", "--json")
    assert (repository / "openapi.json").read_text() == document
