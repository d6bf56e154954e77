"""What a branch sees when it is called, and what its answer is taken for.

Source: dtm-labs/dtm dtmsvr/trans_status.go, client/dtmgrpc/dtmgimp/utils.go,
client/dtmcli/utils.go (HTTPResp2DtmError).
"""

import asyncio
import json
from urllib.parse import parse_qsl

import grpc
import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, SUCCESS, Answer
from tests.conformance.dtm.clients import PAYLOAD, Api, Tx
from tests.conformance.dtm.coordinators import FOREIGN, Coordinator, accepted, msg, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_row_35_grpc_branch_sees_metadata_and_payload(tm: Coordinator) -> None:
    """The five keys of dtm, an empty address among them, and the bytes as they were given."""
    gid = tm.gid()
    payload = b"\x08\x1e\x10\x01\xff\x00"
    steps = [{"action": tm.grpc.url("out")}]
    accepted(await tm.grpc.submit(Tx(gid, "msg", steps, [payload], options={"wait_result": True})))
    (call,) = tm.business.calls(gid)
    told = {key: value for key, value in call.headers.items() if key.startswith("dtm-")}
    assert told == {
        "dtm-gid": gid,
        "dtm-trans_type": "msg",
        "dtm-branch_id": "01",
        "dtm-op": "action",
        "dtm-dtm": "",
    }
    assert call.body == payload
    assert call.path == "/busi.Busi/out"


async def test_row_36_http_branch_sees_its_query_and_a_post_with_payload(tm: Coordinator) -> None:
    """What stood in the URL stays; four parameters are sorted behind it."""
    gid = tm.gid()
    steps = [{"action": f"{tm.http.url('out')}?a=1&b=x%20y"}]
    accepted(await tm.http.submit(Tx(gid, "msg", steps, options={"wait_result": True})))
    (call,) = tm.business.calls(gid)
    assert call.method == "POST"
    assert parse_qsl(call.raw_query, keep_blank_values=True) == [
        ("a", "1"),
        ("b", "x y"),
        ("branch_id", "01"),
        ("gid", gid),
        ("op", "action"),
        ("trans_type", "msg"),
    ]
    assert call.body == PAYLOAD
    assert call.headers["content-type"].startswith("application/json")
    assert "dtm" not in call.query


async def test_row_36_http_branch_without_payload_is_a_get(tm: Coordinator) -> None:
    """With the same header, and no body."""
    gid = tm.gid()
    steps = [{"action": tm.http.url("out")}]
    accepted(await tm.http.submit(Tx(gid, "msg", steps, [b""], options={"wait_result": True})))
    (call,) = tm.business.calls(gid)
    assert (call.method, call.body) == ("GET", b"")
    assert call.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("status", [201, 204, 404, 500, 503])
async def test_row_36_http_statuses_but_200_409_and_425_say_nothing(
    tm: Coordinator, status: int
) -> None:
    """The branch is asked again."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", Answer(status, text="" if status == 204 else "hm"), SUCCESS)
    accepted(await tm.http.submit(saga(tm.http, gid)))
    await tm.business.until_called(gid)
    tx = await tm.settled(gid)
    assert (tx["status"], tx["next_cron_interval"]) == ("submitted", 20)
    await tm.retry(gid)
    await tm.until(gid, "succeed")


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (grpc.StatusCode.ABORTED, "no", "failed"),
        (grpc.StatusCode.ABORTED, "ONGOING", "submitted"),
        (grpc.StatusCode.FAILED_PRECONDITION, "whatever", "submitted"),
        (grpc.StatusCode.NOT_FOUND, "FAILURE", "submitted"),
        (grpc.StatusCode.INTERNAL, "no", "submitted"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
async def test_row_35_grpc_codes_are_classified(
    tm: Coordinator, code: grpc.StatusCode, text: str, status: str
) -> None:
    """Aborted is no, unless it says ONGOING."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", Answer(code=code, text=text))
    accepted(await tm.grpc.submit(saga(tm.grpc, gid)))
    await tm.business.until_called(gid)
    assert (await tm.settled(gid))["status"] == status


async def test_row_35_bare_word_in_a_failure_reads_twice(tm: Coordinator) -> None:
    """Only the suffix with its space is recognized."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", Answer(code=grpc.StatusCode.ABORTED, text="FAILURE"))
    accepted(await tm.grpc.submit(saga(tm.grpc, gid)))
    tx = await tm.until(gid, "failed")
    assert tx["rollback_reason"].endswith("return failed: FAILURE FAILURE")


def rpc(tx: Tx) -> Tx:
    """``tx`` with the protocol that the Go client of JSON-RPC sends."""
    return Tx(
        tx.gid, tx.trans_type, tx.steps, tx.payloads, options={**tx.options, "protocol": "json-rpc"}
    )


async def test_row_37_json_rpc_branch_gets_its_payload_merged_with_the_transaction(
    tm: Coordinator,
) -> None:
    """A POST to the URL as given; ``method`` is taken from its query."""
    gid = tm.gid()
    steps = [{"action": f"{tm.http.url('rpc')}?method=TransOut"}]
    tx = rpc(Tx(gid, "msg", steps, options={"wait_result": True}))
    accepted(await tm.json_rpc.submit(tx))
    (call,) = tm.business.calls(gid)
    body = json.loads(call.body)
    assert call.method == "POST"
    assert call.query == {"method": "TransOut"}
    assert isinstance(body.pop("id"), str)
    assert body == {
        "jsonrpc": "2.0",
        "method": "TransOut",
        "params": {
            "amount": 30,
            "gid": gid,
            "trans_type": "msg",
            "branch_id": "01",
            "op": "action",
        },
    }


@pytest.mark.parametrize(
    ("code", "status"), [(-32901, "failed"), (-32902, "submitted"), (-32000, "submitted")]
)
async def test_row_37_json_rpc_error_codes_of_a_branch_are_classified(
    tm: Coordinator, code: int, status: str
) -> None:
    """[Q-free]: -32901 means FAILURE, where dtm compares numbers of different types."""
    gid = tm.gid("saga")
    error = {"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": "x"}, "result": None}
    if FOREIGN:
        error["error"] = {"code": code, "message": "FAILURE" if status == "failed" else "x"}
    tm.business.script(gid, "rpc", Answer(text=json.dumps(error)))
    steps = [{"action": f"{tm.http.url('rpc')}?method=A", "compensate": ""}]
    accepted(await tm.json_rpc.submit(rpc(Tx(gid, "saga", steps))))
    await tm.business.until_called(gid)
    tx = await tm.settled(gid)
    assert tx["status"] == status
    if status == "submitted":
        wanted = 10 if code == -32902 else 20
        assert tx["next_cron_interval"] in ((wanted, 20) if FOREIGN else (wanted,))


async def test_row_37_json_rpc_transaction_calls_other_urls_by_http_and_grpc(
    tm: Coordinator,
) -> None:
    """Without ``method`` in the URL it is HTTP, without http:// it is gRPC."""
    gid = tm.gid()
    steps = [{"action": tm.http.url("out")}, {"action": tm.grpc.url("in")}]
    accepted(await tm.json_rpc.submit(rpc(Tx(gid, "msg", steps, options={"wait_result": True}))))
    assert [(c.name, c.method) for c in tm.business.calls(gid)] == [("out", "POST"), ("in", "grpc")]


async def test_row_38_grpc_transaction_may_have_http_branches(tm: Coordinator) -> None:
    """They receive the bytes of the message."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", FAILURE)
    steps = [
        {"action": tm.grpc.url("out"), "compensate": tm.http.url("outBack")},
        {"action": tm.http.url("in"), "compensate": tm.grpc.url("inBack")},
    ]
    accepted(await tm.grpc.submit(Tx(gid, "saga", steps, [b"\x08\x1e", b"\x10\x01"])))
    await tm.until(gid, "failed")
    assert [(str(c), c.method, c.body) for c in tm.business.calls(gid)] == [
        ("01 action", "grpc", b"\x08\x1e"),
        ("02 action", "POST", b"\x10\x01"),
        ("02 compensate", "grpc", b"\x10\x01"),
        ("01 compensate", "POST", b"\x08\x1e"),
    ]
    assert (await tm.tx(gid))["protocol"] == "grpc"


@pytest.mark.parametrize(
    ("word", "status"), [("FAILURE", "failed"), ("ONGOING", "submitted"), ("SUCCESS", "succeed")]
)
async def test_row_39_words_of_old_services_in_a_body_with_200_count(
    tm: Coordinator, word: str, status: str
) -> None:
    """As before dtm 1.10."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", Answer(200, text=json.dumps({"dtm_result": word})))
    accepted(await tm.http.submit(saga(tm.http, gid)))
    await tm.business.until_called(gid)
    if status == "submitted":
        tx = await tm.settled(gid)
        assert (tx["status"], tx["next_cron_interval"]) == (status, 10)
    else:
        await tm.until(gid, status)


async def test_row_40_branch_headers_come_with_every_call_of_every_round(
    tm: Coordinator, api: Api
) -> None:
    """At first and after cron took it up."""
    gid = tm.gid()
    tm.business.script(gid, "out", ERROR, SUCCESS)
    headers = {"x-tenant": "blue", "authorization": "Bearer t"}
    accepted(await api.submit(msg(api, gid, branch_headers=headers)))
    await tm.business.until_called(gid)
    await tm.settled(gid)
    await tm.retry(gid)
    await tm.until(gid, "succeed")
    calls = tm.business.calls(gid)
    assert len(calls) == 3
    for call in calls:
        assert call.headers["x-tenant"] == "blue"
        assert call.headers["authorization"] == "Bearer t"


async def test_row_40_branch_headers_may_change_the_content_type(tm: Coordinator) -> None:
    """Of an HTTP branch."""
    gid = tm.gid()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    accepted(await tm.http.submit(msg(tm.http, gid, branch_headers=headers, wait_result=True)))
    for call in tm.business.calls(gid):
        assert call.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_row_41_request_timeout_is_how_long_a_branch_may_take(tm: Coordinator) -> None:
    """Shorter and longer than the server's setting of 3 seconds."""

    async def outcome(api: Api, limit: int, delay: float) -> str:
        gid = tm.gid()
        tm.business.script(gid, "out", Answer(delay=delay), SUCCESS)
        await api.submit(msg(api, gid, "out", request_timeout=limit, wait_result=True))
        return await tm.status(gid)

    outcomes = await asyncio.gather(
        *(
            outcome(api, limit, delay)
            for api in (tm.http, tm.grpc)
            for limit, delay in ((1, 5), (15, 3.5), (0, 8))
        )
    )
    assert outcomes == ["submitted", "succeed", "submitted"] * 2
