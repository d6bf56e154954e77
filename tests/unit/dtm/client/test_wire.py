"""What leaves the client, byte for byte, recorded by a plain server in the coordinator's place."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from kit.dtm.client import DtmClient, DtmUnavailable, Msg, Options, Refused, Retry, Saga, tcc
from kit.dtm.errors import DtmError, Failure, Ongoing
from kit.errors.codes import GrpcCode


@dataclass
class Recorder:
    """Answers as told, and remembers path and body of each request."""

    url: str = ""
    bodies: list[tuple[str, str]] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)
    delay: float = 0.0

    async def serve(self, request: web.Request) -> web.Response:
        self.bodies.append((request.path, await request.text()))
        await asyncio.sleep(self.delay)
        status, text = self.answers.pop(0) if self.answers else (200, '{"dtm_result":"SUCCESS"}')
        return web.Response(status=status, text=text)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorder.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    recorder.url = f"http://{host}:{port}"
    yield recorder
    await runner.cleanup()


async def test_a_concurrent_saga_has_go_s_json(recorder: Recorder) -> None:
    """dtm-protocol.md §3.6, the first example."""
    async with DtmClient(f"{recorder.url}/api/dtmsvr") as client:
        saga = Saga(client, "g1", Options(wait_result=True)).concurrent().add_branch_order(1, [0])
        saga.add("http://a/out", "http://a/outBack", {"amount": 30})
        saga.add("http://b/in", "http://b/inBack", {"amount": 30})
        await saga.submit()
    assert recorder.bodies == [
        (
            "/api/dtmsvr/submit",
            (
                '{"gid":"g1","trans_type":"saga",'
                '"custom_data":"{\\"concurrent\\":true,\\"orders\\":{\\"1\\":[0]}}",'
                '"wait_result":true,"concurrent":true,'
                '"steps":[{"action":"http://a/out","compensate":"http://a/outBack"},'
                '{"action":"http://b/in","compensate":"http://b/inBack"}],'
                '"payloads":["{\\"amount\\":30}","{\\"amount\\":30}"],"protocol":""}'
            ),
        )
    ]


async def test_a_saga_says_null_for_no_payload_and_leaves_out_what_is_empty(
    recorder: Recorder,
) -> None:
    """§13.1 and §13.2: ``concurrent`` and ``protocol`` are always there, orders only with it."""
    async with DtmClient(recorder.url) as client:
        await Saga(client, "g").add("http://a/out?x=<1>&y").submit()
    assert recorder.bodies == [
        (
            "/api/dtmsvr/submit",
            (
                '{"gid":"g","trans_type":"saga","concurrent":false,'
                '"steps":[{"action":"http://a/out?x=\\u003c1\\u003e\\u0026y","compensate":""}],'
                '"payloads":["null"],"protocol":""}'
            ),
        )
    ]


async def test_every_option_has_its_place(recorder: Recorder) -> None:
    """The order of Go's structs; branch headers are sorted as Go sorts maps."""
    options = Options(
        timeout_to_fail=40,
        request_timeout=5,
        retry_interval=11,
        retry_limit=3,
        branch_headers={"b": "2", "a": "1"},
        concurrent=True,
    )
    async with DtmClient(f"{recorder.url}/api/dtmsvr/") as client:
        msg = Msg(client, "g", options).delay(7).add_topic("paid", b"x")
        msg.query_url = "http://a/q"
        await msg.submit()
    assert recorder.bodies[0][1] == (
        '{"gid":"g","trans_type":"msg","custom_data":"{\\"delay\\":7}","timeout_to_fail":40,'
        '"request_timeout":5,"retry_interval":11,"branch_headers":{"a":"1","b":"2"},'
        '"concurrent":true,"retry_limit":3,"steps":[{"action":"topic://paid"}],"payloads":["x"],'
        '"query_prepared":"http://a/q","protocol":""}'
    )


async def test_a_tcc_is_prepared_registered_and_aborted_in_go_s_bytes(recorder: Recorder) -> None:
    """§13.4; a map's keys are sorted, and the abort says why."""
    recorder.answers = [(200, "{}"), (200, "{}"), (409, "no money <1>")]
    async with DtmClient(recorder.url) as client:
        with pytest.raises(Failure):
            async with tcc(client, "g2") as t:
                await t.call_branch(
                    {"amount": 30}, f"{recorder.url}/try?a=1", "http://a/ok", "http://a/undo"
                )
    assert recorder.bodies == [
        (
            "/api/dtmsvr/prepare",
            '{"gid":"g2","trans_type":"tcc","concurrent":false,"protocol":""}',
        ),
        (
            "/api/dtmsvr/registerBranch",
            (
                '{"branch_id":"01","cancel":"http://a/undo","confirm":"http://a/ok",'
                '"data":"{\\"amount\\":30}","gid":"g2","trans_type":"tcc"}'
            ),
        ),
        ("/try", '{"amount":30}'),
        (
            "/api/dtmsvr/abort",
            (
                '{"gid":"g2","trans_type":"tcc","concurrent":false,"protocol":"",'
                '"rollback_reason":"no money \\u003c1\\u003e"}'
            ),
        ),
    ]


async def test_json_rpc_wraps_the_same_body(recorder: Recorder) -> None:
    """§4 and §13.1: the id is ``no-use``, and the protocol is said."""
    recorder.answers = [(200, '{"error":null,"id":"no-use","jsonrpc":"2.0","result":null}')]
    async with DtmClient(f"{recorder.url}/api/json-rpc") as client:
        await Saga(client, "g").add("http://a/out", payload={"a": 1}).submit()
    assert recorder.bodies == [
        (
            "/api/json-rpc",
            (
                '{"id":"no-use","jsonrpc":"2.0","method":"submit","params":{"gid":"g",'
                '"trans_type":"saga","concurrent":false,'
                '"steps":[{"action":"http://a/out","compensate":""}],"payloads":["{\\"a\\":1}"],'
                '"protocol":"json-rpc"}}'
            ),
        )
    ]


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (409, '{"dtm_result":"FAILURE","message":"no FAILURE"}', Failure, None),
        (425, '{"dtm_result":"ONGOING","message":"no ONGOING"}', Ongoing, None),
        (200, '{"dtm_result":"FAILURE","message":"no"}', Failure, None),
        (200, '{"dtm_result":"ONGOING","message":"no"}', Ongoing, None),
        (400, '{"message":"no"}', Refused, GrpcCode.INVALID_ARGUMENT),
        (500, '{"message":"no FAILURE"}', DtmUnavailable, GrpcCode.UNKNOWN),
        (502, "no", DtmUnavailable, GrpcCode.UNAVAILABLE),
        (200, "no", DtmUnavailable, GrpcCode.UNKNOWN),
    ],
)
async def test_an_http_answer_becomes_the_exception_of_its_class(
    recorder: Recorder, status: int, body: str, kind: type[DtmError], code: GrpcCode | None
) -> None:
    """§1.3; the words of dtm below 1.10 count in a 200 only."""
    recorder.answers = [(status, body)]
    async with DtmClient(recorder.url, retry=Retry(attempts=1)) as client:
        with pytest.raises(DtmError, match="no") as raised:
            await Saga(client, "g").add("http://a/out").submit()
    assert type(raised.value) is kind
    assert getattr(raised.value, "status", None) is code


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (-32901, "no FAILURE", Failure),
        (-32902, "no", Ongoing),
        (-32603, "no ONGOING", Ongoing),
        (-32603, "no", DtmUnavailable),
        (-32601, "no", Refused),
    ],
)
async def test_a_json_rpc_error_becomes_the_exception_of_its_class(
    recorder: Recorder, code: int, text: str, kind: type[DtmError]
) -> None:
    """§4: dtm answers -32603 where it means ONGOING."""
    error = {"error": {"code": code, "message": text}, "id": "no-use", "result": None}
    recorder.answers = [(200, json.dumps(error))]
    async with DtmClient(f"{recorder.url}/api/json-rpc") as client:
        with pytest.raises(DtmError, match="no") as raised:
            await Saga(client, "g").add("http://a/out").submit()
    assert type(raised.value) is kind


async def test_what_can_be_repeated_is_repeated(recorder: Recorder) -> None:
    """§13.1: a submit whose answer was lost is made again, and ``succeed`` is then no refusal."""
    lost = (503, "restarting")
    done = (409, '{"message":"current status \'succeed\', cannot sumbmit. FAILURE"}')
    recorder.answers = [lost, lost, done]
    async with DtmClient(recorder.url, retry=Retry(pause=0.001)) as client:
        await Saga(client, "g").add("http://a/out").submit()
    assert len(recorder.bodies) == 3
    recorder.answers = [done]
    async with DtmClient(recorder.url) as client:
        with pytest.raises(Failure, match="sumbmit"):
            await Saga(client, "g").add("http://a/out").submit()


async def test_the_registration_of_a_branch_is_never_repeated(recorder: Recorder) -> None:
    """§13.1: the second would be a conflict."""
    recorder.answers = [(200, "{}"), (503, "restarting")]
    async with DtmClient(recorder.url) as client:
        with pytest.raises(DtmUnavailable, match="restarting"):
            async with tcc(client, "g") as t:
                await t.call_branch(None, "http://127.0.0.1:1/try")
    assert [path for path, _ in recorder.bodies] == [
        "/api/dtmsvr/prepare",
        "/api/dtmsvr/registerBranch",
        "/api/dtmsvr/abort",
    ]


async def test_attempts_end(recorder: Recorder) -> None:
    """The error of the last one is raised, with what the caller may do."""
    recorder.answers = [(503, "restarting")] * 9
    async with DtmClient(recorder.url, retry=Retry(attempts=2, pause=0.001)) as client:
        with pytest.raises(DtmUnavailable, match="same gid"):
            await Saga(client, "g").add("http://a/out").submit()
    assert len(recorder.bodies) == 2


@pytest.mark.parametrize("path", ["/api/dtmsvr", "/api/json-rpc"])
async def test_a_server_that_is_no_coordinator_gives_no_gid(recorder: Recorder, path: str) -> None:
    """The error asks whether the address is right."""
    recorder.answers = [(200, "{}"), (200, "<html>"), (404, "404 page not found")]
    async with DtmClient(f"{recorder.url}{path}") as client:
        for words in ("has no gid; is this", "no JSON object; is this", "404 page not found"):
            with pytest.raises(DtmUnavailable, match=words):
                await client.new_gid()


async def test_an_answer_that_makes_no_sense_is_no_outcome(recorder: Recorder) -> None:
    """Neither a crash nor a state."""
    broken = '{"transaction":{"gid":"g","status":"succeed","result":"?"},"branches":[]}'
    recorder.answers = [(200, broken)]
    async with DtmClient(recorder.url) as client:
        with pytest.raises(DtmUnavailable, match="result in the coordinator's answer is no base64"):
            await client.wait("g")


async def test_a_call_ends_with_its_time(recorder: Recorder) -> None:
    """The error names the limit; a deadline of the caller's own is raised as what it is."""

    recorder.delay = 30.0
    async with DtmClient(recorder.url, timeout=0.05) as client:
        with pytest.raises(
            DtmUnavailable, match="no answer in 50ms; the result is unknown"
        ) as raised:
            await Saga(client, "g").add("http://a/out").submit()
    assert raised.value.status is GrpcCode.DEADLINE_EXCEEDED
    async with DtmClient(recorder.url) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Saga(client, "g").add("http://a/out").submit()
