"""What can never work is refused by every API, with the field that is wrong; nothing is stored.

HTTP 400, INVALID_ARGUMENT, and over JSON-RPC the code of all that is not FAILURE (spec §4).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.dtm.clients import ERROR, INVALID, Api, Reply, Tx, unique
from tests.conformance.dtm.coordinators import Coordinator, accepted, ours, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = {"http": (INVALID, 400), "grpc": (INVALID, 3), "json-rpc": (ERROR, -32603)}
HUGE = 1 << 62

Spoil = Callable[[Tx], Tx]


def changed(**fields: Any) -> Spoil:
    return lambda tx: replace(tx, **fields)


def option(name: str, value: int) -> Spoil:
    return lambda tx: replace(tx, options={name: value})


BAD = {
    "empty gid": (changed(gid=""), "Gid"),
    "gid of 129 characters": (lambda tx: replace(tx, gid=tx.gid.ljust(129, "x")), "129"),
    "gid with a NUL": (lambda tx: replace(tx, gid=f"{tx.gid}\0x"), "gid"),
    "empty mode": (changed(trans_type=""), "TransType"),
    "unknown mode": (changed(trans_type="sage"), "'sage'"),
    "mode in capitals": (changed(trans_type="SAGA"), "'SAGA'"),
    "no steps": (changed(steps=[], payloads=[]), "Steps: there are none"),
    "a step that names nothing": (
        lambda tx: replace(tx, trans_type="msg", steps=[{}, *tx.steps[1:]]),
        "Steps[0].action",
    ),
    "fewer payloads": (changed(payloads=[b"{}"]), "1 for 2 steps"),
    "more payloads": (changed(payloads=[b"{}"] * 3), "3 for 2 steps"),
    "1,001 steps": (
        lambda tx: replace(tx, steps=[*tx.steps] * 501, payloads=[b"{}"] * 1_002),
        "1002",
    ),
    "custom data cut short": (changed(custom_data='{"orders":{'), "not JSON"),
    "an order that is a circle": (
        changed(custom_data='{"concurrent":true,"orders":{"0":[1],"1":[0]}}'),
        "orders",
    ),
    **{
        f"{word} {name}": (option(name, value), f"{value}")
        for name in ("timeout_to_fail", "retry_interval", "request_timeout", "retry_limit")
        for word, value in (("negative", -1), ("huge", HUGE))
    },
}


@pytest.mark.parametrize("bad", BAD)
async def test_bad_input_is_refused_with_its_field_and_stores_nothing(
    tm: Coordinator, api: Api, bad: str
) -> None:
    """By Prepare and by Submit; a good request finds the gid free."""
    ours()
    spoil, said = BAD[bad]
    good = saga(api, unique("bad"))
    spoiled = spoil(good)
    for ask in (api.prepare, api.submit):
        reply = await ask(spoiled)
        assert (reply.word, reply.code) == REFUSED[api.name], reply
        assert said.lower() in reply.text.lower()
        assert len(reply.text) < 500
    assert tm.business.calls(good.gid) == []
    assert await stored(tm, good.gid) is None
    accepted(await api.submit(good))
    await tm.until(good.gid, "succeed")


async def test_bad_input_of_other_types_is_refused_with_its_field(tm: Coordinator) -> None:
    """What protobuf cannot say: JSON with wrong types in each place."""
    ours()
    gid = unique("bad")
    good = {
        "gid": gid,
        "trans_type": "saga",
        "steps": [{"action": tm.http.url("a"), "compensate": tm.http.url("b")}],
        "payloads": ["{}"],
    }
    wrong: dict[str, tuple[object, ...]] = {
        "gid": (1, True, [], {}),
        "trans_type": (1, ["saga"], {}),
        "steps": ("x", {}, ["x"], [[]], [{"action": 1}]),
        "payloads": ("x", {}, [1], [{}]),
        "custom_data": (1, {}, []),
        "query_prepared": (1, {}),
        "wait_result": ("yes", 1),
        "timeout_to_fail": ("1", 1.5, True, 10**30),
        "branch_headers": ("x", ["x"], {"a": 1}),
    }
    for field, values in wrong.items():
        for value in values:
            body = {**good, field: value}
            reply = await tm.http.post("submit", body)
            assert (reply.word, reply.code) == REFUSED["http"], (field, value, reply)
            assert field in reply.text, (field, value, reply)
            told: Reply = await tm.json_rpc.call("submit", body)
            assert (told.word, told.code) == REFUSED["json-rpc"], (field, value, told)
            assert field in told.text, (field, value, told)
    assert await stored(tm, gid) is None


async def stored(tm: Coordinator, gid: str) -> object:
    """The transaction, if there is one."""
    return (await tm.http.get("query", gid=gid)).body["transaction"]
