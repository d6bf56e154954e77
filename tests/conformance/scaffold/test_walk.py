"""From nothing to two services that call each other, as a user would, with the built wheel."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import proto_reflection_descriptor_database as reflection

from kit.ports import free_port
from kit.testing.etcd import etcd_server
from tests.conformance.scaffold.conftest import LONGEST_S, Shell
from tests.processes import Process, Processes, processes

PLACE_ORDER = '''\
    def __init__(self, bank: "bank_pb2_grpc.BankAsyncStub") -> None:
        self._bank = bank

    async def CreateOrder(
        self, request: order_pb2.CreateOrderRequest, context: Any
    ) -> order_pb2.CreateOrderReply:
        """Open an account for the customer, at the other service."""
        reply = await self._bank.OpenAccount(bank_pb2.OpenAccountRequest(name="carl", balance=7))
        return order_pb2.CreateOrderReply(id=reply.name)

'''
SERVE_ORDER = """\
    order_pb2_grpc.add_OrderServicer_to_server(order, by_grpc.services)
    order_pb2_http.register_order_http_server(by_http, order)
"""
MAKE_ORDER = """\
        client = GrpcClient("discovery:///bank", discovery=registry, timeout=30)
        order = OrderService(BankStub((await stack.enter_async_context(client)).channel))
"""
IMPORT_ORDER = "from services.shop.internal.service.order import OrderService\n"
IMPORT_BANK = """\
from kit.transport.grpc import GrpcClient

from api.bank.v1.bank_pb2_grpc import BankStub
"""


def call(address: str, method: str, request: Mapping[str, object]) -> dict[str, Any]:
    """What ``grpcurl -d request address method`` prints: types are learnt by reflection."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(reflection.ProtoReflectionDescriptorDatabase(channel))
        service, _, name = method.rpartition("/")
        described = pool.FindServiceByName(service).FindMethodByName(name)
        ask = channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        message = json_format.ParseDict(dict(request), GetMessageClass(described.input_type)())
        answer: dict[str, Any] = json_format.MessageToDict(ask(message, timeout=40))
        return answer


def http(url: str, body: Mapping[str, object] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and body of a request; a POST when there is something to send."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=40) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path) as owner:
        yield owner


class Ports:
    """Where a service listens, and its settings: with patience, for a busy machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.http, self.grpc, self.admin = free_port(), free_port(), free_port()

    def env(self, etcd: str) -> dict[str, str]:
        return {
            "HTTP_ADDR": f"127.0.0.1:{self.http}",
            "GRPC_ADDR": f"127.0.0.1:{self.grpc}",
            "ADMIN_ADDR": f"127.0.0.1:{self.admin}",
            "ETCD_ENDPOINTS": etcd,
            f"{self.name}_SERVER_HTTP_TIMEOUT": "30s",
            f"{self.name}_SERVER_GRPC_TIMEOUT": "30s",
        }


async def start(run: Processes, name: str, root: Path, module: str, env: dict[str, str]) -> Process:
    """Run a module of the project at ``root``, as ``cd root && python -m module`` does."""
    command = f"cd {root} && exec .venv/bin/python -m {module}"
    return await run.start(name, "/bin/sh", "-c", command, env=env)


async def ready(ports: Ports, process: Process) -> None:
    """Wait until the probe says so."""
    await process.listens(ports.http, ports.grpc, ports.admin, within=60)
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(http, f"http://127.0.0.1:{ports.admin}/readyz"))[0] != 200:
            await asyncio.sleep(0.05)


@pytest.mark.timeout(4 * LONGEST_S)
async def test_from_nothing_to_two_services(
    shell: Shell,
    kit_command: str,
    tmp_path: Path,
    run: Processes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """New, installed, checked, tested, started, called, and extended by a second one."""
    begun = time.monotonic()
    await asyncio.to_thread(
        shell.run, tmp_path, kit_command, "new", "bank", "--transaction=saga", "--db=sqlite"
    )
    bank = tmp_path / "bank"
    await asyncio.to_thread(shell.run, bank, "make", "setup")
    async with etcd_server() as etcd:
        ports = Ports("BANK")
        env = {**ports.env(etcd.endpoint), "DATABASE": str(tmp_path / "bank.db")}
        service = await start(run, "bank", bank, "main", env)
        await ready(ports, service)
        account = {"name": "ann", "balance": 100}
        api = f"http://127.0.0.1:{ports.http}/v1"
        status, _ = await asyncio.to_thread(http, f"{api}/accounts", account)
        assert status == 200
        with capsys.disabled():
            print(f"\nkit new -> answered call: {time.monotonic() - begun:.1f} s")

        # By reflection over gRPC, by path over HTTP; an error has its reason.
        address = f"127.0.0.1:{ports.grpc}"
        found = await asyncio.to_thread(
            call, address, "api.bank.v1.Bank/GetAccount", {"name": "ann"}
        )
        assert found == {"name": "ann", "balance": "100"}
        status, error = await asyncio.to_thread(http, f"{api}/accounts/nobody")
        assert (status, error["reason"]) == (404, "ACCOUNT_NOT_FOUND")

        # Through a coordinator of another process, which finds the service in etcd.
        await run.coordinator(free_port(), etcd=etcd.endpoint)
        await asyncio.to_thread(http, f"{api}/accounts", {"name": "bob", "balance": 100})
        transfer = {"source": "ann", "target": "bob", "amount": 30}
        status, reply = await asyncio.to_thread(http, f"{api}/transfers", transfer)
        assert status == 200, f"{reply}\n{service.output}"
        status, error = await asyncio.to_thread(
            http, f"{api}/transfers", {**transfer, "amount": 500}
        )
        assert (status, error["reason"]) == (409, "TRANSFER_REFUSED")
        for name, balance in (("ann", "70"), ("bob", "130")):
            found = await asyncio.to_thread(
                call, address, "api.bank.v1.Bank/GetAccount", {"name": name}
            )
            assert found["balance"] == balance

        # A second service beside it, a second proto, and a call from the one to the other.
        await asyncio.to_thread(add_shop, shell, bank, str(bank / ".venv" / "bin" / "kit"))
        shop_ports = Ports("SHOP")
        shop_env = shop_ports.env(etcd.endpoint)
        shop = await start(run, "shop", bank, "services.shop.main", shop_env)
        await ready(shop_ports, shop)
        status, order = await asyncio.to_thread(
            http, f"http://127.0.0.1:{shop_ports.http}/v1/orders", {}
        )
        assert (status, order) == (200, {"id": "carl"}), shop.output
        found = await asyncio.to_thread(
            call, address, "api.bank.v1.Bank/GetAccount", {"name": "carl"}
        )
        assert found["balance"] == "7"
        assert await shop.stop() == 0
        assert await service.stop() == 0
    await asyncio.to_thread(shell.run, bank, "make", "check")
    # Nothing is fetched any more: what the first installation brought is enough.
    offline = Shell({**shell.env, "UV_OFFLINE": "1"})
    said = await asyncio.to_thread(offline.run, bank, "make", "test", "ARGS=tests")
    assert "10 passed" in said


def add_shop(shell: Shell, root: Path, kit: str) -> None:
    """A service whose second proto is served by calling the bank."""
    shell.run(root, kit, "new", "services/shop", "--nomod")
    proto = "api/shop/v1/order.proto"
    shop = root / "services" / "shop"
    folder = shop / "internal" / "service"
    shell.run(root, kit, "proto", "add", proto)
    shell.run(root, kit, "proto", "client", proto)
    shell.run(root, kit, "proto", "server", proto, "-t", str(folder))

    # By hand: the method that matters, and where the stub comes from.
    written = folder / "order.py"
    text = written.read_text()
    begin, end = (text.index(f"    async def {name}Order(") for name in ("Create", "Update"))
    written.write_text(f"{text[:begin]}{PLACE_ORDER}{text[end:]}")
    edit(
        written,
        ("from api.shop.v1", "from api.bank.v1 import bank_pb2, bank_pb2_grpc\nfrom api.shop.v1"),
    )
    edit(
        shop / "internal" / "server.py",
        ("    service: ShopService,\n", "    service: ShopService,\n    order: OrderService,\n"),
        ("    admin =", f"{SERVE_ORDER}    admin ="),
        ("from api.shop", "from api.shop.v1 import order_pb2_grpc, order_pb2_http\nfrom api.shop"),
        ("from services", f"{IMPORT_ORDER}from services"),
    )
    edit(
        shop / "main.py",
        ("        yield App(", f"{MAKE_ORDER}        yield App("),
        ("settings.server, service, checks", "settings.server, service, order, checks"),
        ("\nfrom services", f"{IMPORT_BANK}{IMPORT_ORDER}from services"),
    )

    # Run again when the proto has one method more: what is written by hand stays.
    before = written.read_text()
    more = "  rpc Count(ListOrderRequest) returns (ListOrderReply);\n"
    edit(root / proto, ("  // ListOrder", f"  // Count counts.\n{more}  // ListOrder"))
    shell.run(root, kit, "proto", "client", proto)
    said = shell.run(root, kit, "proto", "server", proto, "-t", str(folder))
    assert "added Count" in said
    assert written.read_text().startswith(before.rstrip("\n"))
    shell.run(root, "make", "format")


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Replace the first place of each text."""
    text = path.read_text()
    for before, after in changes:
        assert before in text, f"{path} has no {before!r}"
        text = text.replace(before, after, 1)
    path.write_text(text)
