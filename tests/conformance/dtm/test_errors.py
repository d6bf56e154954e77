"""How errors look over HTTP, gRPC and JSON-RPC, and how bodies are decoded.

Where dtm panics over a request that can never work, ours refuses it: 400 instead of 500,
INVALID_ARGUMENT instead of INTERNAL or UNKNOWN (docs/divergence.md).

Source: dtm-labs/dtm dtmutil/utils.go, client/dtmgrpc/type.go, dtmsvr/svr.go, api_json_rpc.go.
"""

import json

import grpc
import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import INVALID, Tx, body_of, unique
from tests.conformance.dtm.coordinators import FOREIGN, Coordinator, accepted, msg, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = "application/json; charset=utf-8"
NEVER = {400, 500} if FOREIGN else {400}
UNKNOWN, INVALID_ARGUMENT, ABORTED, FAILED_PRECONDITION, INTERNAL = 2, 3, 10, 9, 13
REFUSED = {INVALID_ARGUMENT, INTERNAL} if FOREIGN else {INVALID_ARGUMENT}


async def raw(tm: Coordinator, method: str, path: str, data: bytes = b"") -> tuple[int, str, str]:
    """Status, content type and body."""
    url = f"{tm.http.base.removesuffix('/api/dtmsvr')}{path}"
    async with tm.http.session.request(
        method, url, data=data or None, allow_redirects=False
    ) as reply:
        return reply.status, reply.headers.get("Content-Type", ""), await reply.text()


async def test_row_03_success_without_a_value_is_200_with_the_word(tm: Coordinator) -> None:
    """The whole body."""
    body = json.dumps(body_of(msg(tm.http, tm.gid()))).encode()
    assert await raw(tm, "POST", "/api/dtmsvr/submit", body) == (
        200,
        JSON,
        '{"dtm_result":"SUCCESS"}',
    )


async def test_row_03_failure_is_409_with_word_and_message(tm: Coordinator) -> None:
    """Keys in alphabetical order."""
    gid = tm.gid()
    accepted(await tm.http.submit(msg(tm.http, gid, wait_result=True)))
    body = json.dumps(body_of(msg(tm.http, gid))).encode()
    assert await raw(tm, "POST", "/api/dtmsvr/submit", body) == (
        409,
        JSON,
        '{"dtm_result":"FAILURE","message":"current status \'succeed\', cannot sumbmit. FAILURE"}',
    )


async def test_row_03_ongoing_is_425_with_word_and_message(tm: Coordinator) -> None:
    """A waiting client of a tcc whose confirm goes on."""
    gid = tm.gid("tcc")
    tm.business.script(gid, "ok", ONGOING)
    accepted(await tm.http.prepare(Tx(gid, "tcc")))
    accepted(await tm.http.register(gid, "tcc", "01", confirm=tm.http.url("ok"), cancel=""))
    reply = await tm.http.submit(Tx(gid, "tcc", options={"wait_result": True}))
    assert reply.code == 425
    assert list(reply.body) == ["dtm_result", "message"]
    assert reply.body["dtm_result"] == "ONGOING"
    assert "ONGOING" in reply.text


async def test_row_03_other_errors_are_500_with_a_message_alone(tm: Coordinator) -> None:
    """No result word: the client does not know what became of it."""
    gid = unique("nobody")
    body = json.dumps(body_of(Tx(gid, "tcc"))).encode()
    status, kind, text = await raw(tm, "POST", "/api/dtmsvr/abort", body)
    assert (status, kind) == (500, JSON)
    assert json.loads(text) == {"message": f"no TransGlobal with gid: {gid} found"}


async def test_row_03_characters_of_html_are_escaped(tm: Coordinator) -> None:
    r"""``\u003c`` and its kin, as Go writes them."""
    body = json.dumps(body_of(Tx("a<b>&c", "tcc"))).encode()
    _, _, text = await raw(tm, "POST", "/api/dtmsvr/abort", body)
    assert r"a\u003cb\u003e\u0026c" in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/dtmsvr/nowhere"),
        ("GET", "/api/dtmsvr/submit"),
        ("POST", "/api/dtmsvr/query"),
        ("GET", "/api/dtmsvr"),
        ("GET", "/api/json-rpc"),
        ("GET", "/api/dtmsvr/queryTopic"),
    ],
)
async def test_row_03_unknown_routes_and_wrong_methods_are_404_in_plain_text(
    tm: Coordinator, method: str, path: str
) -> None:
    status, kind, text = await raw(tm, method, path)
    assert (status, text) == (404, "404 page not found")
    assert kind.startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "version", 301), ("POST", "submit", 307)]
)
async def test_row_03_trailing_slash_is_redirected(
    tm: Coordinator, method: str, path: str, status: int
) -> None:
    assert (await raw(tm, method, f"/api/dtmsvr/{path}/"))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"gid":1,"trans_type":"msg"}',
        b'{"gid":"g","trans_type":"msg","retry_interval":"10"}',
        b'{"gid":"g","trans_type":"msg","steps":{"action":"http://a"}}',
        b'{"gid":"g","trans_type":"msg","payloads":[1]}',
        b'{"gid":"g","trans_type":"sage"}',
        b'{"gid":"g"}',
        b'{"gid":"too-few-payloads","trans_type":"msg","steps":[{"action":"http://127.0.0.1/a"}]}',
    ],
    ids=lambda body: body.decode()[:40] or "empty",
)
async def test_row_03_body_that_can_never_work_is_an_error(tm: Coordinator, body: bytes) -> None:
    """500 of dtm, 400 of ours, and a message."""
    status, kind, text = await raw(tm, "POST", "/api/dtmsvr/submit", body)
    assert status in NEVER
    assert kind == JSON
    assert list(json.loads(text)) == ["message"]


async def test_row_03_bodies_are_read_as_go_reads_them(tm: Coordinator) -> None:
    """Keys match in any case, unknown ones are ignored, null is absent, whatever Content-Type."""
    gid = tm.gid()
    body = {
        "GID": gid,
        "Trans_Type": "msg",
        "steps": [{"action": tm.http.url("out")}],
        "payloads": ["{}"],
        "custom_data": None,
        "query_prepared": None,
        "protocol": None,
        "branch_headers": {},
        "passthrough_headers": [],
        "request_timeout": 8,
        "retry_interval": 0,
        "wait_result": True,
        "no_such_key": {"a": [1]},
    }
    reply = await tm.http.send(
        "POST", "submit", data=json.dumps(body).encode(), headers={"Content-Type": "text/plain"}
    )
    accepted(reply)
    assert await tm.status(gid) == "succeed"


async def test_row_03_registration_with_a_value_that_is_no_text_is_400(tm: Coordinator) -> None:
    """[Q-keep]."""
    gid = tm.gid("tcc")
    accepted(await tm.http.prepare(Tx(gid, "tcc")))
    body = {"gid": gid, "trans_type": "tcc", "branch_id": 1, "confirm": "", "cancel": ""}
    reply = await tm.http.post("registerBranch", body)
    assert reply.code == 400
    assert await tm.rows(gid) == ""


async def test_row_03_registration_of_an_unknown_type_names_it(tm: Coordinator) -> None:
    gid = tm.gid("tcc")
    accepted(await tm.http.prepare(Tx(gid, "tcc")))
    reply = await tm.http.register(gid, "sage", "01")
    assert reply.code in NEVER
    assert "unknow trans type: sage" in reply.text


@pytest.mark.parametrize("route", ["registerBranch", "registerTccBranch", "registerXaBranch"])
async def test_row_03_registration_has_aliases_for_old_clients(tm: Coordinator, route: str) -> None:
    """With keys that nobody reads."""
    gid = tm.gid("tcc")
    accepted(await tm.http.prepare(Tx(gid, "tcc")))
    body = {
        "gid": gid,
        "trans_type": "tcc",
        "branch_id": "01",
        "data": None,
        "status": "prepared",
        "try": tm.http.url("try"),
        "confirm": tm.http.url("ok"),
        "cancel": tm.http.url("undo"),
    }
    accepted(await tm.http.post(route, body))
    assert await tm.rows(gid) == "P P"


async def test_row_04_failure_is_aborted(tm: Coordinator) -> None:
    gid = tm.gid()
    accepted(await tm.grpc.submit(msg(tm.grpc, gid, wait_result=True)))
    reply = await tm.grpc.prepare(msg(tm.grpc, gid))
    assert (reply.code, reply.text) == (
        ABORTED,
        "current status 'succeed', cannot prepare. FAILURE",
    )


async def test_row_04_ongoing_is_failed_precondition(tm: Coordinator) -> None:
    gid = tm.gid("tcc")
    tm.business.script(gid, "ok", ONGOING)
    accepted(await tm.grpc.prepare(Tx(gid, "tcc")))
    accepted(await tm.grpc.register(gid, "tcc", "01", confirm=tm.grpc.url("ok"), cancel=""))
    reply = await tm.grpc.submit(Tx(gid, "tcc", options={"wait_result": True}))
    assert (reply.code, reply.text) == (FAILED_PRECONDITION, "ONGOING")


async def test_row_04_returned_errors_are_unknown(tm: Coordinator) -> None:
    """A topic that does not exist, and a branch that is registered twice."""
    reply = await tm.grpc.topic("DeleteTopic", unique("topic"))
    assert (reply.code, reply.text) == (UNKNOWN, "storage: NotFound")
    gid = tm.gid("tcc")
    accepted(await tm.grpc.prepare(Tx(gid, "tcc")))
    accepted(await tm.grpc.register(gid, "tcc", "01", confirm="", cancel=""))
    assert (await tm.grpc.register(gid, "tcc", "01", confirm="", cancel="")).code == UNKNOWN


async def test_row_04_code_of_a_branch_is_passed_on_to_who_waits(tm: Coordinator) -> None:
    """UNAVAILABLE of a branch is UNAVAILABLE of the Submit."""
    gid = tm.gid()
    down = Answer(500, grpc.StatusCode.RESOURCE_EXHAUSTED, "out of everything")
    tm.business.script(gid, "out", down)
    reply = await tm.grpc.submit(msg(tm.grpc, gid, wait_result=True))
    assert reply.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "out of everything" in reply.text


async def test_row_04_panics_of_dtm_are_internal_or_name_what_was_wrong(tm: Coordinator) -> None:
    """An unknown gid stays INTERNAL; what can never work is INVALID_ARGUMENT of ours."""
    gid = unique("nobody")
    reply = await tm.grpc.abort(Tx(gid, "tcc"))
    assert (reply.code, reply.text) == (INTERNAL, f"no TransGlobal with gid: {gid} found")
    reply = await tm.grpc.submit(Tx(gid, "workflow", req_extra={"status": "succeed"}))
    assert (reply.code, reply.text) == (INTERNAL, "storage: NotFound")
    reply = await tm.grpc.submit(Tx(tm.gid(), "sage"))
    assert reply.code in REFUSED
    steps = [{"action": tm.grpc.url("out")}]
    reply = await tm.grpc.submit(Tx(tm.gid(), "msg", steps, payloads=[]))
    assert reply.code in REFUSED
    reply = await tm.grpc.call("Submit", b"\xff\xff")
    assert reply.code == INTERNAL


async def test_row_53_json_rpc_replies_have_all_four_keys(tm: Coordinator) -> None:
    reply = await tm.json_rpc.send(
        {"jsonrpc": "2.0", "id": "my-id", "method": "newGid", "params": {}}
    )
    assert sorted(reply.body) == ["error", "id", "jsonrpc", "result"]
    assert (reply.body["error"], reply.body["id"], reply.body["jsonrpc"]) == (None, "my-id", "2.0")


@pytest.mark.parametrize(
    ("body", "code", "begin", "status"),
    [
        ("{", -32700, "Parse json error: ", 400),
        ({"jsonrpc": "2.0", "id": 1, "method": "newGid"}, -32700, "Parse json error: ", 400),
        ({"jsonrpc": "1.0", "id": "a", "method": "newGid"}, -32600, "Bad json request: ", 200),
        ({"jsonrpc": "2.0", "id": "", "method": "newGid"}, -32600, "Bad json request: ", 200),
        ({"jsonrpc": "2.0", "id": "a", "method": "x"}, -32601, "Method not found: x", 200),
        (
            {"jsonrpc": "2.0", "id": "a", "method": "abort", "params": {"gid": "nobody-53"}},
            -32603,
            "",
            200,
        ),
    ],
    ids=["not JSON", "id is a number", "version", "empty id", "method", "unknown gid"],
)
async def test_row_53_json_rpc_error_codes(
    tm: Coordinator, body: object, code: int, begin: str, status: int
) -> None:
    """Five bad requests and one that fails."""
    reply = await tm.json_rpc.send(body)
    assert reply.body["error"]["code"] == code
    assert reply.body["error"]["message"].startswith(begin)
    data = body if isinstance(body, str) else json.dumps(body)
    assert (await raw(tm, "POST", "/api/json-rpc", data.encode()))[0] == status


async def test_row_53_json_rpc_failure_has_its_code(tm: Coordinator) -> None:
    """-32901; everything else that goes wrong is -32603, ONGOING too."""
    gid, waiting = tm.gid(), tm.gid("tcc")
    accepted(await tm.json_rpc.submit(saga(tm.http, gid, wait_result=True)))
    reply = await tm.json_rpc.submit(saga(tm.http, gid))
    assert (reply.code, reply.text) == (-32901, "current status 'succeed', cannot sumbmit. FAILURE")
    tm.business.script(waiting, "ok", ONGOING)
    accepted(await tm.http.prepare(Tx(waiting, "tcc")))
    accepted(await tm.http.register(waiting, "tcc", "01", confirm=tm.http.url("ok"), cancel=""))
    reply = await tm.json_rpc.submit(Tx(waiting, "tcc", options={"wait_result": True}))
    assert reply.code == -32603


@pytest.mark.parametrize("name", ["http", "grpc", "json-rpc"])
@pytest.mark.parametrize("outcome", [FAILURE, ERROR], ids=["failure", "error"])
async def test_row_03_word_of_a_failed_wait_is_the_same_over_every_api(
    tm: Coordinator, name: str, outcome: Answer
) -> None:
    """A tcc whose confirm fails is no success for anybody."""
    api, gid = tm.api(name), tm.gid("tcc")
    tm.business.script(gid, "ok", outcome)
    accepted(await api.prepare(Tx(gid, "tcc")))
    accepted(await api.register(gid, "tcc", "01", confirm=api.url("ok"), cancel=""))
    reply = await api.submit(Tx(gid, "tcc", options={"wait_result": True}))
    assert reply.word == ("FAILURE" if outcome is FAILURE else BROKEN)
    assert reply.word != INVALID
