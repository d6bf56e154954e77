"""What ``make dist`` makes works where nothing but it is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kit.cli.doctor_python import check_python
from kit.ports import free_port
from tests.conformance.tools.pythons import another_python
from tests.processes import Processes, processes, trans_config

ROOT = Path(__file__).parents[3]
_OURS = ("PYTHON", "VIRTUAL_ENV")
COMMANDS = Path(sys.executable).parent

EXTRAS = {
    *("aiosqlite", "apsw", "asyncmy", "asyncpg", "dynaconf", "google.protobuf.internal.builder"),
    *("grpc_tools", "joserfc", "mypy_protobuf", "opentelemetry.sdk", "protovalidate", "redis"),
    *("hiredis", "uvloop"),
    # What users of the barrier and of kit.testing bring.
    *("aiomysql", "django", "psycopg", "pymongo", "pymysql", "pytest", "sqlalchemy", "bson"),
}

IMPORT_ALL = """
import importlib, json, pkgutil, kit
missing = {}
for module in pkgutil.walk_packages(kit.__path__, "kit."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing[module.name] = error.name
print(json.dumps(missing))
"""


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Its output; our own Python is not to be found through the environment."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def uv() -> str:
    local = COMMANDS / "uv"
    return str(local) if local.exists() else shutil.which("uv") or pytest.skip("uv is not there")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, the sdist and trans as a single file."""
    folder = tmp_path_factory.mktemp("dist")
    made = run(str(ROOT / "tools" / "dist.sh"), str(folder), "trans")
    assert made.returncode == 0, made.stderr
    return folder


def test_wheel_and_sdist_have_protos_and_templates(dist: Path) -> None:
    """Everything that is no Python and that commands need; nothing of the tests."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        str(path.relative_to(ROOT))
        for package in ("kit", "apps", "api")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"api/trans/v1/trans.proto", "kit/etcd/pb/etcd.proto", "kit/py.typed"} <= wanted
    assert wanted <= in_wheel
    assert wanted | {"pyproject.toml", "README.md", "configs/config.yaml"} <= in_sdist
    assert not [name for name in in_wheel if name.startswith("tests/")]


def test_a_clean_environment_has_all_that_needs_no_extra(dist: Path, tmp_path: Path) -> None:
    """The commands start, and every module is imported unless it is one for an extra."""
    (wheel,) = dist.glob("*.whl")
    home = tmp_path / "venv"
    made = run(uv(), "venv", "--quiet", "--python", sys.executable, str(home))
    assert made.returncode == 0, made.stderr
    python = str(home / "bin" / "python")
    locked = ("--constraint", str(ROOT / "requirements.lock"))
    put = run(uv(), "pip", "install", "--quiet", "--python", python, *locked, str(wheel))
    assert put.returncode == 0, put.stderr

    shown = run(str(home / "bin" / "kit"), "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert {"run", "dev", "doctor", "completion"} <= set(
        re.findall(r"^  (\w+) ", shown.stdout, re.M)
    )
    version = run(str(home / "bin" / "coordinator"), "-v", cwd=tmp_path)
    assert version.stdout.startswith("dtm version: v")

    missing = run(python, "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path)
    assert missing.returncode == 0, missing.stderr
    for module, name in json.loads(missing.stdout).items():
        assert name.partition(".")[0] in EXTRAS, f"{module} needs {name}, which no extra brings"
        assert module.count(".") > 1, f"{module} is a concept and must not need {name}"


async def test_trans_as_a_single_file_serves(dist: Path, tmp_path: Path) -> None:
    """With no environment, no checkout, and its code unpacked where SHIV_ROOT says."""
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(trans_config(f"127.0.0.1:{port}", database=tmp_path / "trans.db"))
    owner: Processes
    async with processes(tmp_path) as owner:
        trans = await owner.start(
            "trans.pyz",
            *(sys._base_executable, str(dist / "trans.pyz"), "-conf", str(config)),
            env={"SHIV_ROOT": str(tmp_path / "shiv"), "PYTHONNOUSERSITE": "1"},
        )
        await trans.listens(port, within=60)
        assert await trans.stop() == 0


def test_another_python_is_told_which_one_it_takes(dist: Path, tmp_path: Path) -> None:
    """In one line, not by an import that fails somewhere inside."""
    python, version = another_python()
    done = subprocess.run(
        [python, str(dist / "trans.pyz"), "-version"],
        capture_output=True,
        text=True,
        check=False,
        env={"SHIV_ROOT": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(f"made for Python {ours}, and this is {version}; start it with")


def test_an_old_python_is_refused_the_wheel(dist: Path, tmp_path: Path) -> None:
    """By the installer, which says what the wheel wants."""
    (wheel,) = dist.glob("*.whl")
    (tmp_path / "in.txt").write_text(f"kit @ {wheel.as_uri()}\n")
    wanted = ("--python-version", "3.10", "--no-header", "--offline")
    done = run(uv(), "pip", "compile", *wanted, str(tmp_path / "in.txt"))
    assert done.returncode != 0
    assert "Python>=3.11" in done.stderr.replace(" ", "")


async def test_doctor_names_an_interpreter_that_is_too_old(tmp_path: Path) -> None:
    """A real one, which has neither kit nor what kit is written in."""
    python, version = another_python(older_than=(3, 11))
    first, *_ = await check_python(python, tmp_path, {})
    assert first.state == "failed"
    assert re.match(
        rf"is Python {version}\.\d+, and kit needs >=3\.11; make the \.venv", first.text
    )
