"""Configuration edited under running programs, the way editors and deployments edit."""

import re
from pathlib import Path

import pytest

from kit.ports import free_port
from tests.processes import COORDINATOR, TRANS, Process, Processes, coordinator_config, trans_config


def write(path: Path, text: str) -> None:
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    """Atomic: beside, then in place of it."""
    beside = path.with_name(".config.yaml.new")
    beside.write_text(text)
    beside.rename(path)


def vim(path: Path, text: str) -> None:
    """The old file becomes a backup, the new one is written, the backup goes."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return trans_config(f"127.0.0.1:{free_port()}", "", tmp_path / "trans.db")


async def started(run: Processes, conf: Path) -> Process:
    trans = await run.start("trans", TRANS, "-conf", str(conf))
    await trans.says(r"server listening on")
    return trans


async def test_the_level_follows_the_file_through_every_kind_of_edit(
    run: Processes, base: str, tmp_path: Path
) -> None:
    """One process, edit after edit; each is heard, and nonsense between them changes nothing."""
    path = tmp_path / "config.yaml"
    path.write_text(base)
    trans = await started(run, path)
    for edit, level in (
        (write, "debug"),
        (rename_over, "warn"),
        (vim, "debug"),
        (delete_and_create, "error"),
        (rename_over, "info"),
    ):
        # A file that is read between the steps of an edit is empty, and says info.
        said = trans.output.count(f"log level {level}, was")
        edit(path, f"{base}log: {{level: {level}}}\n")
        await trans.says(rf"WARN msg=log level {level}, was \w+: log\.level", times=said + 1)

    rename_over(path, f"{base}log:\n  level: loud\n")
    line = base.count("\n") + 2
    await trans.says(
        rf"ERROR msg=config not reloaded, the old one stays: {re.escape(str(path))}:{line}: "
        r"log\.level: .*loud"
    )
    vim(path, f"{base}log: [\n")
    await trans.says(
        rf"ERROR msg=config not reloaded, the old one stays: {re.escape(str(path))}:\d+:\d+: "
    )
    path.unlink()
    await trans.says(r"ERROR msg=config not reloaded, the old one stays: .*no such file")
    said = trans.output.count("log level debug, was")
    write(path, f"{base}log: {{level: debug}}\n")
    await trans.says(r"INFO msg=config is right again")
    await trans.says(r"WARN msg=log level debug, was \w+: log\.level", times=said + 1)
    said = trans.output.count("log level info, was debug")
    write(path, base)
    await trans.says(r"WARN msg=log level info, was debug: log\.level", times=said + 1)
    assert await trans.stop() == 0, trans.output


async def test_a_config_map_of_kubernetes_is_followed(
    run: Processes, base: str, tmp_path: Path
) -> None:
    """``..data`` is turned to another folder; the service was given the folder of links."""
    mounted = tmp_path / "mounted"
    for version, level in (("..v1", "info"), ("..v2", "debug"), ("..v3", "warn")):
        (mounted / version).mkdir(parents=True)
        (mounted / version / "config.yaml").write_text(f"{base}log: {{level: {level}}}\n")
    (mounted / "..data").symlink_to("..v1")
    (mounted / "config.yaml").symlink_to("..data/config.yaml")
    trans = await started(run, mounted)
    for version, change in (("..v2", "debug, was info"), ("..v3", "warn, was debug")):
        (mounted / "..data_tmp").symlink_to(version)
        (mounted / "..data_tmp").rename(mounted / "..data")
        await trans.says(rf"WARN msg=log level {change}: log\.level")
    assert await trans.stop() == 0, trans.output


async def test_the_coordinators_level_follows_its_file(run: Processes, tmp_path: Path) -> None:
    """``LogLevel``, beside transactions that go on."""
    path = tmp_path / "coordinator.yaml"
    text = coordinator_config(free_port(), tmp_path / "coordinator.db")
    path.write_text(text)
    coordinator = await run.start("coordinator", COORDINATOR, "-c", str(path))
    await coordinator.says(r"server listening on")
    rename_over(path, f"{text}LogLevel: debug\n")
    await coordinator.says(r"log level debug, was info: LogLevel")
    rename_over(path, f"{text}LogLevel: verbose\n")
    await coordinator.says(r"config not reloaded, the old one stays: .*coordinator\.yaml:\d+: LogL")
    assert await coordinator.stop() == 0, coordinator.output
