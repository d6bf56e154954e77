"""Branches asked over gRPC, HTTP and JSON-RPC, on real sockets."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from aiohttp import web

from kit.dtm.core import Branch, Options, Transaction
from kit.dtm.driver.direct import DirectDriver
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.caller import BranchAnswer, BranchCaller
from kit.dtm.server.callers import exchange
from kit.dtm.server.callers import grpc as callers_grpc
from kit.dtm.server.callers.classify import classify_http
from kit.dtm.wire import Protocol, Result, Status, TransType
from kit.errors.codes import GrpcCode
from kit.transport import CallInfo, Kind, call_info
from kit.transport.grpc import GrpcClient

HTTP = Transaction("g 1", TransType.SAGA, Status.SUBMITTED, protocol=Protocol.HTTP)
GRPC = replace(HTTP, gid="g1", protocol=Protocol.GRPC)
RPC = replace(HTTP, gid="g1", protocol=Protocol.JSON_RPC)


def branch(url: str, payload: bytes = b"") -> Branch:
    return Branch("01", "action", url, payload)


def caller(**options: object) -> BranchCaller:
    return BranchCaller(DirectDriver(), GrpcClient, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def http_server(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "0.0.0.0", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(sent: bytes, *, stay: bool = False) -> AsyncIterator[str]:
    """Answers the first bytes of a connection with ``sent``."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(sent)
        if stay:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def grpc_server(
    answer: Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]],
) -> AsyncIterator[str]:
    class EveryMethod(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((EveryMethod(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def ask_raw(sent: bytes, limit: float = 10.0, *, stay: bool = False) -> BranchAnswer:
    async with raw_server(sent, stay=stay) as url, caller() as asks:
        return await asks.call(HTTP, branch(f"{url}/x"), limit)


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b"", Result.SUCCESS),
        (200, b'{"dtm_result":"FAILURE"}', Result.FAILURE),
        (200, b'{"dtm_result":"ONGOING"}', Result.ONGOING),
        (200, b"FAILURE ONGOING", Result.ONGOING),
        (200, b"FAILURES NO_FAILURE", Result.SUCCESS),
        (201, b"", Result.UNKNOWN),
        (204, b"", Result.UNKNOWN),
        (409, b"ONGOING", Result.FAILURE),
        (425, b"FAILURE", Result.ONGOING),
        (500, b"FAILURE", Result.UNKNOWN),
    ],
)
def test_the_status_decides_and_words_count_in_a_200_only(
    status: int, body: bytes, result: Result
) -> None:
    assert classify_http(status, body, legacy=True) is result
    if status == 200:
        assert classify_http(status, body, legacy=False) is Result.SUCCESS


async def test_an_http_branch_gets_query_headers_and_payload_as_dtm_sends_them() -> None:
    """dtmsvr/trans_status.go, getBranchResult."""
    seen: list[tuple[str, str, str | None, str | None, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (
                request.method,
                request.raw_path,
                headers.get("Content-Type"),
                headers.get("X-A"),
                await request.read(),
            )
        )
        return web.Response(headers={"Set-Cookie": f"n={len(headers.get('Cookie', ''))}"})

    query = "branch_id=01&gid=g+1&op=action&trans_type=saga"
    more = replace(
        HTTP, options=Options(branch_headers={"content-type": "a/b", "X-A": "1", "Host": "evil"})
    )
    xa = replace(HTTP, trans_type=TransType.XA)
    async with http_server(answer) as url, caller() as asks:
        for tx, path, payload in (
            (HTTP, "/a%2Fb?x=%20&y=1+2#top", b""),
            (more, "/b", b'{"a":1}'),
            (xa, "/c", b""),
        ):
            assert (await asks.call(tx, branch(url + path, payload), 10.0)).result is Result.SUCCESS
    assert seen == [
        ("GET", f"/a%2Fb?x=%20&y=1+2&{query}", "application/json", None, b""),
        ("POST", f"/b?{query}", "a/b", "1", b'{"a":1}'),
        ("POST", f"/c?{query.replace('saga', 'xa')}", "application/json", None, b""),
    ]


async def test_redirects_are_not_followed_and_the_text_says_so() -> None:
    calls = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with http_server(answer) as url, caller() as asks:
        said = await asks.call(HTTP, branch(f"{url}/x"), 10.0)
    assert calls == ["/x"]
    assert said.result is Result.UNKNOWN
    assert "redirects are not followed" in said.text


async def test_of_a_long_answer_only_the_status_counts() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=int(request.path[1:]), body=b"FAILURE " + b"x" * (2 << 20))

    async with http_server(answer) as url, caller() as asks:
        results = [
            (await asks.call(HTTP, branch(f"{url}/{status}"), 5.0)).result
            for status in (200, 409, 500)
        ]
    assert results == [Result.SUCCESS, Result.FAILURE, Result.UNKNOWN]


async def test_what_is_compressed_is_read_only_so_far() -> None:
    async def answer(request: web.Request) -> web.Response:
        plain = b'{"dtm_result":"FAILURE"}' if request.path == "/small" else b"\0" * (200 << 20)
        return web.Response(body=gzip.compress(plain, 1), headers={"Content-Encoding": "gzip"})

    async with http_server(answer) as url, caller() as asks:
        assert (await asks.call(HTTP, branch(f"{url}/small"), 5.0)).result is Result.FAILURE
        assert (await asks.call(HTTP, branch(f"{url}/bomb"), 9.0)).result is Result.SUCCESS


@pytest.mark.parametrize(
    ("sent", "stay", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", True, GrpcCode.DEADLINE_EXCEEDED),
        (b"", True, GrpcCode.DEADLINE_EXCEEDED),
        (b"HTTP/1.1 409 C\r\nContent-Length: 9\r\n\r\nab", False, GrpcCode.UNAVAILABLE),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno",
            False,
            GrpcCode.UNAVAILABLE,
        ),
        (b"\x16\x03\x01 this is not HTTP\r\n\r\n", False, GrpcCode.UNAVAILABLE),
        (b"", False, GrpcCode.UNAVAILABLE),
    ],
)
async def test_half_an_answer_is_none(sent: bytes, stay: bool, code: GrpcCode) -> None:
    answer = await ask_raw(sent, 0.3 if stay else 10.0, stay=stay)
    assert (answer.result, answer.code) == (Result.UNKNOWN, code)


@pytest.mark.parametrize(
    ("tx", "url", "text"),
    [
        (GRPC, "nowhere", "bad url: 'nowhere'. no '/' found"),
        (GRPC, "x:///a/b.C/D", "call dtmdriver.Use() before you use custom scheme for"),
        (HTTP, "localhost:1/x", "write http://host:port/path"),
        (HTTP, "http://h/\r\nX: y", "control characters"),
        (HTTP, "http://h:99999/", "Port out of range"),
        (HTTP, "http://2852039166/", "Targets.AllowNetworks"),
        (GRPC, "169.254.169.254:80/a.B/C", "Targets.AllowNetworks"),
        (RPC, "http://[::ffff:169.254.169.254]/?method=m", "Targets.AllowNetworks"),
    ],
)
async def test_what_cannot_or_must_not_be_called_is_unknown_with_a_reason(
    tx: Transaction, url: str, text: str
) -> None:
    async with caller() as asks:
        answer = await asks.call(tx, branch(url), 1.0)
    assert answer.result is Result.UNKNOWN
    assert text in answer.text


@pytest.mark.parametrize("url", ["http://{}/x", "{}/a.B/C"])
async def test_a_name_that_leads_to_a_forbidden_address_is_not_called(url: str) -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["169.254.169.254"]

    async with caller(lookup=lookup) as asks:
        answer = await asks.call(GRPC, branch(url.format("inner.example:80")), 1.0)
    assert (answer.result, answer.code) == (Result.UNKNOWN, GrpcCode.PERMISSION_DENIED)
    assert "inner.example" in answer.text
    assert "Targets.AllowNetworks" in answer.text


@pytest.mark.usefixtures("engine")
async def test_one_transaction_mixes_grpc_and_http_and_grpc_branches_get_metadata() -> None:
    """client/dtmgrpc/dtmgimp/utils.go, TransInfo2Ctx."""
    seen: list[tuple[bytes, dict[str, str]]] = []
    posted: list[bytes] = []

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        seen.append((request, {k: v for k, v in metadata.items() if k.startswith(("dtm-", "x-"))}))
        return b""

    async def http(request: web.Request) -> web.Response:
        posted.append(await request.read())
        return web.Response()

    observed: list[Result] = []
    tx = replace(GRPC, options=Options(branch_headers={"X-A": "1", "Content-Type": "a/b"}))
    workflow = replace(GRPC, trans_type=TransType.WORKFLOW)
    async with (
        grpc_server(answer) as address,
        http_server(http) as url,
        caller(observe=lambda _tx, _branch, result, _s: observed.append(result)) as asks,
    ):
        assert (await asks.call(tx, branch(f"{address}/a.B/C", b"raw"), 10.0)) == BranchAnswer(
            Result.SUCCESS
        )
        await asks.call(tx, branch(f"{url}/x", b"raw"), 10.0)
        back = Branch("00", "flow", f"{address}/workflow.Workflow/Execute", b"data")
        await asks.call(workflow, back, 10.0)
    assert observed == [Result.SUCCESS] * 3
    assert posted == [b"raw"]
    assert seen[0] == (
        b"raw",
        {
            "dtm-gid": "g1",
            "dtm-trans_type": "saga",
            "dtm-branch_id": "01",
            "dtm-op": "action",
            "dtm-dtm": "",
            "x-a": "1",
        },
    )
    assert dtm_pb2.WorkflowData.FromString(seen[1][0]).Data == b"data"


async def test_a_json_rpc_branch_gets_its_params_and_codes_are_understood() -> None:
    """dtmsvr/trans_status.go, getJSONRPCResult; the codes as they are meant."""
    seen = []
    replies: list[object] = [
        {"result": {}},
        {"error": {"code": -32901, "message": "no"}},
        {"error": {"code": -32902, "message": "later"}},
        {"error": {"code": -32000, "message": "boom"}},
        {"result": {"dtm_result": "FAILURE"}},
        [],
    ]

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.raw_path, await request.json()))
        return web.Response(body=json.dumps(replies[len(seen) - 1]))

    async with http_server(answer) as url, caller(new_id=lambda: "id1") as asks:
        step = branch(f"{url}/rpc?method=pay", b'{"n":12345678901234567890}')
        results = [(await asks.call(RPC, step, 10.0)).result for _ in replies]
        bad = await asks.call(RPC, replace(step, payload=b"[1]"), 10.0)
    assert results == [
        Result.SUCCESS,
        Result.FAILURE,
        Result.ONGOING,
        Result.UNKNOWN,
        Result.FAILURE,
        Result.UNKNOWN,
    ]
    assert "is not a JSON object" in bad.text
    assert len(seen) == len(replies)
    params = {"n": 12345678901234567890, "gid": "g1", "trans_type": "saga", "branch_id": "01"}
    assert seen[0] == (
        "/rpc?method=pay",
        {"id": "id1", "jsonrpc": "2.0", "method": "pay", "params": {**params, "op": "action"}},
    )


async def test_twenty_hanging_targets_slow_nobody_else() -> None:
    release = asyncio.Event()

    hanging = 0

    async def hang(request: web.Request) -> web.Response:
        nonlocal hanging
        hanging += 1
        await release.wait()
        return web.Response()

    async def quick(request: web.Request) -> web.Response:
        return web.Response()

    async with http_server(hang) as dead, http_server(quick) as url, caller() as asks:
        # each address of the machine is a target of its own
        places = [dead.replace("127.0.0.1", f"127.0.0.{n}") for n in range(2, 22)]
        calls = [
            asyncio.create_task(asks.call(HTTP, branch(f"{place}/x"), 60.0))
            for place in places
            for _ in range(10)
        ]
        async with asyncio.timeout(30):
            while hanging < len(calls):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        for _ in range(20):
            assert (await asks.call(HTTP, branch(f"{url}/x"), 5.0)).result is Result.SUCCESS
        assert time.monotonic() - began < 15
        release.set()
        await asyncio.gather(*calls)


async def test_connections_are_kept_for_a_few_targets_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "MAX_WARM", 3)
    connections: set[tuple[tuple[str, int], ...]] = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ends = (request.transport.get_extra_info(name) for name in ("sockname", "peername"))
        connections.add(tuple(ends))
        return web.Response(body=b"x" * 70_000)

    async with http_server(answer) as url, caller() as asks:
        for _ in range(2):
            for n in range(1, 6):
                place = url.replace("127.0.0.1", f"127.0.0.{n}")
                assert (await asks.call(HTTP, branch(f"{place}/x"), 10.0)).result == "SUCCESS"
    assert len(connections) == 3 + 2 * 2


async def test_in_a_container_localhost_is_the_machine_around_it() -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with http_server(answer) as url, caller(docker=True, lookup=lookup) as asks:
        assert (await asks.call(HTTP, branch(f"{url}/x"), 10.0)).result is Result.SUCCESS
        assert (await asks.call(RPC, branch(f"{url}/?method=m"), 10.0)).result is Result.UNKNOWN
        assert "host.docker.internal" in (
            await asks.call(GRPC, branch("localhost:1/a.B/C"), 10.0)
        ).text + str(asked)
    assert set(asked) == {"host.docker.internal"}


@pytest.mark.usefixtures("engine")
async def test_the_deadline_of_the_request_that_began_a_round_does_not_bind_its_branches() -> None:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.sleep(0.05)
        return b""

    over = CallInfo(Kind.GRPC, "server", "/dtmgimp.Dtm/Submit", deadline=time.monotonic() - 1)
    async with grpc_server(answer) as address, caller() as asks:
        token = call_info.set(over)
        said = await asks.call(GRPC, branch(f"{address}/a.B/C"), 10.0)
        assert call_info.get() is over
        call_info.reset(token)
    assert said.result is Result.SUCCESS


@pytest.mark.usefixtures("engine")
async def test_a_client_that_makes_room_ends_its_calls_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callers_grpc, "MAX_CLIENTS", 1)
    arrived = asyncio.Event()

    async def slow(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        arrived.set()
        await asyncio.sleep(0.1)
        return b""

    async with grpc_server(slow) as one, grpc_server(slow) as two, caller() as asks:
        first = asyncio.create_task(asks.call(GRPC, branch(f"{one}/a.B/C"), 10.0))
        await arrived.wait()
        assert (await asks.call(GRPC, branch(f"{two}/a.B/C"), 10.0)).result is Result.SUCCESS
        assert (await first).result is Result.SUCCESS


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("code", "text", "result"),
    [
        (grpc.StatusCode.ABORTED, "no", Result.FAILURE),
        (grpc.StatusCode.ABORTED, "ONGOING", Result.ONGOING),
        (grpc.StatusCode.FAILED_PRECONDITION, "later", Result.ONGOING),
        (grpc.StatusCode.INTERNAL, "FAILURE", Result.UNKNOWN),
    ],
)
async def test_the_status_of_a_grpc_branch_decides(
    code: grpc.StatusCode, text: str, result: Result
) -> None:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(code, text)
        raise AssertionError

    async with grpc_server(answer) as address, caller() as asks:
        said = await asks.call(GRPC, branch(f"{address}/a.B/C"), 10.0)
    assert (said.result, said.text) == (result, text)


@pytest.mark.parametrize("body", [b"[" * 900_000, b"\xff", b"", b"1" * 10_000])
async def test_nonsense_from_a_json_rpc_branch_is_unknown(body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with http_server(answer) as url, caller() as asks:
        said = await asks.call(RPC, branch(f"{url}/rpc?method=m"), 5.0)
    assert said.result is Result.UNKNOWN
    assert said.text.startswith("not an answer of JSON-RPC")
    assert len(said.text) <= 4_096


@pytest.mark.usefixtures("engine")
async def test_a_name_nobody_answers_for_takes_the_time_of_its_own_call_only() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        if host == "dead.example":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b""

    async with grpc_server(answer) as address, caller(lookup=lookup) as asks:
        port = address.rpartition(":")[2]
        dead = await asyncio.gather(
            *(
                asks.call(GRPC, branch(url), 0.2)
                for url in (f"dead.example:{port}/a.B/C", f"http://dead.example:{port}/x")
            )
        )
        good = await asks.call(GRPC, branch(f"localhost:{port}/a.B/C"), 10.0)
    assert [said.code for said in dead] == [GrpcCode.UNAVAILABLE, GrpcCode.DEADLINE_EXCEEDED]
    assert good.result is Result.SUCCESS
