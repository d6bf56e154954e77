"""The middleware on real servers and clients of the kit; kratos-wire §15, §16."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from joserfc import jwt as tokens
from joserfc.jwk import OctKey, RSAKey
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit import errors
from kit.compat import Compat
from kit.errors.codes import GrpcCode
from kit.metadata import server_metadata
from kit.middleware import jwt, logging, metadata, tracing
from kit.middleware.circuitbreaker import circuitbreaker
from kit.middleware.metrics import Metrics
from kit.middleware.ratelimit import ratelimit
from kit.middleware.recovery import recovery
from kit.middleware.retry import retry
from kit.middleware.selector import select
from kit.middleware.timeout import timeout
from kit.middleware.validate import validate
from kit.resilience import BackOff, BreakerRule, RetryBudget, SreBreaker, TokenBucket
from kit.testing.grpc import running
from kit.transport import Middleware, current_call
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError

OUT = "/api.trans.v1.Trans/TransOut"
IN = "/api.trans.v1.Trans/TransIn"
KEY = "a secret that is long enough"
Method = Callable[[trans_pb2.AdjustInfo], Awaitable[trans_pb2.Response]]


class Trans(trans_pb2_grpc.TransServicer):
    """TransOut does what the test says, TransIn is done at once."""

    def __init__(self, method: Method) -> None:
        self._method = method

    async def TransOut(self, request: Any, _context: Any) -> trans_pb2.Response:  # noqa: N802
        return await self._method(request)

    async def TransIn(self, request: Any, _context: Any) -> trans_pb2.Response:  # noqa: N802
        return trans_pb2.Response()


async def done(_request: Any) -> trans_pb2.Response:
    return trans_pb2.Response()


class Call:
    """A client of a server, with the middleware of a test around both."""

    def __init__(self, client: GrpcClient) -> None:
        self.client = client
        self._stub = trans_pb2_grpc.TransStub(client.channel)

    async def out(self, amount: int = 30, **options: Any) -> Any:
        return await self._stub.TransOut(trans_pb2.AdjustInfo(Amount=amount), **options)

    async def in_(self) -> Any:
        return await self._stub.TransIn(trans_pb2.AdjustInfo(Amount=1))


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Call]]]:
    """``await connect(method, server=[…], client=[…])``: a server that runs and a client of it."""
    async with AsyncExitStack() as stack:

        async def make(
            method: Method = done,
            *,
            server: list[Middleware] | None = None,
            client: list[Middleware] | None = None,
        ) -> Call:
            served = GrpcServer(address="127.0.0.1:0", middleware=server or [])
            trans_pb2_grpc.add_TransServicer_to_server(Trans(method), served.services)
            address = await stack.enter_async_context(running(served))
            own = await stack.enter_async_context(GrpcClient(address, middleware=client or []))
            return Call(own)

        yield make


Connect = Callable[..., Awaitable[Call]]


async def refused(call: Awaitable[Any]) -> errors.Error:
    """How ``call`` failed."""
    with pytest.raises(errors.Error) as caught:
        await call
    return caught.value


def failing(error: Exception) -> Method:
    async def fail(_request: Any) -> trans_pb2.Response:
        raise error

    return fail


class TestMetrics:
    async def test_both_sides_count_and_measure_under_kratos_names(self, connect: Connect) -> None:
        """§15.5: names, labels, buckets."""
        metrics = Metrics()
        call = await connect(server=[metrics.server()], client=[metrics.client()])
        await call.out()
        await call.out()
        text = metrics.exposition().decode()
        for side in ("server", "client"):
            labels = f'code="200",kind="grpc",operation="{OUT}",reason=""'
            assert f"{side}_requests_code_total{{{labels}}} 2.0" in text
            seconds = f"{side}_requests_seconds"
            edges = [
                line.partition('le="')[2].partition('"')[0]
                for line in text.splitlines()
                if line.startswith(f"{seconds}_bucket{{")
            ]
            assert edges == ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "+Inf"]
            assert f'{seconds}_count{{kind="grpc",operation="{OUT}"}} 2.0' in text
        assert "_created" not in text

    async def test_failures_are_counted_by_code_and_reason(self, connect: Connect) -> None:
        metrics = Metrics()
        call = await connect(
            failing(errors.NotFound("NO_ACCOUNT", "7")),
            server=[metrics.server()],
            client=[metrics.client()],
        )
        await refused(call.out())
        text = metrics.exposition().decode()
        labels = f'code="404",kind="grpc",operation="{OUT}",reason="NO_ACCOUNT"'
        assert f"server_requests_code_total{{{labels}}} 1.0" in text
        assert f"client_requests_code_total{{{labels}}} 1.0" in text

    async def test_under_v2_the_histogram_has_the_suffix_of_its_dashboards(
        self, connect: Connect
    ) -> None:
        metrics = Metrics(compat=Compat.V2)
        await (await connect(server=[metrics.server()])).out()
        assert b"server_requests_seconds_bucket_bucket{" in metrics.exposition()


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """A provider, and what it exported."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


Spans = tuple[TracerProvider, InMemorySpanExporter]


class TestTracing:
    async def test_the_spans_of_both_sides_are_one_trace_in_kratos_words(
        self, connect: Connect, spans: Spans
    ) -> None:
        """§15.4: name, kind, attributes, status."""
        provider, exporter = spans
        seen: list[str] = []

        async def look(_request: Any) -> trans_pb2.Response:
            found = server_metadata.get()
            seen.append("" if found is None else found.get("x-md-service-name"))
            return trans_pb2.Response()

        call = await connect(
            look,
            server=[tracing.server(provider=provider)],
            client=[tracing.client(service="bank", provider=provider)],
        )
        await call.out(30)
        inner, outer = exporter.get_finished_spans()
        assert inner.name == outer.name == OUT
        assert (inner.kind, outer.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
        assert inner.parent is not None
        assert inner.parent.span_id == outer.context.span_id
        assert inner.context.trace_id == outer.context.trace_id
        assert inner.status.status_code is outer.status.status_code is StatusCode.OK
        common = {
            "rpc.system": "grpc",
            "rpc.service": "api.trans.v1.Trans",
            "rpc.method": "TransOut",
            "net.peer.ip": "127.0.0.1",
        }
        served, called = dict(inner.attributes or {}), dict(outer.attributes or {})
        assert common.items() <= served.items()
        assert common.items() <= called.items()
        assert served["peer.service"] == "bank"
        assert (served["recv_msg.size"], served["send_msg.size"]) == (2, 0)
        assert (called["send_msg.size"], called["recv_msg.size"]) == (2, 0)
        assert seen == ["bank"]

    async def test_a_failure_is_an_event_and_the_http_like_code(
        self, connect: Connect, spans: Spans
    ) -> None:
        provider, exporter = spans
        call = await connect(
            failing(errors.NotFound("NO_ACCOUNT", "7")), server=[tracing.server(provider=provider)]
        )
        await refused(call.out())
        (span,) = exporter.get_finished_spans()
        assert dict(span.attributes or {})["rpc.status_code"] == 404
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]

    async def test_without_a_recorder_the_callers_trace_travels_on(self, connect: Connect) -> None:
        """The headers reach the second server although no SDK is set up in between."""
        seen: list[str] = []

        async def last(_request: Any) -> trans_pb2.Response:
            info = current_call()
            assert info is not None
            seen.append(info.request_headers.get("traceparent"))
            return trans_pb2.Response()

        second = await connect(last, client=[tracing.client()])

        async def hand_on(_request: Any) -> trans_pb2.Response:
            await second.out()
            return trans_pb2.Response()

        first = await connect(hand_on, server=[tracing.server()])
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        await first.out(metadata=[("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")])
        assert [header.split("-")[1] for header in seen] == [trace_id]


def order_class() -> Any:
    """A message with rules: ``amount > 0``, ``name`` of 3 or more, ``lines`` of the same."""
    fields = descriptor_pb2.FieldDescriptorProto

    def rules(kind: int, rule: int, value: int) -> bytes:
        inner = bytes([rule << 3, value])
        of_kind = bytes([kind << 3 | 2, len(inner)]) + inner
        key = 1159 << 3 | 2  # buf.validate.field
        return bytes([key & 0x7F | 0x80, key >> 7, len(of_kind)]) + of_kind

    file = descriptor_pb2.FileDescriptorProto(name="t/order.proto", package="t", syntax="proto3")
    order = file.message_type.add(name="Order")
    amount = order.field.add(name="amount", number=1, type=fields.TYPE_INT64, label=1)
    amount.options.MergeFromString(rules(4, 4, 0))
    name = order.field.add(name="name", number=2, type=fields.TYPE_STRING, label=1)
    name.options.MergeFromString(rules(14, 2, 3))
    order.field.add(name="lines", number=3, type=fields.TYPE_MESSAGE, type_name=".t.Order", label=3)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Order"))


class TestValidate:
    async def test_a_request_that_breaks_rules_is_told_all_of_them(self, connect: Connect) -> None:
        """§15.3: 400 VALIDATOR; the message is the first, the metadata has all by field."""
        order = order_class()
        calls: list[Any] = []

        async def echo(request: Any) -> Any:
            calls.append(request)
            return request

        checked = validate()(echo)
        good = order(amount=1, name="abc")
        assert await checked(good) is good
        error = await refused(checked(order(name="ab", lines=[good, order(name="abc")])))
        assert (error.code, error.reason) == (400, "VALIDATOR")
        assert error.message == "amount: must be greater than 0"
        assert error.metadata == {
            "amount": "must be greater than 0",
            "name": "must be at least 3 characters",
            "lines[1].amount": "must be greater than 0",
        }
        assert calls == [good]

    async def test_functions_check_too_and_the_client_hears_it(self, connect: Connect) -> None:
        def positive(request: Any) -> None:
            if request.Amount <= 0:
                raise ValueError("Amount must be positive")

        call = await connect(server=[validate(positive)])
        await call.out(1)
        error = await refused(call.out(-1))
        assert (error.code, error.reason, error.message) == (
            400,
            "VALIDATOR",
            "Amount must be positive",
        )

    async def test_no_error_carries_more_details_than_headers_hold(self) -> None:
        order = order_class()

        async def echo(request: Any) -> Any:
            return request

        lines = [order(name="abc")] * 1000
        error = await refused(validate()(echo)(order(amount=1, name="abc", lines=lines)))
        told = "".join(f"{field}{text}" for field, text in error.metadata.items())
        assert len(told.encode()) < 4 << 10
        assert error.metadata["lines[0].amount"] == "must be greater than 0"
        assert error.metadata["…"] == f"{1000 - len(error.metadata) + 1} more"


def token(claims: dict[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    return tokens.encode({"alg": algorithm}, claims, OctKey.import_key(key), algorithms=[algorithm])


class TestJwt:
    async def test_the_claims_of_a_signed_call_are_read_by_the_method(
        self, connect: Connect
    ) -> None:
        seen: list[Any] = []

        async def look(_request: Any) -> trans_pb2.Response:
            seen.append(jwt.claims())
            return trans_pb2.Response()

        call = await connect(
            look,
            server=[jwt.server(KEY)],
            client=[jwt.client(KEY, lambda: {"sub": "7", "exp": int(time.time()) + 60})],
        )
        await call.out()
        assert seen[0]["sub"] == "7"
        assert jwt.claims() is None

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("", "JWT token is missing"),
            ("Basic abc", "JWT token is missing"),
            ("Bearer", "JWT token is missing"),
            ("Bearer not.a.token", "Token is invalid"),
            ("Bearer x", "Token is invalid"),
            (f"Bearer {token({'exp': 1})}", "JWT token has expired"),
            (f"Bearer {token({'nbf': 99999999999})}", "JWT token has expired"),
            (f"Bearer {token({'exp': 'soon'})}", "Fail to parse JWT token "),
            (f"Bearer {token({}, 'another secret of length')}", "Fail to parse JWT token "),
            (f"Bearer {token({}, algorithm='HS384')}", "Wrong signing method"),
            (f"Bearer {token({})[:-4]}", "Fail to parse JWT token "),
        ],
    )
    async def test_every_refusal_is_a_401_in_kratos_words(
        self, connect: Connect, header: str, message: str
    ) -> None:
        """§15.6."""
        call = await connect(server=[jwt.server(KEY)])
        sent = [("authorization", header)] if header else []
        error = await refused(call.out(metadata=sent))
        assert (error.code, error.reason, error.message) == (401, "UNAUTHORIZED", message)

    async def test_the_word_bearer_is_taken_in_any_case(self, connect: Connect) -> None:
        call = await connect(server=[jwt.server(KEY)])
        await call.out(metadata=[("authorization", f"bEARER {token({})}")])

    async def test_an_unsigned_token_never_gets_in(self, connect: Connect) -> None:
        call = await connect(server=[jwt.server(KEY)])
        unsigned = "eyJhbGciOiJub25lIn0.e30."
        error = await refused(call.out(metadata=[("authorization", f"Bearer {unsigned}")]))
        assert error.message == "Wrong signing method"

    async def test_a_public_key_is_not_taken_for_a_secret(self, connect: Connect) -> None:
        """The old attack: a token signed by HS256 with the text of the RSA public key."""
        pair = RSAKey.generate_key(2048)
        call = await connect(server=[jwt.server(pair.as_pem(private=False), algorithm="RS256")])
        good = tokens.encode({"alg": "RS256"}, {}, pair, algorithms=["RS256"])
        await call.out(metadata=[("authorization", f"Bearer {good}")])
        error = await refused(call.out(metadata=[("authorization", f"Bearer {token({})}")]))
        assert error.message == "Wrong signing method"

    async def test_keys_are_found_by_the_header_or_not_at_all(self, connect: Connect) -> None:
        keys = {"1": KEY}
        call = await connect(
            server=[jwt.server(lambda header: keys[header["kid"]])],
            client=[jwt.client(KEY, header={"kid": "1"})],
        )
        await call.out()
        del keys["1"]
        assert (await refused(call.out())).message == "Token is invalid"
        none = await connect(server=[jwt.server(None)])
        error = await refused(none.out(metadata=[("authorization", f"Bearer {token({})}")]))
        assert error.message == "keyFunc is missing"

    async def test_a_client_that_cannot_sign_does_not_call(self, connect: Connect) -> None:
        calls: list[Any] = []

        async def count(request: Any) -> trans_pb2.Response:
            calls.append(request)
            return trans_pb2.Response()

        def no_key() -> str:
            raise LookupError("vault")

        for middleware, message in (
            (jwt.client(None), "Token provider is missing"),
            (jwt.client(no_key), "Can not get key while signing token"),
            (jwt.client(KEY, lambda: {"a": object()}), "Can not sign token.Is the key correct?"),
        ):
            call = await connect(count, client=[middleware])
            assert (await refused(call.out())).message == message
        assert calls == []

    def test_unsafe_and_unknown_algorithms_are_refused_when_the_server_is_made(self) -> None:
        for name in ("none", "HS1"):
            with pytest.raises(ValueError, match="use one of"):
                jwt.server(KEY, algorithm=name)


class TestRateLimit:
    async def test_what_is_too_much_is_a_429(self, connect: Connect) -> None:
        """§15.7."""
        call = await connect(server=[ratelimit(TokenBucket(rate=0.001, burst=2))])
        await call.out()
        await call.out()
        error = await refused(call.out())
        assert (error.code, error.reason) == (429, "RATELIMIT")
        assert error.message == "service unavailable due to rate limit exceeded"
        assert isinstance(error, RpcError)
        assert error.status is GrpcCode.RESOURCE_EXHAUSTED

    @pytest.mark.parametrize("compat", list(Compat))
    async def test_the_default_limiter_lets_an_idle_server_work(
        self, connect: Connect, compat: Compat
    ) -> None:
        call = await connect(server=[ratelimit(compat=compat)])
        await asyncio.gather(*(call.out() for _ in range(20)))


class TestCircuitBreaker:
    async def test_it_opens_for_the_failing_operation_alone(self, connect: Connect) -> None:
        """§15.8: 503 CIRCUITBREAKER, one breaker an operation."""
        calls: list[Any] = []

        async def fail(request: Any) -> trans_pb2.Response:
            calls.append(request)
            raise errors.ServiceUnavailable("DOWN")

        breaker = circuitbreaker(lambda: SreBreaker(BreakerRule(2, 20), chance=lambda: 0.5))
        call = await connect(fail, client=[breaker])
        for _ in range(20):
            assert (await refused(call.out())).reason == "DOWN"
        error = await refused(call.out())
        assert (error.code, error.reason) == (503, "CIRCUITBREAKER")
        assert error.message == "request failed due to circuit breaker triggered"
        assert len(calls) == 20
        await call.in_()

    @pytest.mark.parametrize("code", [400, 404, 409, 429, 499])
    async def test_answers_that_are_not_failures_never_open_it(
        self, connect: Connect, code: int
    ) -> None:
        breaker = circuitbreaker(lambda: SreBreaker(BreakerRule(2, 5), chance=lambda: 0.0))
        call = await connect(failing(errors.Error(code, "NO")), client=[breaker])
        for _ in range(12):
            assert (await refused(call.out())).reason == "NO"

    async def test_a_timeout_around_it_counts_as_a_failure_of_the_target(
        self, connect: Connect
    ) -> None:
        async def hang(_request: Any) -> trans_pb2.Response:
            await asyncio.sleep(10)
            raise AssertionError

        breaker = circuitbreaker(lambda: SreBreaker(BreakerRule(2, 3), chance=lambda: 0.0))
        call = await connect(hang, client=[timeout(0.02), breaker])
        for _ in range(3):
            assert (await refused(call.out())).code == 504
        assert (await refused(call.out())).reason == "CIRCUITBREAKER"


class TestSelect:
    @pytest.mark.parametrize(
        ("tests", "chosen"),
        [
            ({"prefixes": ["/api.trans.v1."]}, {"out", "in"}),
            ({"paths": [OUT]}, {"out"}),
            ({"patterns": [r"/api\.trans\.v1\.Trans/.*In"]}, {"in"}),
            ({"patterns": [r"Trans/TransIn"]}, set()),
            ({"patterns": [r"/api|/api.*"]}, set()),
            ({"match": lambda operation: operation.endswith("Out")}, {"out"}),
            ({"paths": [OUT], "match": lambda operation: operation == IN}, {"out", "in"}),
            ({}, set()),
        ],
    )
    @pytest.mark.parametrize("side", ["server", "client"])
    async def test_operations_are_chosen_by_prefix_path_pattern_or_function(
        self, connect: Connect, tests: dict[str, Any], chosen: set[str], side: str
    ) -> None:
        """§15.9: any may match; the first match of a pattern is the whole operation."""
        found = set()
        for name in ("out", "in"):
            limited = select(ratelimit(TokenBucket(rate=0.001, burst=1)), **tests)
            call = await connect(**{side: [limited]})
            method = call.out if name == "out" else call.in_
            await method()
            try:
                await method()
            except errors.TooManyRequests:  # on the side of the client
                found.add(name)
            except RpcError as error:
                found.add(name if error.reason == "RATELIMIT" else str(error))
        assert found == chosen

    def test_a_pattern_that_is_none_is_refused_when_it_is_made(self) -> None:
        with pytest.raises(ValueError, match=r"selector pattern '\(': .*unterminated"):
            select(patterns=["("])


class TestRetry:
    async def test_a_call_that_could_not_be_taken_is_made_again(self, connect: Connect) -> None:
        """Headers that inner middleware adds are there once, whatever the try."""
        seen: list[list[str]] = []

        async def second_time(_request: Any) -> trans_pb2.Response:
            info = current_call()
            assert info is not None
            seen.append(info.request_headers.values("x-md-global-a"))
            if len(seen) < 2:
                raise errors.ServiceUnavailable("BUSY")
            return trans_pb2.Response()

        call = await connect(
            second_time,
            client=[retry(backoff=BackOff(0, 0)), metadata.client({"x-md-global-a": "1"})],
        )
        await call.out()
        assert seen == [["1"], ["1"]]

    @pytest.mark.parametrize("code", [400, 409, 500, 504])
    async def test_other_errors_are_not_tried_again(self, connect: Connect, code: int) -> None:
        calls: list[Any] = []

        async def fail(request: Any) -> trans_pb2.Response:
            calls.append(request)
            raise errors.Error(code, "NO")

        call = await connect(fail, client=[retry(backoff=BackOff(0, 0))])
        assert (await refused(call.out())).reason == "NO"
        assert len(calls) == 1

    async def test_tries_and_budget_bound_what_a_broken_target_gets(self, connect: Connect) -> None:
        calls: list[Any] = []

        async def fail(request: Any) -> trans_pb2.Response:
            calls.append(request)
            raise errors.ServiceUnavailable("DOWN")

        budget = RetryBudget(ratio=0.1, reserve=4)
        call = await connect(fail, client=[retry(3, budget=budget, backoff=BackOff(0, 0))])
        await refused(call.out())
        assert len(calls) == 3
        for _ in range(39):
            await refused(call.out())
        # 40 first tries, the 4 saved at the beginning, and what 39 more calls earned
        assert 40 + 4 + 3 <= len(calls) <= 40 + 4 + 4

    async def test_no_try_is_begun_that_the_deadline_would_cut(self, connect: Connect) -> None:
        calls: list[Any] = []

        async def fail(request: Any) -> trans_pb2.Response:
            calls.append(request)
            raise errors.ServiceUnavailable("DOWN")

        call = await connect(fail, client=[retry(backoff=BackOff(60, 60))])
        started = time.monotonic()
        assert (await refused(call.out())).reason == "DOWN"
        assert len(calls) == 1
        assert time.monotonic() - started < 5

    async def test_a_breaker_further_in_is_not_argued_with(self, connect: Connect) -> None:
        breaker = circuitbreaker(lambda: SreBreaker(BreakerRule(2, 0), chance=lambda: 0.0))
        tries: list[Any] = []

        def counting(handler: Any) -> Any:
            async def call(request: Any) -> Any:
                tries.append(request)
                return await handler(request)

            return call

        call = await connect(
            failing(errors.ServiceUnavailable("DOWN")),
            client=[retry(3, backoff=BackOff(0, 0)), counting, breaker],
        )
        assert (await refused(call.out())).reason == "CIRCUITBREAKER"
        assert len(tries) == 2  # the first that failed, the second that was refused


async def test_all_of_them_together_answer_a_call(connect: Connect, spans: Spans) -> None:
    """The order that docs/kit/middleware.md recommends."""
    provider, exporter = spans
    metrics = Metrics()
    call = await connect(
        server=[
            recovery(),
            tracing.server(provider=provider),
            logging.server(payloads=True),
            metrics.server(),
            metadata.server(),
            ratelimit(),
            jwt.server(KEY),
            validate(),
            timeout(),
        ],
        client=[
            tracing.client(service="bank", provider=provider),
            logging.client(),
            metrics.client(),
            metadata.client(),
            timeout(),
            retry(),
            circuitbreaker(),
            jwt.client(KEY),
        ],
    )
    await asyncio.gather(*(call.out() for _ in range(50)))
    assert len(exporter.get_finished_spans()) == 100
    assert f'server_requests_seconds_count{{kind="grpc",operation="{OUT}"}} 50.0' in (
        metrics.exposition().decode()
    )


async def test_each_message_of_a_stream_passes_the_middleware_of_streams() -> None:
    """§4.6: a stream without a token neither reads nor sends a message."""
    metrics = Metrics()

    async def double(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request * 2

    handlers = {"Double": grpc.stream_stream_rpc_method_handler(double)}
    server = GrpcServer(
        address="127.0.0.1:0", stream_middleware=[metrics.server(), jwt.server(KEY), validate()]
    )
    server.add_registered_method_handlers("test.Streams", handlers)
    async with running(server) as address, GrpcClient(address) as client:
        method = client.stream_stream("/test.Streams/Double")
        good = [("authorization", f"Bearer {token({})}")]
        async with method([b"a", b"b"], metadata=good) as stream:
            assert [message async for message in stream] == [b"aa", b"bb"]
        async with method([b"a"]) as stream:
            assert (await refused(stream.read())).message == "JWT token is missing"
    text = metrics.exposition().decode()
    assert 'code="200",kind="grpc",operation="/test.Streams/Double",reason=""} 4.0' in text
    assert 'code="401",kind="grpc",operation="/test.Streams/Double"' in text
