"""Requests that can never work are refused by field, before anything is stored."""

import json

import pytest

from kit.dtm.core import Options
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.api_grpc import to_request
from kit.dtm.server.requests import InvalidRequest, registration_from, request_from
from kit.dtm.wire import BranchStatus, Protocol, Status, TransType

STEPS = [{"action": "h:1/s/Out"}, {"action": "h:1/s/In"}]


def message(**changed: object) -> dtm_pb2.DtmRequest:
    fields: dict[str, object] = {
        "Gid": "g1",
        "TransType": "msg",
        "Steps": json.dumps(STEPS),
        "BinPayloads": [b"1", b""],
    }
    fields.update(changed)
    return dtm_pb2.DtmRequest(**fields)  # type: ignore[arg-type]


def options(**given: object) -> dtm_pb2.DtmTransOptions:
    return dtm_pb2.DtmTransOptions(**given)  # type: ignore[arg-type]


def test_a_message_becomes_branches_numbered_as_dtm_numbers_them() -> None:
    """One action a step, 01, 02, …, each with its payload."""
    request = to_request(
        message(
            QueryPrepared="h:1/s/Query",
            CustomedData='{"delay":5}',
            TransOptions=options(
                WaitResult=True, RequestTimeout=4, BranchHeaders={"X-Md-Global-Token": "t"}
            ),
        )
    )
    assert (request.trans_type, request.protocol) == (TransType.MSG, Protocol.GRPC)
    assert [(b.branch_id, b.op, b.url, b.payload, b.status) for b in request.branches] == [
        ("01", "action", "h:1/s/Out", b"1", BranchStatus.PREPARED),
        ("02", "action", "h:1/s/In", b"", BranchStatus.PREPARED),
    ]
    assert request.options == Options(
        wait_result=True, request_timeout=4, branch_headers={"x-md-global-token": "t"}
    )


@pytest.mark.parametrize("steps", ["", "null", "[]"])
def test_no_steps_are_no_steps(steps: str) -> None:
    """A submit of a prepared message need not repeat them."""
    assert to_request(message(Steps=steps, BinPayloads=[])).branches == ()


def test_the_hundredth_step_has_three_digits() -> None:
    """Two digits are a minimum, not a limit."""
    many = json.dumps([{"action": "h:1/s/M"}] * 100)
    request = to_request(message(Steps=many, BinPayloads=[b""] * 100))
    assert [b.branch_id for b in request.branches][98:] == ["99", "100"]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"Gid": ""}, "Gid: it is empty"),
        ({"Gid": "x" * 2048}, "Gid: 2048 characters"),
        ({"Gid": "a\0b"}, "Gid: 'a\\x00b'"),
        ({"Gid": "gid\n"}, "Gid: 'gid\\n'"),
        ({"Gid": "trans-é"}, "Gid: "),
        ({"TransType": ""}, "TransType: '' is unknown"),
        ({"TransType": "MSG"}, "TransType: 'MSG' is unknown"),
        ({"Steps": "{"}, "Steps: not JSON"),
        ({"Steps": "[" * 100_000}, "Steps: not JSON"),
        ({"Steps": "{}"}, "Steps: not an array"),
        ({"Steps": "[1, 2]"}, "Steps[0]: not an object"),
        ({"Steps": '[{"action": 1}, {}]'}, "Steps[0]: not an object"),
        ({"Steps": '[{"action": "h/s/M"}, {}]'}, "Steps[1].action: it is missing"),
        ({"BinPayloads": [b"1"]}, "BinPayloads: 1 for 2 steps"),
        ({"BinPayloads": [b"1"] * 3}, "BinPayloads: 3 for 2 steps"),
        ({"Steps": json.dumps(STEPS * 501), "BinPayloads": [b""] * 1002}, "Steps: 1002"),
        ({"QueryPrepared": "h/" + "x" * 2000}, "QueryPrepared: "),
        ({"CustomedData": "{"}, "CustomedData: not JSON"),
        ({"CustomedData": "[1]"}, "CustomedData: not an object"),
        ({"CustomedData": '{"delay":-1}'}, "CustomedData.delay: -1"),
        ({"CustomedData": '{"delay":"5"}'}, "CustomedData.delay: '5'"),
        ({"CustomedData": '{"delay":true}'}, "CustomedData.delay: True"),
        ({"CustomedData": '{"concurrent":1}'}, "CustomedData.concurrent: 1"),
        ({"CustomedData": "{}" + " " * (1 << 20)}, "CustomedData: 1048578 characters"),
        ({"TransType": "saga", "CustomedData": '{"orders":[]}'}, "CustomedData.orders: not an"),
        ({"TransType": "saga", "CustomedData": '{"orders":{"2":[0]}}'}, "CustomedData.orders: '2'"),
        ({"TransType": "saga", "CustomedData": '{"orders":{"x":[0]}}'}, "CustomedData.orders: 'x'"),
        ({"TransType": "saga", "CustomedData": '{"orders":{"1":[1]}}'}, "CustomedData.orders[1]"),
        (
            {"TransType": "saga", "CustomedData": '{"orders":{"1":[true]}}'},
            "CustomedData.orders[1]",
        ),
        ({"TransType": "workflow", "CustomedData": '{"name":1}'}, "CustomedData.name: 1"),
        (
            {"TransType": "workflow", "CustomedData": '{"data":"?"}'},
            "CustomedData.data: not base64",
        ),
        ({"TransType": "workflow", "CustomedData": '{"data":7}'}, "CustomedData.data: not base64"),
        ({"TransType": "tcc", "CustomedData": "\0"}, "CustomedData: a NUL"),
        ({"TransType": "workflow", "ReqExtra": {"status": "done"}}, "ReqExtra.status: 'done'"),
        ({"TransType": "workflow", "ReqExtra": {"result": "\0"}}, "ReqExtra.result: "),
        ({"TransOptions": options(RetryInterval=-1)}, "TransOptions.RetryInterval: -1"),
        ({"TransOptions": options(TimeoutToFail=-5)}, "TransOptions.TimeoutToFail: -5"),
        ({"TransOptions": options(RequestTimeout=1 << 62)}, "TransOptions.RequestTimeout"),
        ({"TransOptions": options(RetryLimit=-1)}, "TransOptions.RetryLimit: -1"),
        ({"TransOptions": options(BranchHeaders={"a b": "c"})}, "TransOptions.BranchHeaders"),
        ({"TransOptions": options(BranchHeaders={"x-bin": "c"})}, "TransOptions.BranchHeaders"),
        ({"TransOptions": options(BranchHeaders={"a": "c\n"})}, "TransOptions.BranchHeaders[a]"),
        (
            {"TransOptions": options(BranchHeaders={"a": "c" * 7000})},
            "TransOptions.BranchHeaders: 7001",
        ),
    ],
)
def test_a_request_that_can_never_work_names_its_field(
    changed: dict[str, object], field: str
) -> None:
    """The text begins with the field and shows the value."""
    with pytest.raises(InvalidRequest) as caught:
        to_request(message(**changed))
    assert str(caught.value).startswith(field)
    assert len(str(caught.value)) < 400


def test_a_saga_has_a_compensation_and_an_action_a_step() -> None:
    """In this order, both with the payload of the step; a step need not have a compensation."""
    steps = [{"action": "h:1/s/Out", "compensate": "h:1/s/OutBack"}, {"action": "h:1/s/In"}]
    request = to_request(message(TransType="saga", Steps=json.dumps(steps)))
    assert [(b.branch_id, b.op, b.url, b.payload) for b in request.branches] == [
        ("01", "compensate", "h:1/s/OutBack", b"1"),
        ("01", "action", "h:1/s/Out", b"1"),
        ("02", "compensate", "", b""),
        ("02", "action", "h:1/s/In", b""),
    ]


def test_a_workflow_ends_as_its_sender_says() -> None:
    """Status, reason and result travel in ReqExtra."""
    extra = {"status": "failed", "rollback_reason": "no money", "result": "cg=="}
    request = to_request(message(TransType="workflow", Steps="", BinPayloads=[], ReqExtra=extra))
    assert request.final_status is Status.FAILED
    assert (request.rollback_reason, request.result) == ("no money", "cg==")


def registration(**changed: object) -> object:
    given = {
        "gid": "g1",
        "trans_type": "tcc",
        "branch_id": "01",
        "data": b"1",
        "fields": {"confirm": "h:1/s/Ok", "cancel": "h:1/s/Undo"},
        "protocol": Protocol.GRPC,
    }
    return registration_from(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trans_type", "fields", "rows"),
    [
        (
            "tcc",
            {"confirm": "h:1/s/Ok", "cancel": "h:1/s/Undo"},
            [("cancel", "h:1/s/Undo", "prepared"), ("confirm", "h:1/s/Ok", "prepared")],
        ),
        (
            "xa",
            {"url": "h:1/s/Xa"},
            [("rollback", "h:1/s/Xa", "prepared"), ("commit", "h:1/s/Xa", "prepared")],
        ),
        ("workflow", {"op": "action", "status": "succeed"}, [("action", "", "succeed")]),
    ],
)
def test_a_registration_makes_the_rows_of_its_type(
    trans_type: str, fields: dict[str, str], rows: list[tuple[str, str, str]]
) -> None:
    """The second phase of tcc and xa in dtm's order; what a workflow did as it says."""
    request = registration(trans_type=trans_type, fields=fields)
    assert [(b.op, b.url, b.status) for b in request.branches] == rows  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"trans_type": "saga"}, "unknow trans type: saga"),
        ({"branch_id": ""}, "BranchID: ''"),
        ({"branch_id": "a b"}, "BranchID: 'a b'"),
        ({"branch_id": "0" * 129}, "BranchID: "),
        ({"trans_type": "workflow", "fields": {"op": "action"}}, "Data.status: ''"),
        ({"trans_type": "workflow", "fields": {"status": "succeed"}}, "Data.op: ''"),
        (
            {"protocol": Protocol.HTTP, "fields": {"confirm": "h:1/s/Ok"}},
            "Data.confirm: 'h:1/s/Ok' does not start with http",
        ),
    ],
)
def test_a_registration_that_can_never_work_names_its_field(
    changed: dict[str, object], text: str
) -> None:
    """The text shows the value and the way out."""
    with pytest.raises(InvalidRequest) as caught:
        registration(**changed)
    assert text in str(caught.value)


def test_gids_of_http_transactions_may_be_in_any_language() -> None:
    """They travel in a query and not in metadata."""
    steps = [{"action": "http://h/out"}]
    given = {"gid": "订单-1", "trans_type": "msg", "steps": steps, "payloads": [b""]}
    assert request_from(protocol=Protocol.HTTP, **given).gid == "订单-1"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "x" * 2_000])
def test_a_topic_that_no_store_can_look_up_is_refused_by_name(name: str) -> None:
    """Neither a lone surrogate nor a NUL reaches a store, and the complaint is short."""
    with pytest.raises(InvalidRequest, match=r"Steps\[0\]\.action: .* names no topic") as caught:
        request_from(
            gid="g1",
            trans_type="msg",
            protocol=Protocol.GRPC,
            steps=[{"action": f"topic://{name}"}],
            payloads=[b""],
        )
    assert len(str(caught.value)) < 200
