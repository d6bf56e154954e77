"""The peer's service on the kit, with gRPC and HTTP in one application, as the Go one has it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from kit import App
from kit.errors import Error
from kit.metadata import server_metadata
from kit.middleware import metadata
from kit.middleware.recovery import recovery
from kit.registry import Registrar
from kit.transport import current_call
from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.grpc.engine import ServerTls
from kit.transport.grpc.engines import EngineName
from kit.transport.http import HttpServer
from tests.interop import peer_pb2 as pb
from tests.interop import peer_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Peer"]
METADATA = {"zone": "a<b", "weight": "10"}
"""What both peers announce about themselves."""


@dataclass(frozen=True)
class Address:
    """Where a peer serves: ``host:port`` of each transport."""

    grpc: str
    http: str

    @classmethod
    def of(cls, endpoints: Any) -> "Address":
        """From what it announces, such as ``grpc://h:1`` and ``http://h:2``."""
        found = {urlsplit(url).scheme[:4]: urlsplit(url).netloc for url in endpoints}
        return cls(found["grpc"], found["http"])


@dataclass(frozen=True)
class Identity:
    """PEM files of a server named ``peer.test``, and whom its clients trust."""

    certificate: str
    private_key: str
    ca: str

    @classmethod
    def made_in(cls, folder: Path) -> "Identity":
        """A new one."""
        ca = trustme.CA()
        leaf = ca.issue_cert("peer.test")
        ca.cert_pem.write_to_path(folder / "ca.pem")
        leaf.private_key_pem.write_to_path(folder / "key.pem")
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(folder / "cert.pem", append=True)
        return cls(*(str(folder / f"{name}.pem") for name in ("cert", "key", "ca")))


class PeerService(pb_grpc.PeerServicer):
    """Does what ``go/kratos/service.go`` does; ``next_client`` is whom Relay asks."""

    def __init__(self, next_client: GrpcClient | None = None) -> None:
        self._next = next_client
        self.cancelled = asyncio.Event()

    async def Look(self, request: pb.LookRequest, context: Any) -> pb.LookReply:  # noqa: N802
        call, brought = current_call(), server_metadata.get()
        assert call is not None
        assert brought is not None
        call.reply_headers.set("x-peer", "kit")
        call.reply_headers.set("x-endpoint", call.endpoint)
        left = context.time_remaining()
        return pb.LookReply(
            seen=request,
            metadata={key: value for key, value in brought.items() if key.startswith("x-md-")},
            left_ms=0 if left is None else int(left * 1000),
            operation=call.operation,
        )

    async def LookUp(self, request: pb.LookRequest, context: Any) -> pb.LookReply:  # noqa: N802
        return await self.Look(request, context)

    async def LookAt(self, request: pb.LookRequest, context: Any) -> pb.LookReply:  # noqa: N802
        return await self.Look(request, context)

    async def Relay(self, request: pb.LookRequest, _context: Any) -> pb.LookReply:  # noqa: N802
        assert self._next is not None
        reply: pb.LookReply = await pb_grpc.PeerStub(self._next.channel).Look(request)
        return reply

    async def Fail(self, request: pb.FailRequest, _context: Any) -> pb.LookReply:  # noqa: N802
        if not request.code:
            raise ValueError(request.message)
        raise Error(request.code, request.reason, request.message, dict(request.metadata))

    async def Hang(self, _request: pb.LookRequest, _context: Any) -> pb.LookReply:  # noqa: N802
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def Count(self, request: pb.Number, _context: Any) -> AsyncIterator[pb.Number]:  # noqa: N802
        for value in range(1, request.value + 1):
            yield pb.Number(value=value)
        if request.value % 2:
            raise Error(409, "ODD", "an odd number", {"after": "all"})

    async def Sum(self, requests: AsyncIterator[pb.Number], _context: Any) -> pb.Number:  # noqa: N802
        return pb.Number(value=sum([number.value async for number in requests]))

    async def Double(  # noqa: N802
        self, requests: AsyncIterator[pb.Number], _context: Any
    ) -> AsyncIterator[pb.Number]:
        async for number in requests:
            yield pb.Number(value=2 * number.value)


@asynccontextmanager
async def kit_peer(
    engine: EngineName,
    *,
    next_address: str = "",
    tls: "Identity | None" = None,
    registrar: Registrar | None = None,
    service: PeerService | None = None,
    name: str = "kit-1",
) -> AsyncIterator[Address]:
    """The service as an application, with the middleware of the Go one."""
    following = None
    if next_address:
        around = [metadata.client()]
        following = GrpcClient(next_address, engine=engine, middleware=around, timeout=20.0)
    service = service or PeerService(following)
    around = [recovery(), metadata.server()]
    over_grpc = GrpcServer(address="127.0.0.1:0", middleware=around, engine=engine)
    over_http = HttpServer(address="127.0.0.1:0", middleware=around)
    if tls is not None:
        identity = ServerTls.from_files(tls.certificate, tls.private_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.private_key)
        over_grpc = GrpcServer(
            address="127.0.0.1:0", middleware=around, engine=engine, tls=identity
        )
        over_http = HttpServer(address="127.0.0.1:0", middleware=around, tls=context)
    pb_grpc.add_PeerServicer_to_server(service, over_grpc.services)
    over_http.add_service(SERVICE, service)
    started = asyncio.Event()

    async def up() -> None:
        started.set()

    app = App(
        id=name,
        name="peer",
        version="v1.0",
        metadata=METADATA,
        servers=[over_grpc, over_http],
        registrar=registrar,
        after_start=[up],
        signals=(),
        stop_timeout=5.0,
    )
    running = asyncio.create_task(app.run())
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not started.is_set():
            waiting.cancel()
            await running  # says why it did not start
        yield Address.of(app.endpoints)
    finally:
        app.stop()
        await running
        if following is not None:
            await following.aclose()
