"""What peers cannot do: fill the memory with labels, operations or details."""

from collections.abc import Iterator
from typing import Any

import pytest

from kit import errors
from kit.middleware.circuitbreaker import MOST_OPERATIONS, circuitbreaker
from kit.middleware.metrics import MOST_SERIES, Metrics
from kit.middleware.selector import select
from kit.resilience import SreBreaker
from kit.transport import CallInfo, Kind, call_info


@pytest.fixture
def info() -> Iterator[CallInfo]:
    """A call of a client that is being made."""
    made = CallInfo(Kind.GRPC, "client", "/a.B/C")
    token = call_info.set(made)
    yield made
    call_info.reset(token)


async def echo(request: Any) -> Any:
    return request


async def test_reasons_that_a_peer_invents_share_a_series_in_the_end(info: CallInfo) -> None:
    metrics = Metrics()
    number = 0

    async def fail(_request: Any) -> Any:
        raise errors.NotFound(f"REASON_{number}")

    call = metrics.client()(fail)
    for number in range(MOST_SERIES + 50):  # noqa: B007  (fail reads it)
        with pytest.raises(errors.NotFound):
            await call(None)
    lines = [
        line
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("client_requests_code_total{")
    ]
    assert len(lines) == MOST_SERIES + 1
    assert lines[-1].endswith('operation="other",reason="other"} 50.0')


async def test_operations_beyond_those_that_are_told_apart_share_a_breaker(info: CallInfo) -> None:
    made: list[SreBreaker] = []

    def make() -> SreBreaker:
        made.append(SreBreaker())
        return made[-1]

    call = circuitbreaker(make)(echo)
    for number in range(MOST_OPERATIONS + 50):
        info.operation = f"/a.B/C{number}"
        await call(None)
    assert len(made) == MOST_OPERATIONS + 1


async def test_a_selector_answers_alike_beyond_what_it_remembers(info: CallInfo) -> None:
    def refuse(_handler: Any) -> Any:
        async def call(_request: Any) -> Any:
            raise errors.Forbidden("CHOSEN")

        return call

    call = select(refuse, patterns=[r"/a\.B/C\d*7"])(echo)
    for number in range(10_100):
        info.operation = f"/a.B/C{number}"
        if number % 10 == 7:
            with pytest.raises(errors.Forbidden):
                await call("x")
        else:
            assert await call("x") == "x"
