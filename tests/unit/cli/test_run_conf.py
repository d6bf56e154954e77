"""How a service is led to another etcd than the one its configuration names."""

from pathlib import Path

import pytest

from kit.cli.run_conf import overrides
from kit.cli.run_find import Service

OURS = "127.0.0.1:40001"


async def led(folder: Path, text: str, etcd: str = OURS) -> dict[str, str]:
    """The variables for ``my-bank`` with that configuration, without the common one."""
    conf = folder / "config.yaml"
    conf.write_text(text)
    variables = await overrides(Service("my-bank", folder, "main", conf), etcd)
    assert variables.pop("ETCD_ENDPOINTS") == etcd
    return variables


async def test_every_value_that_names_an_etcd_follows(tmp_path: Path) -> None:
    """The usual one and the configured ones, in lists and in targets; nothing else."""
    text = """
    registry: {etcd: {endpoints: ['h1:2379', 'h2:2379']}}
    targets: ['discovery://h1:2379/a', 'discovery://127.0.0.1:2379/b']
    dtm: discovery://localhost:2379/dtmservice
    server: {grpc: {addr: '127.0.0.1:23790', timeout: 1s}}
    other: h1:23791
    """
    assert await led(tmp_path, text) == {
        "MY_BANK_REGISTRY_ETCD_ENDPOINTS": OURS,
        "MY_BANK_TARGETS": f"discovery://{OURS}/a,discovery://{OURS}/b",
        "MY_BANK_DTM": f"discovery://{OURS}/dtmservice",
    }


async def test_a_variable_that_is_set_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was set by somebody who knows."""
    monkeypatch.setenv("MY_BANK_DTM", "10.0.0.5:36790")
    assert await led(tmp_path, "dtm: discovery://127.0.0.1:2379/dtmservice") == {}


async def test_a_configuration_that_names_this_etcd_is_left_alone(tmp_path: Path) -> None:
    """As in a folder whose etcd got its usual port."""
    text = "registry: {etcd: {endpoints: '127.0.0.1:2379'}}\nother: localhost:2379\n"
    assert await led(tmp_path, text, "127.0.0.1:2379") == {}
