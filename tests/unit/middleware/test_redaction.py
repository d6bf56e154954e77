"""What a log shows of messages, and in which words; kratos-wire §15.1, §15.2."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kit import errors
from kit.compat import Compat
from kit.middleware import logging
from kit.middleware.recovery import recovery
from kit.middleware.redaction import redacted
from kit.transport import CallInfo, Kind, call_info

OPERATION = "/bank.Bank/Pay"


def messages() -> tuple[Any, Any]:
    """``Card`` with a marked number, and ``Order`` that holds cards in every way there is."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="bank.proto", package="bank", syntax="proto3")
    card = file.message_type.add(name="Card")
    number = card.field.add(name="number", number=1, type=field.TYPE_STRING, label=1)
    number.options.debug_redact = True
    card.field.add(name="owner", number=2, type=field.TYPE_STRING, label=1)
    order = file.message_type.add(name="Order")
    order.field.add(name="amount", number=1, type=field.TYPE_INT64, label=1)
    own = ".bank.Card"
    order.field.add(name="card", number=2, type=field.TYPE_MESSAGE, type_name=own, label=1)
    order.field.add(name="more", number=3, type=field.TYPE_MESSAGE, type_name=own, label=3)
    for name, place, kind in (("named", 4, field.TYPE_MESSAGE), ("notes", 5, field.TYPE_STRING)):
        entry = order.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=1)
        value = entry.field.add(name="value", number=2, type=kind, label=1)
        if kind == field.TYPE_MESSAGE:
            value.type_name = own
        order.field.add(
            name=name,
            number=place,
            type=field.TYPE_MESSAGE,
            type_name=f".bank.Order.{entry.name}",
            label=3,
        )
    order.field.add(name="tags", number=6, type=field.TYPE_STRING, label=3)
    order.field.add(
        name="again", number=7, type=field.TYPE_MESSAGE, type_name=".bank.Order", label=1
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"bank.{name}") for name in ("Card", "Order"))
    made = [message_factory.GetMessageClass(each) for each in found]
    return made[0], made[1]


CARD, ORDER = messages()


def order() -> Any:
    card = CARD(number="4111", owner="ann")
    return ORDER(
        amount=30,
        card=card,
        more=[card, card],
        named={"home": card},
        notes={"a": "b"},
        tags=["x", "y"],
        again=ORDER(card=card),
    )


def test_marked_fields_are_hidden_at_any_depth_and_others_are_shown() -> None:
    text = redacted(order())
    assert "4111" not in text
    assert text.count("number: [REDACTED]") == 5
    assert text.count('owner: "ann"') == 5
    for shown in ("amount: 30", 'key: "a"', 'value: "b"', 'tags: "x"', "again {"):
        assert shown in text
    assert "\n" not in text


def test_a_message_without_marks_is_protobufs_own_text() -> None:
    from api.trans.v1 import trans_pb2

    assert redacted(trans_pb2.AdjustInfo(Amount=30, UserID=1)) == "Amount: 30 UserID: 1"


@pytest.fixture
def info() -> Iterator[CallInfo]:
    """A call of a server that is being handled."""
    made = CallInfo(Kind.GRPC, "server", OPERATION)
    token = call_info.set(made)
    yield made
    call_info.reset(token)


async def test_payloads_that_are_asked_for_are_logged_without_what_is_marked(
    info: CallInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    async def echo(request: Any) -> Any:
        return request

    await logging.server(payloads=True)(echo)(CARD(number="4111", owner="ann"))
    [line] = capsys.readouterr().err.splitlines()
    assert 'args=number: [REDACTED] owner: "ann"' in line
    assert "4111" not in line


async def test_v3_lines_have_a_message_and_the_error_at_their_end(
    info: CallInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_request: Any) -> Any:
        raise errors.NotFound("GONE", "no account")

    with pytest.raises(errors.NotFound):
        await logging.client(compat=Compat.V3)(fail)(CARD(number="4111"))
    text = capsys.readouterr().err
    assert text.startswith(f"ERROR kind=client component=grpc operation={OPERATION} ")
    keys = [
        text.index(f" {key}=")
        for key in ("operation", "args", "code", "reason", "latency", "error", "stack")
    ]
    assert keys == sorted(keys)
    assert "msg=client request" in text
    assert ", in fail" in text
    assert "4111" not in text


async def test_v3_success_has_neither_error_nor_stack(
    info: CallInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    async def echo(request: Any) -> Any:
        return request

    await logging.server(compat=Compat.V3)(echo)(CARD())
    [line] = capsys.readouterr().err.splitlines()
    assert "msg=server request" in line
    assert "stack=" not in line
    assert "error=" not in line


async def test_v3_recovery_says_panic_recovered(
    info: CallInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    async def panic(_request: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(errors.InternalServer):
        await recovery(compat=Compat.V3)(panic)("secret")
    text = capsys.readouterr().err
    assert "msg=panic recovered" in text
    assert "panic=ZeroDivisionError: division by zero" in text
    assert "secret" not in text
    await asyncio.sleep(0)
