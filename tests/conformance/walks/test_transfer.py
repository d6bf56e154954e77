"""The main job with real processes, as a newcomer walks through it (design.md §2)."""

import asyncio
import re
import socket
import time
import uuid
from collections.abc import Callable

import grpc.aio
import pytest

from kit.etcd import EtcdClient
from kit.ports import free_port
from kit.testing.etcd import EtcdServer
from tests.branches import BranchCall, serving, submission, submit
from tests.processes import READY_WITHIN, TRANS, Process, Processes, trans_config

STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"
RETRY_INTERVAL = 1

pytestmark = pytest.mark.usefixtures("engine")


def transfers(process: Process) -> list[str]:
    """What the transfer service did, without the time."""
    return re.findall(rf"^{STAMP} (transfer .+)$", process.output, re.MULTILINE)


async def listed(keys: EtcdClient, service: str, number: int) -> dict[str, str]:
    """Keys and values of ``service``, once there are ``number`` of them."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            items = (await keys.get_prefix(f"/microservices/{service}/")).items
            if len(items) == number:
                return {item.key.decode(): item.value.decode() for item in items}
            await asyncio.sleep(0.02)


async def eventually(holds: Callable[[], bool], within: float) -> None:
    """Wait until ``holds``."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.02)


async def test_transfer_through_etcd(run: Processes, etcd: EtcdServer, keys: EtcdClient) -> None:
    """Four log lines byte for byte, two keys with kratos' exact JSON, and clean ends."""
    dtm_port, port = free_port(), free_port()
    coordinator = await run.coordinator(dtm_port, etcd=etcd.endpoint)
    config = run.folder / "config.yaml"
    config.write_text(trans_config(f"0.0.0.0:{port}", etcd.endpoint))
    trans = await run.start("trans", TRANS, "-conf", str(config))

    ((key, value),) = (await listed(keys, "trans", 1)).items()
    host = socket.gethostname()
    assert key == f"/microservices/trans/{host}"
    assert re.fullmatch(
        rf'{{"id":"{re.escape(host)}","name":"trans","version":"[^"]+","metadata":{{}},'
        rf'"endpoints":\["grpc://[^/"]+:{port}"\]}}',
        value,
    ), value
    ((key, value),) = (await listed(keys, "dtmservice", 1)).items()
    instance = key.removeprefix("/microservices/dtmservice/")
    assert str(uuid.UUID(instance)) == instance
    assert value == (
        f'{{"id":"{instance}","name":"dtmservice","version":"","metadata":null,'
        f'"endpoints":["grpc://127.0.0.1:{dtm_port}"]}}'
    )

    client = await run.client(
        f"discovery://{etcd.endpoint}/dtmservice", f"discovery://{etcd.endpoint}/trans"
    )
    assert client.handle.returncode == 0, client.output
    assert re.fullmatch(r"gid: \S+\nresult: succeed\n", client.output)
    await trans.says("transfer in")
    assert re.fullmatch(
        r"INFO msg=config loaded: config\.yaml format: yaml\n"
        rf"INFO msg=\[gRPC\] server listening on: \[::\]:{port}\n"
        rf"{STAMP} transfer out 30 cents from 1\n"
        rf"{STAMP} transfer in 30 cents to 2\n",
        trans.output,
    ), trans.output

    assert await trans.stop() == 0, trans.output
    assert await listed(keys, "trans", 0) == {}
    assert trans.lines[4:] == ["INFO msg=[gRPC] server stopping"]
    assert await coordinator.stop() == 0, coordinator.output
    assert await listed(keys, "dtmservice", 0) == {}


async def test_transfer_without_etcd(run: Processes) -> None:
    """Direct: addresses in place of names, an empty Target, and nothing else is running."""
    dtm_port, port = free_port(), free_port()
    await run.coordinator(dtm_port)
    trans = await run.trans(port)
    client = await run.client(
        f"localhost:{dtm_port}", f"localhost:{port}", "-amount", "7", "-from", "3", "-to=4"
    )
    assert client.handle.returncode == 0, client.output
    await trans.says("transfer in")
    assert transfers(trans) == ["transfer out 7 cents from 3", "transfer in 7 cents to 4"]


async def test_a_transfer_waits_for_a_service_that_is_down(run: Processes) -> None:
    """The client is told that it is not done; once the service is there the transfer happens."""
    dtm_port, port = free_port(), free_port()
    await run.coordinator(dtm_port)
    client = await run.client(f"localhost:{dtm_port}", f"localhost:{port}")
    assert client.handle.returncode == 1
    assert re.search(r"^result: not finished: .", client.output, re.MULTILINE), client.output
    assert "Traceback" not in client.output

    urls = [f"127.0.0.1:{port}/api.trans.v1.Trans/{name}" for name in ("TransOut", "TransIn")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{dtm_port}") as channel:
        began = time.monotonic()
        await submit(channel, submission("later", *urls, retry_interval=RETRY_INTERVAL))
    trans = await run.trans(port)
    # Each unanswered call doubles the interval: it takes at most twice, and a tenth, as long as
    # nobody was there.
    away = time.monotonic() - began
    await trans.says("transfer in", within=2.2 * (away + RETRY_INTERVAL) + 10)
    assert transfers(trans) == ["transfer out 30 cents from 1", "transfer in 30 cents to 1"]


async def test_a_killed_coordinator_goes_on_where_it_was(run: Processes) -> None:
    """kill -9 between out and in: in happens after the restart, and out is not lost."""
    port = free_port()
    hangs = asyncio.Event()

    async def behaviour(call: BranchCall) -> None:
        if call.method == "TransIn" and not hangs.is_set():
            hangs.set()
            await asyncio.Event().wait()  # the coordinator dies while it waits for this answer

    async with serving(behaviour) as branches:
        urls = [branches.url("TransOut"), branches.url("TransIn")]
        coordinator = await run.coordinator(port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await submit(channel, submission("g1", *urls, retry_interval=RETRY_INTERVAL))
            async with asyncio.timeout(60):
                await hangs.wait()
        await coordinator.kill()
        assert branches.count("g1")["02"] == 1
        coordinator = await run.coordinator(port)
        await branches.until(lambda: branches.count("g1")["02"] > 1, within=60)
        await coordinator.says("gid=g1 .*status=succeed")
        assert branches.count("g1")["02"] == 2
        assert branches.count("g1")["01"] in {1, 2}  # once more is allowed, see design.md §5


async def test_two_instances_share_the_calls(
    run: Processes, etcd: EtcdServer, keys: EtcdClient
) -> None:
    """Calls are spread over both; when one is killed the other takes over without a failure."""
    dtm_port = free_port()
    coordinator = await run.coordinator(dtm_port, etcd=etcd.endpoint)
    first = await run.trans(free_port(), etcd=etcd.endpoint, host="one")
    second = await run.trans(free_port(), etcd=etcd.endpoint, host="two")
    await listed(keys, "trans", 2)
    base = f"discovery://{etcd.endpoint}/trans/api.trans.v1.Trans"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{dtm_port}") as channel:

        async def transfer(gid: str) -> None:
            request = submission(gid, f"{base}/TransOut", f"{base}/TransIn", wait_result=True)
            await submit(channel, request)

        for number in range(10):
            await transfer(f"both-{number}")
        await eventually(lambda: len(transfers(first) + transfers(second)) == 20, within=30)
        assert min(len(transfers(first)), len(transfers(second))) >= 5

        await first.kill()
        before = len(transfers(second))
        for number in range(10):
            await transfer(f"one-{number}")
        await eventually(lambda: len(transfers(second)) == before + 20, within=30)
    assert coordinator.running
