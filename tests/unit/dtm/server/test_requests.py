"""Requests that can never work are refused by field, before anything is stored."""

import json

import pytest

from kit.dtm.core import Options
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.api_grpc import to_request
from kit.dtm.server.requests import InvalidRequest
from kit.dtm.wire import BranchStatus, Protocol, TransType

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
        ({"TransType": "saga"}, "TransType: saga is not carried out yet"),
        ({"Steps": "{"}, "Steps: not JSON"),
        ({"Steps": "[" * 100_000}, "Steps: not JSON"),
        ({"Steps": "{}"}, "Steps: not an array"),
        ({"Steps": "[1, 2]"}, "Steps[0]: not an object"),
        ({"Steps": '[{"action": 1}, {}]'}, "Steps[0]: not an object"),
        ({"Steps": '[{"action": "h/s/M"}, {}]'}, "Steps[1].action: it is missing"),
        ({"BinPayloads": [b"1"]}, "BinPayloads: 1 for 2 steps"),
        ({"BinPayloads": [b"1"] * 3}, "BinPayloads: 3 for 2 steps"),
        ({"Steps": json.dumps([{"action": "topic://t"}]), "BinPayloads": [b""]}, "Steps[0].action"),
        ({"Steps": json.dumps([{"action": "http://h"}]), "BinPayloads": [b""]}, "Steps[0].action"),
        ({"Steps": json.dumps(STEPS * 501), "BinPayloads": [b""] * 1002}, "Steps: 1002"),
        ({"QueryPrepared": "h/" + "x" * 2000}, "QueryPrepared: "),
        ({"CustomedData": "{"}, "CustomedData: not JSON"),
        ({"CustomedData": "[1]"}, "CustomedData: not an object"),
        ({"CustomedData": '{"delay":-1}'}, "CustomedData.delay: -1"),
        ({"CustomedData": '{"delay":"5"}'}, "CustomedData.delay: '5'"),
        ({"CustomedData": '{"delay":true}'}, "CustomedData.delay: True"),
        ({"CustomedData": '{"concurrent":1}'}, "CustomedData.concurrent: 1"),
        ({"CustomedData": "{}" + " " * 2000}, "CustomedData: 2002 characters"),
        ({"TransOptions": options(RetryInterval=-1)}, "TransOptions.RetryInterval: -1"),
        ({"TransOptions": options(TimeoutToFail=-5)}, "TransOptions.TimeoutToFail: -5"),
        ({"TransOptions": options(RequestTimeout=1 << 62)}, "TransOptions.RequestTimeout"),
        ({"TransOptions": options(RetryLimit=-1)}, "TransOptions.RetryLimit: -1"),
        ({"TransOptions": options(BranchHeaders={"a b": "c"})}, "TransOptions.BranchHeaders"),
        ({"TransOptions": options(BranchHeaders={"x-bin": "c"})}, "TransOptions.BranchHeaders"),
        ({"TransOptions": options(BranchHeaders={"a": "c\n"})}, "TransOptions.BranchHeaders[a]"),
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
