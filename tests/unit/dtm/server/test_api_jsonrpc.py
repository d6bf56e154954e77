"""The JSON-RPC API over a real socket; the cases of spec §4."""

import base64
import json
from collections.abc import AsyncIterator

import pytest

from kit.dtm.server.caller import BranchAnswer
from kit.dtm.store import Held, StoreUnavailable
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Result
from kit.testing import ManualClock
from tests.unit.dtm.server.http_side import Side, http_side, msg

PATH = "/api/json-rpc"


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    async with http_side() as made:
        yield made


async def test_a_new_gid_is_a_result_and_the_reply_has_all_four_keys(side: Side) -> None:
    """Keys in their order; error is null."""
    answer = await side.rpc("newGid", id="seven")
    assert answer.status == 200
    assert list(answer.json) == ["error", "id", "jsonrpc", "result"]
    assert answer.json["error"] is None
    assert (answer.json["id"], answer.json["jsonrpc"]) == ("seven", "2.0")
    assert len(answer.json["result"]["gid"]) == 22


async def test_a_message_is_prepared_submitted_and_carried_out(side: Side) -> None:
    """Parameters are the bodies of the HTTP API; the result is null."""
    done = b'{"error":null,"id":"1","jsonrpc":"2.0","result":null}'
    assert (await side.rpc("prepare", msg(protocol="json-rpc"))).data == done
    submit = msg(protocol="json-rpc", wait_result=True)
    assert (await side.rpc("submit", submit)).data == done
    [branch] = (await side.get("query?gid=g1")).json["branches"]
    assert base64.b64decode(branch["bin_data"]) == b'{"amount":30}'
    assert (await side.get("query?gid=g1")).json["transaction"]["protocol"] == "json-rpc"


async def test_the_protocol_is_http_unless_the_client_says_so(side: Side) -> None:
    """Spec §4, differences from HTTP."""
    await side.rpc("prepare", msg())
    assert (await side.get("query?gid=g1")).json["transaction"]["protocol"] == "http"


async def test_a_tcc_branch_is_registered_and_undone(side: Side) -> None:
    """registerBranch and abort."""
    tcc = {"gid": "g2", "trans_type": "tcc"}
    await side.rpc("prepare", tcc)
    branch = {"branch_id": "01", "confirm": "http://b.test/ok", "cancel": "http://b.test/no"}
    assert (await side.rpc("registerBranch", {**tcc, **branch})).json["error"] is None
    assert (await side.rpc("abort", tcc)).json["error"] is None
    tx = (await side.get("query?gid=g2")).json["transaction"]
    assert tx["status"] in ("aborting", "failed")


async def test_a_gid_is_taken_as_it_is(side: Side) -> None:
    """Spec §4: nothing is stripped, so a semicolon stays, and a line end is no gid."""
    assert (await side.rpc("prepare", msg("a;b"))).json["error"] is None
    held = await side.store.load("a;b")
    assert isinstance(held, Held)
    error = (await side.rpc("prepare", msg("a\nb"))).json["error"]
    assert error["code"] == -32603
    assert error["message"].startswith("Gid: ")


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"", 400, -32700, "Parse json error: unexpected end"),
        (b"{", 400, -32700, "Parse json error: not JSON"),
        (b"[]", 400, -32700, "Parse json error: the request: an array"),
        ({"id": 7}, 400, -32700, "Parse json error: id: 7 stands where a text belongs"),
        ({"jsonrpc": 2.0}, 400, -32700, "Parse json error: jsonrpc: 2.0 stands"),
        ({"method": None, "id": "1", "jsonrpc": "2.0"}, 200, -32601, "Method not found: "),
        ({"id": "", "jsonrpc": "2.0"}, 200, -32600, "Bad json request: id"),
        ({"id": "1", "jsonrpc": "1.0"}, 200, -32600, "Bad json request: jsonrpc: '1.0'"),
        ({"id": "1"}, 200, -32600, "Bad json request: jsonrpc"),
        ({"id": "1", "jsonrpc": "2.0", "method": "query"}, 200, -32601, "Method not found: query"),
    ],
)
async def test_a_request_that_is_none_has_its_code(
    side: Side, body: object, status: int, code: int, said: str
) -> None:
    """Spec §4, the table of codes; HTTP 400 only when the body could not be read."""
    answer = await side.ask("POST", PATH, body)
    assert answer.status == status
    assert list(answer.json) == ["error", "id", "jsonrpc", "result"]
    assert answer.json["result"] is None
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"].startswith(said)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (None, "TransType: '' is unknown"),
        (["g1"], "params: an array stands where an object belongs"),
        ({"trans_type": 1}, "trans_type: 1 stands where a text belongs"),
        ({"trans_type": "tcc"}, "Gid: it is empty"),
    ],
)
async def test_parameters_that_can_never_work_are_internal_errors_with_their_field(
    side: Side, params: object, said: str
) -> None:
    """Spec §4 knows -32603 for everything that is not FAILURE."""
    answer = await side.rpc("prepare", params)
    assert (answer.status, answer.json["error"]["code"]) == (200, -32603)
    assert answer.json["error"]["message"].startswith(said)


async def test_failure_has_its_own_code_and_all_else_the_common_one(side: Side) -> None:
    """-32901 for a definite no; an unknown outcome and ONGOING are -32603."""
    await side.rpc("submit", msg(wait_result=True))
    error = (await side.rpc("submit", msg())).json["error"]
    assert error == {
        "code": -32901,
        "message": "current status 'succeed', cannot sumbmit. FAILURE",
    }
    side.branches.answers["http://b.test/in"] = BranchAnswer(Result.UNKNOWN, "refused")
    error = (await side.rpc("submit", msg("g2", wait_result=True))).json["error"]
    assert error["code"] == -32603
    error = (await side.rpc("abort", {"gid": "none", "trans_type": "msg"})).json["error"]
    assert error == {"code": -32603, "message": "no TransGlobal with gid: none found"}


class BrokenStore(MemoryStore):
    """Away for writers, broken for readers."""

    async def create(self, *_: object, **__: object) -> int:
        raise StoreUnavailable("the database does not answer")

    async def load(self, gid: str) -> Held | None:
        raise RuntimeError("secret inner detail")


async def test_a_store_that_is_away_and_a_bug_are_told_apart_by_their_texts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Inner texts go to the log only."""
    async with http_side(store=BrokenStore(ManualClock())) as side:
        error = (await side.rpc("submit", msg())).json["error"]
        assert error == {"code": -32603, "message": "the database does not answer"}
        await side.service.subscribe("t", "http://b.test/in", "")
        topic = msg(steps=[{"action": "topic://t"}])
        error = (await side.rpc("submit", topic)).json["error"]
        assert error["code"] == -32603
        assert "secret" not in json.dumps(error)
        assert "secret inner detail" in capfd.readouterr().err
