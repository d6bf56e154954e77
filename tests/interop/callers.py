"""One way to call a peer, whether the kit calls or the Go program does."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.errors import Error
from kit.metadata import Metadata, client_metadata
from kit.middleware import metadata as metadata_middleware
from kit.registry import Discovery
from kit.registry.etcd import EtcdRegistry
from kit.transport import Handler, current_call
from kit.transport.grpc import GrpcClient
from kit.transport.grpc.engine import ClientTls
from kit.transport.grpc.engines import EngineName
from kit.transport.http import HttpClient
from kit.transport.http.client_streams import events
from tests.interop import peer_pb2 as pb
from tests.interop import peer_pb2_grpc as pb_grpc
from tests.interop.build import go_program
from tests.interop.kratos_service import SERVICE, Address, Identity
from tests.interop.peers import Peer, running

Via: TypeAlias = Literal["grpc", "http"]
Who: TypeAlias = Literal["go", "lean", "grpcio"]

PATIENCE = 20.0
"""Seconds for a call, as in ``go/kratos/main.go``: nothing here is about speed."""


@dataclass
class Answer:
    """What came back, of either outcome."""

    reply: pb.LookReply | None = None
    values: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    error: tuple[int, str, str, dict[str, str]] | None = None
    """Code, reason, message, metadata."""
    encoding: str = ""
    """``compressed`` when a message of the answer was; only Go tells."""


class KitCaller:
    """A client of the kit for each transport; what :class:`GoCaller` can, it can as well."""

    def __init__(self, over_grpc: GrpcClient, over_http: dict[str, HttpClient]) -> None:
        self._grpc = over_grpc
        self._http = over_http
        self._stub: Any = pb_grpc.PeerStub(over_grpc.channel)

    async def call(
        self,
        via: Via,
        method: str,
        request: pb.LookRequest | pb.FailRequest | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
        codec: str = "",
    ) -> Answer:
        """A unary call; ``metadata`` is put where the metadata middleware takes it from."""
        request = request or pb.LookRequest()
        token = client_metadata.set(Metadata((metadata or {}).items()))
        answer = Answer()
        headers = _seen.set(answer.headers)
        try:
            if via == "grpc":
                answer.reply = await getattr(self._stub, method)(request, timeout=timeout)
            else:
                client = self._http[codec or "json"]
                rule = SERVICE.methods_by_name[method]
                answer.reply = await client.invoke(rule, request, timeout=timeout)
        except Error as error:
            answer.error = (error.code, error.reason, error.message, error.metadata)
        finally:
            _seen.reset(headers)
            client_metadata.reset(token)
        return answer

    async def stream(self, method: str, *values: int) -> Answer:
        """A stream over gRPC."""
        answer = Answer()
        numbers = [pb.Number(value=value) for value in values]
        try:
            if method == "Sum":
                answer.values = [(await self._stub.Sum(numbers)).value]
            elif method == "Count":
                async for number in self._stub.Count(numbers[0]):
                    answer.values.append(number.value)
            else:
                async for number in self._stub.Double(numbers):
                    answer.values.append(number.value)
        except Error as error:
            answer.error = (error.code, error.reason, error.message, error.metadata)
        return answer

    async def events(self, to: int) -> Answer:
        """Count over HTTP."""
        answer = Answer()
        rule = SERVICE.methods_by_name["Count"]
        try:
            async for number in events(self._http["json"], rule, pb.Number(value=to)):
                answer.values.append(number.value)
        except Error as error:
            answer.error = (error.code, error.reason, error.message, error.metadata)
        return answer

    async def health(self) -> str:
        """Ask once for the health of all."""
        stub: Any = health_pb2_grpc.HealthStub(self._grpc.channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest())
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

    async def watch(self) -> AsyncIterator[str]:
        """The health of all, until it no longer serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._grpc.channel)
        async with stub.Watch(health_pb2.HealthCheckRequest()) as statuses:
            async for reply in statuses:
                name = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
                yield name
                if name != "SERVING":
                    return


class GoCaller:
    """The Go program, asked in lines of JSON."""

    def __init__(self, peer: Peer, url: str) -> None:
        self._peer = peer
        self._url = url

    async def call(
        self,
        via: Via,
        method: str,
        request: pb.LookRequest | pb.FailRequest | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
        codec: str = "",
        gzip: bool = False,
        cancel: float | None = None,
    ) -> Answer:
        """As of every caller; ``cancel`` gives the call up after so many seconds."""
        found = await self._ask(
            via=via,
            method=method,
            request=json_format.MessageToDict(request or pb.LookRequest()),
            metadata=dict(metadata or {}),
            timeoutMs=int((timeout or 0) * 1000),
            cancelMs=int((cancel or 0) * 1000),
            codec=codec,
            gzip=gzip,
        )
        answer = _answer(found)
        if "reply" in found:
            answer.reply = json_format.ParseDict(found["reply"], pb.LookReply())
        return answer

    async def stream(self, method: str, *values: int) -> Answer:
        return _answer(await self._ask(via="grpc", method=method, values=values))

    async def events(self, to: int) -> list[str]:
        """Count over HTTP, line by line."""
        found = await self._ask(via="http", method="Count", values=[to], url=self._url)
        assert found["headers"]["content-type"] == "text/event-stream"
        return list(found["texts"])

    async def health(self) -> str:
        (status,) = (await self._ask(via="health", method="Check"))["texts"]
        return str(status)

    async def watch(self) -> AsyncIterator[str]:
        (first,) = (await self._ask(via="health", method="Watch"))["texts"]
        yield first
        last = json.loads(await self._peer.line())
        yield last["texts"][-1]

    async def _ask(self, **command: Any) -> dict[str, Any]:
        await self._peer.tell(json.dumps(command))
        found: dict[str, Any] = json.loads(await self._peer.line())
        return found


def _answer(found: dict[str, Any]) -> Answer:
    answer = Answer(values=found.get("values") or [], headers=found.get("headers") or {})
    answer.encoding = found.get("encoding", "")
    if (error := found.get("error")) is not None:
        answer.error = (
            *(error["code"], error["reason"], error["message"]),
            error["metadata"] or {},
        )
    return answer


@asynccontextmanager
async def calling(
    who: Who, address: Address, *, tls: Identity | None = None, etcd: str = ""
) -> AsyncIterator[Any]:
    """A caller of ``address``; of whatever is announced as ``peer`` when ``etcd`` is given."""
    async with AsyncExitStack() as stack:
        if who == "go":
            over_grpc, over_http = address.grpc, address.http
            url = f"{'http' if tls is None else 'https'}://{address.http}"
            flags = ["-ca", tls.ca, "-server", "peer.test"] if tls else []
            if etcd:
                over_grpc = over_http = "discovery:///peer"
                flags += ["-etcd", etcd]
            command = (go_program("kratos"), "call", "-grpc", over_grpc, "-http", over_http)
            yield GoCaller(await stack.enter_async_context(running("go", *command, *flags)), url)
            return
        registry: Discovery | None = None
        if etcd:
            registry = await stack.enter_async_context(EtcdRegistry(etcd))
        yield await _kit_caller(stack, who, address, tls, registry)


async def _kit_caller(
    stack: AsyncExitStack,
    engine: EngineName,
    address: Address,
    tls: Identity | None,
    registry: Discovery | None,
) -> KitCaller:
    around = [_looks_at_headers, metadata_middleware.client()]
    trust = context = None
    if tls is not None:
        with open(tls.ca, "rb") as file:  # noqa: ASYNC230  (small, and a test)
            trust = ClientTls(file.read(), server_name="peer.test")
        context = ssl.create_default_context(cafile=tls.ca)
        context.check_hostname = False  # it has no way to name another host than the one it dials
    over_grpc = GrpcClient(
        "discovery:///peer" if registry else address.grpc,
        discovery=registry,
        middleware=around,
        engine=engine,
        tls=trust,
        timeout=PATIENCE,
    )
    over_http = {
        codec: HttpClient(
            "discovery:///peer" if registry else address.http,
            discovery=registry,
            middleware=around,
            codec=codec,
            tls=context,
            timeout=PATIENCE,
        )
        for codec in ("json", "proto")
    }
    for client in (over_grpc, *over_http.values()):
        await stack.enter_async_context(client)
    return KitCaller(over_grpc, over_http)


_seen: ContextVar[dict[str, str] | None] = ContextVar("seen_headers", default=None)
"""Where the headers of the running call's answer go."""


def _looks_at_headers(handler: Handler) -> Handler:
    async def call(request: Any) -> Any:
        reply = await handler(request)
        info, seen = current_call(), _seen.get()
        if info is not None and seen is not None:
            seen.update(info.reply_headers.items())
        return reply

    return call


@asynccontextmanager
async def go_peer(
    *, next_address: str = "", tls: Identity | None = None, etcd: str = "", name: str = "go-1"
) -> AsyncIterator[tuple[Address, Peer]]:
    """The Go program as a server."""
    flags = ["-id", name]
    if next_address:
        flags += ["-next", next_address]
    if tls is not None:
        flags += ["-cert", tls.certificate, "-key", tls.private_key]
    if etcd:
        flags += ["-etcd", etcd]
    async with running("go", go_program("kratos"), "serve", *flags) as peer:
        yield Address.of(json.loads(await peer.line())), peer
