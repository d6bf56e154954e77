"""dynaconf as a source."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kit.config import Config, ConfigError, Duration, DynaconfSource

dynaconf = pytest.importorskip("dynaconf")


class Grpc(BaseModel):
    addr: str
    timeout: Duration = 1.0
    read_size: int = Field(0, alias="ReadSize")
    workers: int = 1
    debug: bool = False


class Server(BaseModel):
    grpc: Grpc
    http: Grpc | None = None


class Settings(BaseModel):
    server: Server
    name: str = ""
    items: list[str] = []


def settings(*files: Path, **options: Any) -> Any:
    names = [str(file) for file in files]
    wanted = {"merge_enabled": True, "envvar_prefix": "KITDYN", **options}
    return dynaconf.Dynaconf(settings_files=names, **wanted)


async def loaded(*files: Path) -> Config:
    config = Config(DynaconfSource(settings(*files)), environ={"ZONE": "b"})
    await config.load()
    return config


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('name = "shop-${ZONE:a}"\n[server.grpc]\naddr = ":1"\nReadSize = 5\n')
    return path


async def test_files_and_variables_arrive_merged_under_small_keys(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second file adds to the first, variables to both; values have types, keys their case."""
    second = tmp_path / "more.yaml"
    second.write_text("server:\n  http: {addr: ':2'}\nitems: [a, b]\n")
    monkeypatch.setenv("KITDYN_SERVER__GRPC__WORKERS", "8")
    monkeypatch.setenv("KITDYN_SERVER__GRPC__ADDR", "h:9")
    monkeypatch.setenv("KITDYN_SERVER__GRPC__DEBUG", "true")
    found = (await loaded(file, second)).scan(Settings)
    assert found == Settings(
        server=Server(
            grpc=Grpc(addr="h:9", ReadSize=5, workers=8, debug=True), http=Grpc(addr=":2")
        ),
        name="shop-b",
        items=["a", "b"],
    )


async def test_what_is_wrong_names_the_path_and_no_line_that_nobody_wrote(file: Path) -> None:
    """dynaconf does not tell where a value came from."""
    write(file, '[server.grpc]\naddr = ":1"\nworkers = "many"\n')
    config = await loaded(file)
    with pytest.raises(ConfigError, match=r"^dynaconf: server.grpc.workers: .*many"):
        config.scan(Settings)


async def test_a_file_that_is_missing_or_broken_is_an_error(file: Path, tmp_path: Path) -> None:
    """dynaconf itself passes over the one."""
    with pytest.raises(ConfigError, match=r"dynaconf: no such file: .*nowhere\.toml"):
        await loaded(file, tmp_path / "nowhere.toml")
    source = DynaconfSource(settings(file))
    write(file, "[server\n")
    with pytest.raises(ConfigError, match="dynaconf: "):
        await source.load()


async def test_a_load_reads_again(file: Path) -> None:
    """A changed file is seen when another source makes the configuration reload."""
    source = DynaconfSource(settings(file))
    config = Config(source)
    await config.load()
    write(file, '[server.grpc]\naddr = ":7"\n')
    await config.load()
    assert config.value("server.grpc.addr").raw == ":7"
    async with source.watch() as changes:
        waiting = asyncio.ensure_future(anext(changes))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


def test_settings_that_would_drop_sections_are_refused(file: Path) -> None:
    """Without merge_enabled the last file with a section is the only one."""
    with pytest.raises(ValueError, match="merge_enabled=True"):
        DynaconfSource(settings(file, merge_enabled=False))
