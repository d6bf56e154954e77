"""The middleware that comes with the kit; kratos-wire §14, §15.1, §15.2."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from api.trans.v1 import trans_pb2
from kit import errors
from kit.metadata import Metadata, client_metadata, server_metadata
from kit.middleware import chain, logging, metadata
from kit.middleware.recovery import recovery
from kit.middleware.timeout import timeout
from kit.transport import CallInfo, Kind, call_info

OPERATION = "/api.trans.v1.Trans/TransOut"


@pytest.fixture
def info() -> Iterator[CallInfo]:
    """A call of a server that is being handled."""
    made = CallInfo(Kind.GRPC, "server", OPERATION)
    token = call_info.set(made)
    yield made
    call_info.reset(token)


async def echo(request: Any) -> Any:
    return request


async def test_the_first_listed_is_the_outermost() -> None:
    def named(name: str) -> Any:
        def wrap(handler: Any) -> Any:
            async def call(request: str) -> Any:
                return f"{name}({await handler(request + name)})"

            return call

        return wrap

    assert await chain([named("a"), named("b")])(echo)("") == "a(b(ab))"


class TestRecovery:
    async def test_an_unexpected_exception_is_500_unknown(
        self, info: CallInfo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def panic(_request: Any) -> Any:
            raise ZeroDivisionError("division by zero")

        with pytest.raises(errors.Error) as caught:
            await recovery()(panic)("secret")
        error = caught.value
        assert (error.code, error.reason) == (500, "UNKNOWN")
        assert error.message == "unknown request error"
        first, *stack = capsys.readouterr().err.splitlines()
        assert first == (f"ERROR operation={OPERATION} msg=ZeroDivisionError: division by zero")
        assert any("in panic" in line for line in stack)
        assert not any("secret" in line for line in stack)

    async def test_errors_of_the_kit_and_cancellation_pass(self) -> None:
        for error in (errors.NotFound("GONE"), asyncio.CancelledError()):

            async def fail(_request: Any, error: BaseException = error) -> Any:
                raise error

            with pytest.raises(type(error)) as caught:
                await recovery()(fail)(None)
            assert caught.value is error

    async def test_the_answer_can_be_another(self) -> None:
        async def panic(_request: Any) -> Any:
            raise ZeroDivisionError

        def answer(request: Any, error: Exception) -> Exception:
            return errors.ServiceUnavailable(type(error).__name__, str(request))

        with pytest.raises(errors.ServiceUnavailable, match="ZeroDivisionError"):
            await recovery(answer)(panic)(7)


class TestLogging:
    async def test_a_success_is_one_info_line_of_kratos_keys_in_order(
        self, info: CallInfo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await logging.server()(echo)(trans_pb2.AdjustInfo(Amount=30))
        [line] = capsys.readouterr().err.splitlines()
        level, *pairs = line.split(" ")
        assert level == "INFO"
        fields = dict(pair.split("=", 1) for pair in pairs)
        assert list(fields) == [
            "kind",
            "component",
            "operation",
            "args",
            "code",
            "reason",
            "stack",
            "latency",
        ]
        assert float(fields.pop("latency")) >= 0
        assert fields == {
            "kind": "server",
            "component": "grpc",
            "operation": OPERATION,
            "args": "api.trans.v1.AdjustInfo",
            "code": "200",
            "reason": "",
            "stack": "",
        }

    async def test_a_failure_is_one_error_line_also_a_404(
        self, info: CallInfo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def fail(_request: Any) -> Any:
            raise errors.NotFound("GONE", "no account")

        with pytest.raises(errors.NotFound):
            await logging.client()(fail)(None)
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ERROR kind=client component=grpc operation={OPERATION} ")
        assert " code=404 reason=GONE stack=error: code = 404 reason = GONE" in line

    async def test_a_call_whose_caller_went_is_logged_as_499(
        self, info: CallInfo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def hang(_request: Any) -> Any:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await logging.server()(hang)(None)
        assert " code=499 reason= stack=CancelledError " in capsys.readouterr().err

    async def test_requests_are_written_as_they_redact_themselves_or_when_asked_for(
        self, info: CallInfo, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Card:
            def redact(self) -> str:
                return "card-ending-42"

        await logging.server()(echo)(Card())
        await logging.server(payloads=True)(echo)(trans_pb2.AdjustInfo(Amount=30))
        first, second = capsys.readouterr().err.splitlines()
        assert " args=card-ending-42 " in first
        assert " args=Amount: 30 " in second


class TestMetadata:
    async def test_a_server_takes_the_headers_that_are_meant_to_travel(
        self, info: CallInfo
    ) -> None:
        """All values of a key, in lower case; constants come first."""
        for key, value in [("X-Md-Global-A", "1"), ("x-md-global-a", "2"), ("x-other", "3")]:
            info.request_headers.add(key, value)
        seen: list[Metadata | None] = []

        async def look(_request: Any) -> None:
            seen.append(server_metadata.get())

        await metadata.server({"x-md-local-zone": "b"})(look)(None)
        await metadata.server(prefixes=["X-Other"])(look)(None)
        assert [list(found.items()) for found in seen if found is not None] == [
            [("x-md-local-zone", "b"), ("x-md-global-a", "1"), ("x-md-global-a", "2")],
            [("x-other", "3")],
        ]
        assert server_metadata.get() is None

    async def test_a_client_adds_constants_its_own_and_what_travels_on(
        self, info: CallInfo
    ) -> None:
        served = Metadata([("x-md-global-a", "1"), ("x-md-local-b", "2")])
        own = Metadata([("anything", "3")])
        tokens = server_metadata.set(served), client_metadata.set(own)
        try:
            await metadata.client({"constant": "0"})(echo)(None)
        finally:
            server_metadata.reset(tokens[0])
            client_metadata.reset(tokens[1])
        assert list(info.request_headers.items()) == [
            ("constant", "0"),
            ("anything", "3"),
            ("x-md-global-a", "1"),
        ]

    async def test_outside_of_a_call_nothing_happens(self) -> None:
        assert await metadata.client({"k": "v"})(echo)("x") == "x"
        assert await metadata.server()(echo)("x") == "x"


async def hang(_request: Any) -> Any:
    await asyncio.Event().wait()


class TestTimeout:
    async def test_the_calls_deadline_cuts_and_is_named(self, info: CallInfo) -> None:
        info.deadline, info.limit = asyncio.get_running_loop().time() + 0.01, 1.0
        info.limit_side = "server"
        with pytest.raises(errors.GatewayTimeout) as caught:
            await timeout()(hang)(None)
        assert (caught.value.code, caught.value.reason) == (504, "TIMEOUT")
        assert caught.value.message == f"server timeout of 1s for {OPERATION}"

    async def test_an_own_limit_cuts_earlier_and_is_seen_inside(self, info: CallInfo) -> None:
        limits: list[float | None] = []

        async def look(request: Any) -> Any:
            limits.append(info.limit)
            await hang(request)

        with pytest.raises(errors.GatewayTimeout, match="server timeout of 20ms for "):
            await timeout(0.02)(look)(None)
        assert limits == [0.02]

    async def test_a_longer_own_limit_changes_nothing(self, info: CallInfo) -> None:
        deadline = info.deadline = asyncio.get_running_loop().time() + 5
        await timeout(60)(echo)(None)
        assert info.deadline == deadline

    async def test_without_any_limit_nothing_is_cut(self, info: CallInfo) -> None:
        assert await timeout()(echo)("x") == "x"

    async def test_a_timeout_of_the_handler_itself_passes(self, info: CallInfo) -> None:
        async def own(_request: Any) -> Any:
            raise TimeoutError("the database")

        with pytest.raises(TimeoutError, match="the database"):
            await timeout(5)(own)(None)

    async def test_a_handler_that_finishes_although_cut_is_believed(self, info: CallInfo) -> None:
        async def stubborn(_request: Any) -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "done"
            raise AssertionError

        assert await timeout(0.01)(stubborn)(None) == "done"
