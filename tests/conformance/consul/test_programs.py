"""The transfer with Consul in the place of etcd, with real processes."""

import asyncio
from pathlib import Path

import pytest

from kit.consul import ConsulClient
from kit.ports import free_port
from kit.testing.consul import ConsulServer
from tests.engines import chosen
from tests.processes import COORDINATOR, TRANS, coordinator_config, processes


@pytest.mark.usefixtures("engine")
async def test_the_transfer_finds_its_way_through_consul(
    consul: ConsulServer, client: ConsulClient, tmp_path: Path
) -> None:
    """Coordinator and service announce themselves there, the client finds both, all leave clean."""
    dtm_port, port = free_port(), free_port()
    coordinator_file, trans_file = tmp_path / "coordinator.yaml", tmp_path / "config.yaml"
    coordinator_file.write_text(
        coordinator_config(dtm_port, tmp_path / "coordinator.db")
        + f"  Target: consul://{consul.address}/dtmservice\n"
        + f"  EndPoint: grpc://127.0.0.1:{dtm_port}\n"
    )
    trans_file.write_text(
        f"server: {{grpc: {{addr: '127.0.0.1:{port}', engine: {chosen()}}}}}\n"
        f"data: {{database: {{source: {tmp_path / 'trans.db'}}}}}\n"
        f"registry: {{consul: {{address: '{consul.address}'}}}}\n"
    )

    async def wait_for(name: str, number: int) -> None:
        async with asyncio.timeout(20):
            while True:
                found = await client.get("health", "service", name, query={"passing": "1"})
                if len(found.value) == number:
                    return
                await asyncio.sleep(0.02)

    async with processes(tmp_path) as run:
        coordinator = await run.start("coordinator", COORDINATOR, "-c", str(coordinator_file))
        trans = await run.start("trans", TRANS, "-conf", str(trans_file))
        await wait_for("dtmservice", 1)
        await wait_for("trans", 1)
        url = f"consul://{consul.address}"
        done = await run.client(f"{url}/dtmservice", f"{url}/trans")
        assert done.handle.returncode == 0, done.output
        await trans.says("transfer in 30 cents to 2")
        assert await trans.stop() == 0, trans.output
        assert await coordinator.stop() == 0, coordinator.output
        await wait_for("dtmservice", 0)
        await wait_for("trans", 0)
