"""The same middleware around HTTP routes; kratos-wire §15."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kit.middleware import jwt, logging, tracing
from kit.middleware.metrics import Metrics
from kit.middleware.ratelimit import ratelimit
from kit.middleware.recovery import recovery
from kit.middleware.selector import select
from kit.middleware.timeout import timeout
from kit.middleware.validate import validate
from kit.resilience import TokenBucket
from kit.transport import Middleware
from kit.transport.http import HttpServer

KEY = "a secret that is long enough"
Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]
Serve = Callable[..., Awaitable[Ask]]


async def hello(request: Any) -> dict[str, str]:
    return {"hello": request.path_params["name"]}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve([…], handler)`` gives a function that asks the route ``/hello/{name}``."""
    async with AsyncExitStack() as stack:

        async def start(middleware: list[Middleware], handler: Any = hello) -> Ask:
            server = HttpServer(address="127.0.0.1:0", middleware=middleware)
            server.get("/hello/{name}", handler)
            await server.listen()
            serving = asyncio.create_task(server.serve())
            session = await stack.enter_async_context(aiohttp.ClientSession())

            async def end() -> None:
                await server.stop(0)
                await serving

            stack.push_async_callback(end)

            async def ask(
                path: str = "/hello/ann", headers: dict[str, str] | None = None
            ) -> tuple[int, dict[str, Any]]:
                url = f"{server.endpoint}{path}"
                async with session.get(url, headers=headers) as reply:
                    return reply.status, await reply.json(content_type=None)

            return ask

        yield start


async def test_metrics_have_the_route_not_the_path(serve: Serve) -> None:
    """However many names are asked for, it is one series."""
    metrics = Metrics()
    ask = await serve([metrics.server()])
    for name in ("ann", "bob", "cyd"):
        assert (await ask(f"/hello/{name}"))[0] == 200
    text = metrics.exposition().decode()
    assert 'code="200",kind="http",operation="/hello/{name}",reason=""} 3.0' in text


async def test_spans_have_the_attributes_of_http(serve: Serve) -> None:
    """§15.4."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ask = await serve([tracing.server(provider=provider)])
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    await ask(headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    (span,) = exporter.get_finished_spans()
    provider.shutdown()
    assert f"{span.context.trace_id:032x}" == trace_id
    expected = {
        "rpc.system": "http",
        "http.method": "GET",
        "http.route": "/hello/{name}",
        "http.target": "/hello/ann",
        "net.peer.ip": "127.0.0.1",
    }
    assert expected.items() <= dict(span.attributes or {}).items()


@pytest.mark.parametrize(
    ("middleware", "status", "reason"),
    [
        (jwt.server(KEY), 401, "UNAUTHORIZED"),
        (select(jwt.server(KEY), prefixes=["/hello"]), 401, "UNAUTHORIZED"),
        (select(jwt.server(KEY), prefixes=["/other"]), 200, None),
        (validate(lambda _request: 1 // 0), 400, "VALIDATOR"),
        (ratelimit(TokenBucket(rate=0.001, burst=1)), 200, None),
    ],
)
async def test_refusals_are_kratos_errors_with_their_status(
    serve: Serve, middleware: Middleware, status: int, reason: str | None
) -> None:
    ask = await serve([recovery(), logging.server(), middleware])
    found, body = await ask()
    assert (found, body.get("reason")) == (status, reason)


async def test_what_is_too_much_is_429(serve: Serve) -> None:
    ask = await serve([ratelimit(TokenBucket(rate=0.001, burst=1))])
    assert (await ask())[0] == 200
    status, body = await ask()
    assert (status, body["code"], body["reason"]) == (429, 429, "RATELIMIT")


async def test_a_slow_route_is_cut_and_told_whose_limit_it_was(serve: Serve) -> None:
    async def slow(_request: Any) -> dict[str, str]:
        await asyncio.sleep(10)
        return {}

    ask = await serve([timeout(0.02)], slow)
    status, body = await ask()
    assert (status, body["reason"]) == (504, "TIMEOUT")
    assert body["message"] == "server timeout of 20ms for /hello/{name}"


async def test_an_unexpected_exception_gives_nothing_away(serve: Serve) -> None:
    async def broken(_request: Any) -> dict[str, str]:
        raise LookupError("secret")

    status, body = await (await serve([recovery()], broken))()
    assert (status, body["reason"], body["message"]) == (500, "UNKNOWN", "unknown request error")
