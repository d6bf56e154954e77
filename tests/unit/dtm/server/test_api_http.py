"""The HTTP API: bodies and replies as dtm's clients know them, over a real socket."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import __version__
from kit.dtm.server.caller import BranchAnswer
from kit.dtm.store import Filter, Held, StoreUnavailable
from kit.dtm.store.memory import MemoryStore
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import Result
from kit.testing import ManualClock
from tests.unit.dtm.server.http_side import Side, http_side, msg

SUCCESS = b'{"dtm_result":"SUCCESS"}'


@pytest.fixture(params=["memory", "sqlite"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    clock = ManualClock()
    memory = request.param == "memory"
    store = MemoryStore(clock) if memory else SqliteStore(tmp_path / "t.db", clock)
    async with http_side(store=store, clock=clock) as made:
        yield made


async def test_version_and_ping_and_a_new_gid(side: Side) -> None:
    """Spec §3.2; ping takes any method, and none of the others."""
    assert (await side.get("version")).json == {"version": f"v{__version__}"}
    for method in ("GET", "POST", "DELETE", "PUT"):
        assert (await side.ask(method, "/api/ping")).data == b'{"msg":"pong"}'
    first, second = (await side.get("newGid")).json, (await side.get("newGid")).json
    assert first["dtm_result"] == "SUCCESS"
    assert re.fullmatch("[2-9A-HJ-NP-Za-km-z]{22}", first["gid"])
    assert first["gid"] != second["gid"]


async def test_a_submitted_message_is_carried_out_with_its_payload(side: Side) -> None:
    """Payloads of HTTP are the texts as they were sent; the reply is dtm's, byte for byte."""
    answer = await side.post("submit", msg(wait_result=True))
    assert (answer.status, answer.data) == (200, SUCCESS)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert side.branches.calls == [("01", "http://b.test/in", b'{"amount":30}')]
    found = (await side.get("query?gid=g1")).json
    assert found["transaction"]["status"] == "succeed"
    assert found["transaction"]["options"] == '{"wait_result":true,"concurrent":false}'
    assert found["transaction"]["protocol"] == "http"


async def test_objects_of_query_have_dtm_keys_and_leave_out_what_is_empty(side: Side) -> None:
    """Spec §3.5, a prepared message."""
    await side.post("prepare", msg(query_prepared="http://b.test/q", branch_headers={"a": "b"}))
    found = (await side.get("query?gid=g1")).json
    assert list(found) == ["branches", "transaction"]
    tx = found["transaction"]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?[+-]\d\d:\d\d"
    assert re.fullmatch(time, tx.pop("create_time"))
    assert re.fullmatch(time, tx.pop("update_time"))
    assert re.fullmatch(time, tx.pop("next_cron_time"))
    assert tx.pop("next_cron_interval") > 0
    assert tx == {
        "id": tx["id"],
        "gid": "g1",
        "trans_type": "msg",
        "status": "prepared",
        "query_prepared": "http://b.test/q",
        "protocol": "http",
        "options": '{"branch_headers":{"a":"b"},"concurrent":false}',
        "branch_headers": {"a": "b"},
        "concurrent": False,
    }
    [branch] = found["branches"]
    assert base64.b64decode(branch["bin_data"]) == b'{"amount":30}'
    assert {key: branch[key] for key in ("gid", "url", "branch_id", "op", "status")} == {
        "gid": "g1", "url": "http://b.test/in", "branch_id": "01",
        "op": "action", "status": "prepared",
    }  # fmt: skip
    assert {"id", "create_time", "update_time"} < set(branch)
    assert "finish_time" not in branch


async def test_an_unknown_gid_is_null_and_a_missing_one_an_error(side: Side) -> None:
    """Spec §3.2, query."""
    assert (await side.get("query?gid=none")).data == b'{"branches":[],"transaction":null}'
    answer = await side.get("query")
    assert (answer.status, answer.json) == (500, {"message": "no gid specified"})


async def test_failure_and_unknown_have_their_statuses(side: Side) -> None:
    """409 with the result word when it is a definite no; 500 without one when nobody knows."""
    side.branches.answers["http://b.test/in"] = BranchAnswer(Result.UNKNOWN, "connection refused")
    down = await side.post("submit", msg("down", wait_result=True))
    assert down.status == 500
    assert list(down.json) == ["message"]
    await side.post("submit", msg("over"))
    await side.post("forceStop", {"gid": "over"})
    refused = await side.post("submit", msg("over"))
    assert refused.status == 409
    assert refused.json == {
        "dtm_result": "FAILURE",
        "message": "current status 'failed', cannot sumbmit. FAILURE",
    }


async def test_stopping_needs_a_transaction_that_is_not_over(side: Side) -> None:
    """Spec §5.2, forceStop: 500 for nobody's gid, 409 once it is terminal."""
    nobody = await side.post("forceStop", {"gid": "none"})
    assert (nobody.status, nobody.json) == (500, {"message": "no TransGlobal with gid: none found"})
    await side.post("prepare", msg())
    assert (await side.post("forceStop", {"gid": "g1", "rollback_reason": "by hand"})).status == 200
    again = await side.post("forceStop", {"gid": "g1"})
    assert again.status == 409
    assert again.json["message"].endswith("FAILURE")
    found = (await side.get("query?gid=g1")).json["transaction"]
    assert (found["status"], found["rollback_reason"]) == ("failed", "by hand")


async def test_aborting_an_unknown_gid_is_a_500_as_in_dtm(side: Side) -> None:
    """Spec §5.2, Abort."""
    answer = await side.post("abort", {"gid": "none", "trans_type": "msg"})
    assert (answer.status, answer.json) == (500, {"message": "no TransGlobal with gid: none found"})


async def test_line_ends_and_semicolons_are_taken_out_of_a_gid(side: Side) -> None:
    """Spec §3.3: they are stripped, so both spellings are one transaction."""
    assert (await side.post("prepare", msg("a;b\r\n"))).status == 200
    assert (await side.get("query?gid=ab")).json["transaction"]["gid"] == "ab"
    assert (await side.post("submit", msg("ab"))).status == 200


async def test_the_body_of_the_python_client_is_taken(side: Side) -> None:
    """Spec §15: dtmcli-py sends null and default values of everything it knows."""
    body = msg(
        custom_data=None, query_prepared=None, protocol=None, wait_result=False, timeout_to_fail=0,
        request_timeout=8, retry_interval=0, passthrough_headers=[], branch_headers={},
        concurrent=False, rollback_reason=None, unknown={"a": [1, 1.5, 10**30]},
    )  # fmt: skip
    assert (await side.post("submit", body)).data == SUCCESS
    options = (await side.get("query?gid=g1")).json["transaction"]["options"]
    assert json.loads(options)["request_timeout"] == 8


async def test_payloads_of_old_clients_stand_in_their_steps(side: Side) -> None:
    """Spec §3.3: the list is payloads followed by every non-empty steps[i].data."""
    body = msg(
        payloads=None,
        wait_result=True,
        steps=[
            {"action": "http://b.test/1", "data": '{"n":1}'},
            {"action": "http://b.test/2", "data": '{"n":2}'},
        ],
    )
    assert (await side.post("submit", body)).status == 200
    assert sorted(side.branches.calls) == [
        ("01", "http://b.test/1", b'{"n":1}'),
        ("02", "http://b.test/2", b'{"n":2}'),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "unexpected end of JSON input"),
        (b"   \n", "unexpected end of JSON input"),
        (b"{", "not JSON"),
        (b'{"gid":"g1"} x', "not JSON"),
        (b"[]", "the body: an array"),
        (b'"text"', "the body: 'text'"),
        (b"NaN", "NaN is no number of JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"null", "TransType: '' is unknown"),
        (msg(trans_type="soga"), "TransType: 'soga' is unknown"),
        (msg(gid=5), "gid: 5 stands where a text belongs"),
        (msg(gid=""), "Gid: it is empty"),
        (msg(gid="x" * 129), "Gid: 129 characters"),
        (msg(gid="a\0b"), "gid: it holds a NUL"),
        (msg(wait_result="yes"), "wait_result: 'yes' stands where true or false belongs"),
        (msg(wait_result=1), "wait_result: 1 stands"),
        (msg(timeout_to_fail="5"), "timeout_to_fail: '5' stands where a whole number belongs"),
        (msg(timeout_to_fail=1.0), "timeout_to_fail: 1.0 stands"),
        (msg(timeout_to_fail=True), "timeout_to_fail: true stands"),
        (msg(timeout_to_fail=10**19), "timeout_to_fail: 10000000000000000000 is too large"),
        (msg(retry_interval=-1), "RetryInterval: -1"),
        (msg(steps={}), "steps: an object stands where an array belongs"),
        (msg(steps=["a"]), "steps[0]: 'a' stands where an object belongs"),
        (msg(steps=[{"action": 1}]), "steps[0].action: 1 stands where a text belongs"),
        (msg(steps=[{}]), "Steps[0].action: it is missing"),
        (msg(payloads=[]), "0 for 1 steps"),
        (msg(payloads=[{}]), "payloads[0]: an object stands where a text belongs"),
        (msg(branch_headers={"a": 1}), "branch_headers.a: 1 stands"),
        (msg(branch_headers={"a b": "c"}), "BranchHeaders"),
        (msg(protocol="ftp"), "protocol: 'ftp' is unknown"),
        (msg(custom_data="{"), "not JSON"),
    ],
)
async def test_a_body_that_can_never_work_is_refused_with_its_field_and_stores_nothing(
    side: Side, body: object, said: str
) -> None:
    """400, a message that names what is wrong, and no trace in the store."""
    for name in ("prepare", "submit"):
        answer = await side.post(name, body)
        assert answer.status == 400
        assert list(answer.json) == ["message"]
        assert said in answer.json["message"]
    assert await side.store.scan("", 10, Filter()) == ([], "")


async def test_a_huge_number_is_refused_where_it_matters_and_ignored_where_it_does_not(
    side: Side,
) -> None:
    """Thousands of digits are no more work than twenty."""
    digits = b"9" * 100_000
    body = json.dumps(msg()).encode()[:-1]
    answer = await side.post("prepare", body + b',"retry_limit":' + digits + b"}")
    assert answer.status == 400
    assert "retry_limit: 99999" in answer.json["message"]
    assert len(answer.data) < 300
    assert (await side.post("prepare", body + b',"other":' + digits + b"}")).status == 200


async def test_keys_match_in_any_case_and_the_last_one_wins(side: Side) -> None:
    """As Go fills a struct; null leaves a field as it was."""
    body = (
        b'{"GID":"first","gid":"g1","Trans_Type":"msg","trans_type":null,'
        b'"Steps":[{"action":"http://b.test/in"}],"PAYLOADS":["1"]}'
    )
    assert (await side.post("prepare", body)).status == 200
    assert (await side.get("query?gid=g1")).json["transaction"]["trans_type"] == "msg"
    again = (
        b'{"gid":"a","GID":"b","gid":"g2","trans_type":"msg",'
        b'"steps":[{"action":"http://b.test/in"}],"payloads":["1"]}'
    )
    assert (await side.post("prepare", again)).status == 200
    assert (await side.get("query?gid=g2")).json["transaction"] is not None


async def test_broken_text_becomes_replacement_characters(side: Side) -> None:
    """Go reads invalid UTF-8 and lone surrogates as U+FFFD; a payload with them can be stored."""
    body = json.dumps(msg()).encode().replace(b'"{\\"amount\\":30}"', b'"a\xff\\ud800b"')
    assert b"\xff" in body
    assert (await side.post("prepare", body)).status == 200
    [branch] = (await side.get("query?gid=g1")).json["branches"]
    assert base64.b64decode(branch["bin_data"]).decode() == "a\ufffd\ufffdb"


async def test_angle_brackets_and_ampersands_are_escaped_in_replies(side: Side) -> None:
    """As Go writes them: a reply pasted into a page stays text."""
    custom = '{"note":"<a&b>\u2028\u2029"}'
    assert (await side.post("prepare", msg(custom_data=custom))).status == 200
    answer = await side.get("query?gid=g1")
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        assert character not in answer.text
    assert "\\u003ca\\u0026b\\u003e\\u2028\\u2029" in answer.text
    assert answer.json["transaction"]["custom_data"] == custom


async def test_all_pages_through_everything_and_takes_filters(side: Side) -> None:
    """Walked by limit 1 every transaction comes once; filters are all meant together."""
    for number in range(3):
        await side.post("prepare", msg(f"p{number}"))
    await side.post("submit", msg("s", wait_result=True))
    position, seen = "", []
    for _ in range(10):
        page = (await side.get(f"all?limit=1&position={position}")).json
        assert list(page) == ["next_position", "transactions"]
        seen += [tx["gid"] for tx in page["transactions"] or []]
        position = page["next_position"]
        if not position:
            break
    assert sorted(seen) == ["p0", "p1", "p2", "s"]
    found = (await side.get("all?status=succeed&transType=msg")).json["transactions"]
    assert [tx["gid"] for tx in found] == ["s"]
    assert (await side.get("all?status=succeed&transType=saga")).json["transactions"] is None
    now = side.clock.now_ms()
    span = f"createTimeStart={now - 1000}&createTimeEnd={now + 1000}"
    assert len((await side.get(f"all?{span}")).json["transactions"]) == 4
    assert (await side.get(f"all?createTimeStart={now + 1000}")).json["transactions"] is None


async def test_all_with_a_gid_gives_that_one_and_the_position_back(side: Side) -> None:
    """Spec §3.2: null when there is none."""
    await side.post("prepare", msg())
    page = (await side.get("all?gid=g1&position=7")).json
    assert ([tx["gid"] for tx in page["transactions"]], page["next_position"]) == (["g1"], "7")
    assert (await side.get("all?gid=none&position=7")).json["transactions"] is None


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("all?limit=ten", 500, "convert to int error: ten"),
        ("all?limit=1_0", 500, "convert to int error: 1_0"),
        ("all?limit=0", 400, "limit: 0 is out of range"),
        ("all?limit=1001", 400, "limit: 1001 is out of range; ask for 1 to 1000"),
        ("all?limit=99999999999999999999", 500, "convert to int error: 9999"),
        ("all?position=nowhere", 400, "position"),
        ("all?createTimeStart=today", 500, "convert to int error: today"),
        ("all?gid=%00", 400, "gid: it holds a NUL"),
        ("query?gid=" + "x" * 129, 400, "Gid: 129 characters"),
        ("resetCronTime?timeout=-1", 400, "timeout: -1"),
        ("resetCronTime?limit=0", 400, "limit: 0"),
        ("scanKV?limit=x", 500, "convert to int error: x"),
        ("scanKV?cat=%00", 400, "cat: it holds a NUL"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_why(
    side: Side, path: str, status: int, said: str
) -> None:
    """500 where dtm's words are kept, else 400 with the way out."""
    answer = await side.get(path)
    assert answer.status == status
    assert said in answer.json["message"]


async def test_due_times_can_be_brought_forward(side: Side) -> None:
    """Spec §5.2: one by its gid, or those that wait longer than a time, up to a limit."""
    side.branches.answers["http://b.test/in"] = BranchAnswer(Result.UNKNOWN, "down")
    for number in range(3):
        await side.post("submit", msg(f"g{number}", retry_interval=500, wait_result=True))
    answer = await side.get("resetCronTime?timeout=400&limit=2")
    assert answer.data == b'{"has_remaining":true,"succeed_count":2}'
    answer = await side.get("resetCronTime?timeout=400&limit=2")
    assert answer.data == b'{"has_remaining":false,"succeed_count":1}'
    assert (await side.post("resetNextCronTime", {"gid": "g1"})).data == SUCCESS
    nobody = await side.post("resetNextCronTime", {"gid": "none"})
    assert (nobody.status, nobody.json) == (500, {"message": "no TransGlobal with gid: none found"})


async def test_topics_are_kept_by_the_routes_of_the_page(side: Side) -> None:
    """Spec §18.2: subscribe, look, unsubscribe, delete; texts of errors are dtm's."""
    assert (await side.get("subscribe?topic=t/1&url=http://b.test/a&remark=r")).data == SUCCESS
    assert (await side.get("subscribe?topic=t/1&url=http://b.test/b")).data == SUCCESS
    [row] = (await side.get("queryKV?cat=topics&key=t/1")).json["kv"]
    assert (row["cat"], row["k"], row["version"]) == ("topics", "t/1", 2)
    assert json.loads(row["v"]) == [
        {"url": "http://b.test/a", "remark": "r"},
        {"url": "http://b.test/b", "remark": ""},
    ]
    page = (await side.get("scanKV?cat=topics&limit=1")).json
    assert list(page) == ["kv", "next_position"]
    assert len(page["kv"]) == 1
    twice = await side.get("subscribe?topic=t/1&url=http://b.test/a")
    assert (twice.status, twice.json) == (500, {"message": "this url exists"})
    assert (await side.get("subscribe?url=http://b.test/a")).json == {"message": "empty topic"}
    assert (await side.get("unsubscribe?topic=t/1&url=http://b.test/a")).data == SUCCESS
    assert (await side.get("unsubscribe?topic=t/1&url=x")).json == {"message": "no such an url "}
    assert (await side.ask("DELETE", "/api/dtmsvr/topic/t%2F1")).data == SUCCESS
    gone = await side.ask("DELETE", "/api/dtmsvr/topic/t%2F1")
    assert (gone.status, gone.json) == (500, {"message": "storage: NotFound"})


async def test_a_message_to_a_topic_reaches_its_subscribers(side: Side) -> None:
    """A subscription holds at once, whoever took it."""
    await side.get("subscribe?topic=paid&url=http://b.test/a")
    await side.get("subscribe?topic=paid&url=http://b.test/b")
    body = msg(steps=[{"action": "topic://paid"}], wait_result=True)
    assert (await side.post("submit", body)).status == 200
    assert sorted(call[:2] for call in side.branches.calls) == [
        ("01-01", "http://b.test/a"),
        ("01-02", "http://b.test/b"),
    ]


@pytest.mark.parametrize("name", ["registerBranch", "registerTccBranch", "registerXaBranch"])
async def test_a_branch_with_a_value_that_is_no_text_is_refused_as_dtm_does(
    side: Side, name: str
) -> None:
    """Spec §3.4: 400, a message, and a content type that is not JSON's."""
    answer = await side.post(name, {"gid": "g1", "trans_type": "tcc", "branch_id": 1})
    assert answer.status == 400
    assert answer.json["message"].startswith("the body.branch_id: 1 stands where a text belongs")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_a_branch_of_an_unknown_type_is_refused_in_dtm_words(side: Side) -> None:
    """The text of dtm is part of ours."""
    answer = await side.post("registerBranch", {"gid": "g1", "trans_type": "msg"})
    assert answer.status == 400
    assert "unknow trans type: msg" in answer.json["message"]


@pytest.mark.parametrize("name", ["registerBranch", "registerTccBranch"])
async def test_branches_of_a_tcc_are_registered_and_confirmed(side: Side, name: str) -> None:
    """The bodies of the Go, Python and Node clients; keys that nobody reads do no harm."""
    tcc = {"gid": "g2", "trans_type": "tcc"}
    assert (await side.post("prepare", tcc)).data == SUCCESS
    body = {
        **tcc,
        "branch_id": "01",
        "data": '{"amount":30}',
        "confirm": "http://b.test/ok",
        "cancel": "http://b.test/undo",
        "try": "http://b.test/try",
        "status": "prepared",
        "nothing": None,
    }
    assert (await side.post(name, body)).data == SUCCESS
    assert (await side.post(name, body)).status == 500
    assert (await side.post("submit", {**tcc, "wait_result": True})).data == SUCCESS
    assert side.branches.calls == [("01", "http://b.test/ok", b'{"amount":30}')]
    late = await side.post(name, {**body, "branch_id": "02"})
    assert (late.status, late.json["dtm_result"]) == (409, "FAILURE")


async def test_a_tcc_that_is_not_decided_yet_is_425(side: Side) -> None:
    """Spec §3.1 and §9: ONGOING of a confirm reaches the client that waits."""
    side.branches.answers["http://b.test/ok"] = BranchAnswer(Result.ONGOING, "later")
    tcc = {"gid": "g2", "trans_type": "tcc", "wait_result": True}
    await side.post("prepare", tcc)
    body = {"gid": "g2", "trans_type": "tcc", "branch_id": "01", "confirm": "http://b.test/ok"}
    assert (await side.post("registerBranch", {**body, "cancel": "http://b.test/no"})).status == 200
    answer = await side.post("submit", tcc)
    assert (answer.status, answer.json["dtm_result"]) == (425, "ONGOING")


async def test_a_saga_that_was_undone_is_409_with_its_reason(side: Side) -> None:
    """Spec §9: the reason of the rollback, ending with the result word."""
    side.branches.answers["http://b.test/in"] = BranchAnswer(Result.FAILURE, "no such account")
    saga = msg(
        trans_type="saga",
        steps=[{"action": "http://b.test/in", "compensate": "http://b.test/back"}],
        wait_result=True,
    )
    answer = await side.post("submit", saga)
    assert (answer.status, answer.json["dtm_result"]) == (409, "FAILURE")
    assert answer.json["message"].endswith(" FAILURE")
    tx = (await side.get("query?gid=g1")).json["transaction"]
    assert tx["status"] == "failed"
    assert {"rollback_time", "rollback_reason"} < set(tx)


async def test_a_workflow_reports_progress_and_its_end(side: Side) -> None:
    """Spec §5.2 and §14: progress is empty at first, then what was registered, whoever asks."""
    workflow = {
        "gid": "w",
        "trans_type": "workflow",
        "query_prepared": "http://b.test/callback",
        "custom_data": '{"name":"pay","data":null}',
    }
    first = await side.post("prepareWorkflow", workflow)
    assert list(first.json) == ["progresses", "transaction"]
    assert first.json["progresses"] == []
    assert (first.json["transaction"]["gid"], first.json["transaction"]["status"]) == (
        "w",
        "prepared",
    )
    step = {"gid": "w", "trans_type": "workflow", "branch_id": "01", "op": "action"}
    step |= {"status": "succeed", "data": "5", "sync": ""}
    assert (await side.post("registerBranch", step)).data == SUCCESS
    [progress] = (await side.post("prepareWorkflow", workflow)).json["progresses"]
    assert {key: progress[key] for key in ("branch_id", "op", "status", "bin_data")} == {
        "branch_id": "01",
        "op": "action",
        "status": "succeed",
        "bin_data": base64.b64encode(b"5").decode(),
    }
    done = {**workflow, "req_extra": {"status": "succeed", "result": "NQ=="}}
    assert (await side.post("submit", done)).data == SUCCESS
    again = (await side.post("prepareWorkflow", workflow)).json["transaction"]
    assert (again["status"], again["result"]) == ("succeed", "NQ==")
    refused = await side.post("prepareWorkflow", msg())
    assert refused.status == 400
    assert "use prepare" in refused.json["message"]


async def test_unknown_routes_and_wrong_methods_are_not_found(side: Side) -> None:
    """Spec §3.1: plain text, whichever of the two it is."""
    for method, path in [
        ("GET", "/"),
        ("GET", "/api/dtmsvr"),
        ("GET", "/api/dtmsvr/submit"),
        ("POST", "/api/dtmsvr/query"),
        ("GET", "/api/dtmsvr/topic/t"),
        ("DELETE", "/api/dtmsvr/topic/"),
        ("DELETE", "/api/dtmsvr/topic/a/b"),
        ("GET", "/api/json-rpc"),
        ("GET", "/api/dtmsvr/submit/"),
        ("PUT", "/api/dtmsvr/version"),
    ]:
        answer = await side.ask(method, path)
        assert (answer.status, answer.data) == (404, b"404 page not found"), (method, path)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_a_slash_too_many_is_redirected(side: Side) -> None:
    """Spec §3.1: 301 for GET, 307 for the others, with the query."""
    answer = await side.ask("GET", "/api/dtmsvr/query/?gid=g1")
    assert (answer.status, answer.headers["Location"]) == (301, "/api/dtmsvr/query?gid=g1")
    answer = await side.ask("POST", "/api/dtmsvr/submit/", msg())
    assert (answer.status, answer.headers["Location"]) == (307, "/api/dtmsvr/submit")
    answer = await side.ask("DELETE", "/api/dtmsvr/topic/t/")
    assert (answer.status, answer.headers["Location"]) == (307, "/api/dtmsvr/topic/t")


class AbsentStore(MemoryStore):
    """Answers nothing."""

    async def create(self, *_: object, **__: object) -> int:
        raise StoreUnavailable("the database at db.test:5432 does not answer; see Store.Host")

    async def load(self, gid: str) -> Held | None:
        raise RuntimeError("secret inner detail")


async def test_a_store_that_is_away_is_503_and_a_bug_a_neutral_500(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What broke inside is for the log, not for the client."""
    async with http_side(store=AbsentStore(ManualClock())) as side:
        away = await side.post("submit", msg())
        assert (away.status, away.json) == (
            503,
            {"message": "the database at db.test:5432 does not answer; see Store.Host"},
        )
        broken = await side.get("query?gid=g1")
        assert (broken.status, broken.json) == (
            500,
            {"message": "internal error; the coordinator's log has its cause"},
        )
        assert "secret inner detail" in capfd.readouterr().err


async def test_a_client_that_leaves_does_not_undo_what_it_asked_for(side: Side) -> None:
    """A submit goes on when its client hangs up while it waits."""
    side.branches.gate.clear()
    waiting = asyncio.create_task(side.post("submit", msg(wait_result=True)))
    async with asyncio.timeout(5):
        while not side.branches.calls:
            await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        side.branches.gate.set()
        while (await side.get("query?gid=g1")).json["transaction"]["status"] != "succeed":
            await asyncio.sleep(0.005)
