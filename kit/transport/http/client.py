"""An HTTP client that finds its peers itself, by descriptors or by hand.

::

    async with HttpClient("discovery:///shop", discovery=registry) as client:
        item = await client.invoke(method, GetRequest(id="7"))
        answer = await client.request("GET", "/healthz")

Source: go-kratos/kratos transport/http/client.go, resolver.go, transport/http/binding.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from yarl import URL

from kit.compat import Compat, chosen
from kit.duration import format_duration
from kit.encoding import Codec, CodecError, CodecTable, form, protojson
from kit.encoding.families import AnyDescriptor
from kit.encoding.standard import codecs as standard_codecs
from kit.errors import BadRequest, Error, GatewayTimeout, InternalServer, ServiceUnavailable
from kit.registry import Discovery, RegistryUnavailable
from kit.selector import Balancer, NoAvailableNode, Node, NodeFilter, Selector
from kit.selector.wrr import WeightedRoundRobin
from kit.transport import CallInfo, Kind, Middleware, call_info, chain
from kit.transport.dns import DnsDiscovery
from kit.transport.grpc.resolver import SUBSET, Resolver
from kit.transport.grpc.target import Target, parse_target
from kit.transport.http.asgi import PROTOCOLS
from kit.transport.http.binding import HTTP_BODY, Rule, encode_field, rules_of
from kit.transport.http.replies import error_of
from kit.transport.http.template import Template, parse_template
from kit.transport.operations import TimeLimits
from kit.transport.tls import ClientTls, client_context

DiscoveryFactory: TypeAlias = Callable[[list[str]], Discovery]
"""Takes ``host:port`` of a registry's servers, or ``consul://host:port``; who supplies it closes
what it made."""

Headers: TypeAlias = Iterable[tuple[str, str]]

FIRST_ANSWER_S = 10.0
MOST_NODES_TRIED = 5
_CONNECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, undecoded.

    Attributes:
        status: of the answer.
        headers: in lower case, the first value of each.
        body: as it came.
    """

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        """The header, or the empty text."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it will be sent to whichever node is picked."""

    verb: str
    path: str
    body: bytes = b""
    content_type: str = ""
    accept: str = ""


class Invocation:
    """How a method is called over HTTP: its main rule.

    Raises:
        ValueError: the method has no rule.
    """

    def __init__(self, method: AnyDescriptor) -> None:
        rules = rules_of(method)
        if not rules:
            raise ValueError(f"{method.full_name} has no google.api.http rule; call it over gRPC")
        self.operation = f"/{method.containing_service.full_name}/{method.name}"
        self.method = method
        self.rule: Rule = rules[-1]
        self.template: Template = parse_template(self.rule.path)
        self.reply_kind = GetMessageClass(method.output_type)
        taken = {_json_path(method.input_type, name) for name in self.template.names}
        body = self.rule.body
        self._body_field = method.input_type.fields_by_name[body] if body not in {"", "*"} else None
        if self._body_field is not None:
            taken.add(self._body_field.json_name)
        self._taken = taken

    @property
    def verb(self) -> str:
        """What to ask with; GET where the rule takes every verb."""
        return "GET" if self.rule.verb == "*" else self.rule.verb

    def path(self, request: Message) -> str:
        """Path and query of ``request``, percent-encoded.

        Raises:
            BadRequest: CODEC; a variable of the path is empty, or a field has no text.
        """
        path = self.template.build(lambda name: _text(request, name))
        if self.rule.body == "*":
            return path
        try:
            pairs = [
                pair
                for pair in form.pairs_of(request)
                if not any(
                    pair[0] == name or pair[0].startswith(f"{name}.") for name in self._taken
                )
            ]
        except CodecError as exc:
            raise BadRequest("CODEC", str(exc)) from exc
        query = form.encode_pairs(pairs)
        return f"{path}?{query}" if query else path

    def outgoing(self, request: Message, codec: Codec) -> Outgoing:
        """``request`` as it is sent.

        Raises:
            BadRequest: CODEC; it cannot be written.
        """
        accept = f"application/{codec.name}"
        path, verb = self.path(request), self.verb
        if not self.rule.body:
            return Outgoing(verb, path, accept=accept)
        part: Any = request
        if self._body_field is not None:
            part = getattr(request, self._body_field.name)
        if isinstance(part, Message) and part.DESCRIPTOR.full_name == HTTP_BODY:
            raw: Any = part
            return Outgoing(verb, path, raw.data, raw.content_type, accept)
        return Outgoing(verb, path, self.encode(request, codec), accept, accept)

    def encode(self, request: Message, codec: Codec) -> bytes:
        """What goes into the body, or into a frame.

        Raises:
            BadRequest: CODEC; it cannot be written.
        """
        try:
            if self._body_field is None:
                return codec.encode(request)
            return encode_field(self._body_field, getattr(request, self._body_field.name), codec)
        except CodecError as exc:
            raise BadRequest("CODEC", str(exc)) from exc

    def reply(self, answer: Answer, codec: Codec) -> Any:
        """The message in an answer.

        Raises:
            InternalServer: CODEC; the peer answered something else.
        """
        if self.method.output_type.full_name == HTTP_BODY:
            raw: Any = self.reply_kind()
            raw.content_type, raw.data = answer.content_type, answer.body
            return raw
        try:
            if not answer.body:
                return self.reply_kind()
            if not self.rule.response_body:
                return codec.decode(answer.body, self.reply_kind)
            reply = self.reply_kind()
            protojson.merge({self.rule.response_body: protojson.loads(answer.body)}, reply)
            return reply
        except CodecError as exc:
            raise InternalServer("CODEC", f"{self.operation} answered: {exc}") from exc


class HttpClient:
    """Calls the methods of one target.

    Args:
        endpoint: ``host:port``, ``http(s)://host:port`` or what
            :mod:`kit.transport.grpc.target` lists, such as ``discovery:///shop``.
        discovery: the registry of ``discovery:`` and ``etcd:`` targets.
        discovery_factory: makes the registry that a target names when ``discovery`` is not given.
        timeout: seconds for a whole exchange; 0 or less for no limit. A call made while a server's
            method runs is bound by that call's deadline as well. Streams have none.
        timeouts: in place of ``timeout`` for operations, or prefixes that end in ``*``.
        tls: whom to trust and what to show; ``None`` for plain text, unless the endpoint says
            ``https``.
        middleware: around every call, first listed outermost.
        balancer: weighted round robin by default.
        filters: which nodes may be picked.
        subset: how many instances of a service to use at most; 0 for all.
        codec: the name of the form in which messages are sent and asked for.
        compat: which form ``json`` has; that of the process by default.
        codecs: in place of the table for ``compat``.
        receive_bytes: the most that one answer may have.

    Raises:
        ValueError: ``endpoint`` or a selector cannot be understood, or the endpoint needs a
            registry and none was given.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        discovery: Discovery | None = None,
        discovery_factory: DiscoveryFactory | None = None,
        timeout: float = 2.0,
        timeouts: Mapping[str, float] | None = None,
        tls: ClientTls | ssl.SSLContext | None = None,
        middleware: Sequence[Middleware] = (),
        balancer: Balancer | None = None,
        filters: Sequence[NodeFilter] = (),
        subset: int = SUBSET,
        codec: str = "json",
        compat: Compat | None = None,
        codecs: CodecTable | None = None,
        receive_bytes: int = 4 << 20,
    ) -> None:
        scheme, separator, rest = endpoint.partition("://")
        secure = tls is not None
        if separator and scheme in {"http", "https"}:
            secure = scheme == "https"
            endpoint = rest.rstrip("/")
        self._target: Target = parse_target(endpoint)
        self._scheme = "https" if secure else "http"
        self._certified: str | None = None
        self._tls: ssl.SSLContext | bool = True
        if isinstance(tls, ClientTls):
            self._certified = tls.server_name
            self._tls = client_context(tls, PROTOCOLS)
        elif tls is not None:
            self._tls = tls
        self._limits = TimeLimits(timeout, timeouts)
        self._wrap = chain(middleware)
        self._selector = Selector(balancer or WeightedRoundRobin(), filters)
        self._codecs = codecs or standard_codecs(chosen(compat))
        wanted = self._codecs.get(codec)
        if wanted is None:
            raise ValueError(f"codec {codec!r} is not in the table")
        self._codec: Codec = wanted
        self._receive_bytes = receive_bytes
        self._nodes = tuple(Node(address) for address in self._target.addresses)
        self._session: aiohttp.ClientSession | None = None
        self._invocations: dict[str, Invocation] = {}
        self._resolver: Resolver | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closed = False
        if self._target.by_engine:
            raise ValueError(
                f"endpoint {endpoint!r}: only gRPC clients understand it; write host:port, "
                "dns:///host:port, direct:///host:port,host:port or discovery:///name"
            )
        self._host = ""
        if self._target.name:
            self._host = self._target.name
            discovery = DnsDiscovery(self._scheme)
        elif self._target.service:
            if discovery is None and discovery_factory is not None and self._target.registry:
                discovery = discovery_factory(list(self._target.registry))
            if discovery is None:
                raise ValueError(
                    f"endpoint {endpoint!r} needs a registry; give discovery=, or call host:port"
                )
        if discovery is not None and not self._target.addresses:
            self._resolver = Resolver(
                self._target.service or self._target.name,
                discovery,
                scheme=self._scheme,
                size=subset,
                push=self._push,
            )

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; may be called twice."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._session is not None:
            await self._session.close()

    async def invoke(
        self,
        method: AnyDescriptor,
        request: Message,
        *,
        headers: Headers = (),
        timeout: float | None = None,  # noqa: ASYNC109  (in place of the client's)
    ) -> Any:
        """Call a method by its ``google.api.http`` rule; gives its reply message.

        Args:
            method: its descriptor.
            request: of the method's input type.
            headers: to send along.
            timeout: seconds, in place of the client's.

        Raises:
            Error: what the peer answered, its code being the status of the answer.
            GatewayTimeout: nothing came in time.
            ServiceUnavailable: nobody is there to be called.
        """
        invocation = self.invocation(method)

        async def innermost(message: Any) -> Any:
            info = _current()
            outgoing = invocation.outgoing(message, self._codec)
            answer = await self._exchange(outgoing, info)
            codec = self._codecs.for_content_type(answer.content_type)
            return invocation.reply(answer, codec or self._json())

        return await self._call(invocation.operation, request, innermost, headers, timeout)

    async def request(
        self,
        verb: str,
        path: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        accept: str = "",
        headers: Headers = (),
        timeout: float | None = None,  # noqa: ASYNC109  (in place of the client's)
    ) -> Answer:
        """Ask for ``path``, percent-encoded and with its query, through the middleware.

        Raises:
            Error: as of :meth:`invoke`.
        """
        outgoing = Outgoing(verb.upper(), path, body, content_type, accept)

        async def innermost(message: Any) -> Any:
            return await self._exchange(message, _current())

        operation = path.partition("?")[0]
        answer: Answer = await self._call(operation, outgoing, innermost, headers, timeout)
        return answer

    def invocation(self, method: AnyDescriptor) -> Invocation:
        """How ``method`` is called.

        Raises:
            ValueError: it has no rule.
        """
        found = self._invocations.get(method.full_name)
        if found is None:
            found = self._invocations[method.full_name] = Invocation(method)
        return found

    @asynccontextmanager
    async def opened(
        self, outgoing: Outgoing, info: CallInfo
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body was not read yet; for streams.

        Raises:
            Error: the answer is none of 2xx, or nobody could be asked.
        """
        tried: list[str] = []
        while True:
            await self._resolved(info.deadline)
            node, done = self._pick(tried)
            info.peer = node.address
            try:
                async with self._open(outgoing, info, node) as reply:
                    _take_headers(reply, info)
                    if not 200 <= reply.status < 300:
                        raise await self._error(reply)
                    yield reply
            except aiohttp.ClientConnectorError as exc:
                failure = ServiceUnavailable("UNREACHABLE", f"{self._target.text}: {exc}")
                done(failure)
                tried.append(node.address)
                if len(tried) >= MOST_NODES_TRIED or not self._others(tried):
                    raise failure from exc
            except BaseException as exc:
                done(exc)
                raise
            else:
                done(None)
                return

    async def dial(self, path: str, info: CallInfo) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to one of the nodes.

        Raises:
            Error: it was refused, or nobody could be asked.
        """
        await self._resolved(info.deadline)
        node, done = self._pick(())
        info.peer = node.address
        try:
            async with asyncio.timeout(self._limits.default):
                connected = await self._http().ws_connect(
                    self._url(node, path),
                    headers=self._headers(info),
                    ssl=self._tls,
                    server_hostname=self._server_name,
                )
        except aiohttp.WSServerHandshakeError as exc:
            done(exc)
            raise Error(exc.status, "", exc.message) from exc
        except (aiohttp.ClientError, OSError) as exc:
            done(exc)
            raise ServiceUnavailable("UNREACHABLE", f"{self._target.text}: {exc}") from exc
        done(None)
        return connected

    def new_info(self, operation: str, headers: Headers, limit: float | None) -> CallInfo:
        """A call that is about to be made."""
        info = CallInfo(Kind.HTTP, "client", operation, self._target.text)
        if limit is not None and limit > 0:
            info.deadline, info.limit, info.limit_side = time.monotonic() + limit, limit, "client"
        outer = call_info.get()
        if (
            outer is not None
            and outer.side == "server"
            and outer.deadline is not None
            and (info.deadline is None or outer.deadline < info.deadline)
        ):
            info.deadline, info.limit = outer.deadline, outer.limit
            info.limit_side = outer.limit_side
        for key, value in headers:
            info.request_headers.add(key, value)
        return info

    async def _call(
        self, operation: str, request: Any, innermost: Any, headers: Headers, limit: float | None
    ) -> Any:
        limit = self._limits.of(operation) if limit is None else limit
        info = self.new_info(operation, headers, limit)
        token = call_info.set(info)
        try:
            left = None if info.deadline is None else info.deadline - time.monotonic()
            async with asyncio.timeout(left) as scope:
                return await self._wrap(innermost)(request)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            given = "" if info.limit is None else f" of {format_duration(info.limit)}"
            at = f" at {info.peer}" if info.peer else ""
            raise GatewayTimeout(
                "TIMEOUT",
                f"{info.limit_side} timeout{given} for {operation}: {self._target.text}{at} did "
                "not answer",
            ) from exc
        finally:
            call_info.reset(token)

    async def _exchange(self, outgoing: Outgoing, info: CallInfo) -> Answer:
        try:
            async with self.opened(outgoing, info) as reply:
                body = await self._read(reply)
        except aiohttp.ClientError as exc:
            raise ServiceUnavailable(
                "UNREACHABLE", f"{self._target.text} at {info.peer}: {exc or type(exc).__name__}"
            ) from exc
        return Answer(
            reply.status, body, {name.lower(): text for name, text in reply.headers.items()}
        )

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > self._receive_bytes:
                raise InternalServer(
                    "ANSWER_TOO_LARGE", f"the answer has more than {self._receive_bytes} bytes"
                )
        return bytes(body)

    async def _error(self, reply: aiohttp.ClientResponse) -> Error:
        codec = self._codecs.for_content_type(reply.headers.get("content-type", ""))
        return error_of(await self._read(reply), codec, reply.status)

    def _open(self, outgoing: Outgoing, info: CallInfo, node: Node) -> Any:
        headers = self._headers(info)
        if outgoing.content_type:
            headers.append(("Content-Type", outgoing.content_type))
        if outgoing.accept:
            headers.append(("Accept", outgoing.accept))
        return self._http().request(
            outgoing.verb,
            self._url(node, outgoing.path),
            data=outgoing.body or None,
            headers=headers,
            ssl=self._tls,
            server_hostname=self._server_name,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Content-Type"),
        )

    def _headers(self, info: CallInfo) -> list[tuple[str, str]]:
        """Headers as Go writes their names, and that of a name which was looked up here."""
        headers = [(name.title(), value) for name, value in info.request_headers.items()]
        if self._host and "host" not in info.request_headers:
            headers.append(("Host", self._host))
        return headers

    @property
    def _server_name(self) -> str | None:
        """What a certificate has to be for, when that is not what is connected to."""
        if self._certified is not None:
            return self._certified
        return self._host.rpartition(":")[0].strip("[]") if self._host else None

    def _url(self, node: Node, path: str) -> URL:
        return URL(f"{self._scheme}://{node.address}{path}", encoded=True)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=FIRST_ANSWER_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=1 << 20,
            )
        return self._session

    def _json(self) -> Codec:
        found = self._codecs.get("json")
        assert found is not None, "every table has json"
        return found

    # ---- nodes ----

    def _push(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = nodes

    def _others(self, tried: Sequence[str]) -> tuple[Node, ...]:
        return tuple(node for node in self._nodes if node.address not in tried)

    def _pick(self, tried: Sequence[str]) -> Any:
        try:
            return self._selector.select(self._others(tried) if tried else self._nodes)
        except NoAvailableNode as exc:
            raise ServiceUnavailable("NODE_NOT_FOUND", str(exc)) from exc

    async def _resolved(self, deadline: float | None) -> None:
        if self._closed:
            raise RuntimeError(f"the client of {self._target.text} is closed")
        if self._resolver is None or self._resolver.answered.is_set():
            return
        if self._watching is None:
            # Ends in aclose.
            self._watching = asyncio.create_task(self._resolver.run())
        wait = FIRST_ANSWER_S if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(wait * 0.9):  # so that it is this that is told
                await self._resolver.answered.wait()
        except TimeoutError:
            text = f"{self._target.text}: {self._resolver.described} did not answer"
            raise RegistryUnavailable(text) from None


def _current() -> CallInfo:
    info = call_info.get()
    assert info is not None, "middleware replaced the call info"
    return info


def _take_headers(reply: aiohttp.ClientResponse, info: CallInfo) -> None:
    for name, value in reply.headers.items():
        info.reply_headers.add(name, value)


def _json_path(message: AnyDescriptor, name: str) -> str:
    steps: list[str] = []
    for step in name.split("."):
        found = message.fields_by_name[step]
        steps.append(found.json_name)
        message = found.message_type
    return ".".join(steps)


def _text(request: Message, name: str) -> str:
    """The text of a variable.

    Raises:
        BadRequest: CODEC; it is empty, and the path would lead elsewhere.
    """
    value: Any = request
    found: AnyDescriptor = None
    for step in name.split("."):
        found = value.DESCRIPTOR.fields_by_name[step]
        value = getattr(value, step)
    text = form.value_text(found, value)
    if not text:
        raise BadRequest("CODEC", f"{name} is empty, but stands in the path; set it")
    return text
