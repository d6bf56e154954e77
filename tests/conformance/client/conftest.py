"""A real coordinator, a business with real servers, and a client over each of the three APIs.

Each test runs on both gRPC engines; coordinator, business and client are all on the same one.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kit.dtm.client import DtmClient, TransactionState
from kit.testing import Coordinator
from kit.transport.grpc.engines import EngineName
from tests.conformance.client.business import Business, running_business


@pytest.fixture(autouse=True)
def on_both_engines(engine: EngineName) -> EngineName:
    """Before a coordinator, a business or a client begins."""
    return engine


@pytest.fixture
async def dtm() -> AsyncIterator[Coordinator]:
    """The coordinator, whose time the test moves."""
    async with Coordinator() as coordinator:
        yield coordinator


@pytest.fixture
async def business() -> AsyncIterator[Business]:
    """Branches over HTTP and gRPC."""
    async with running_business() as running:
        yield running


def address(dtm: Coordinator, api: str) -> str:
    """What a client of ``api`` is given."""
    return {
        "grpc": dtm.grpc_address,
        "http": dtm.http_url,
        "json-rpc": dtm.http_url.replace("/dtmsvr", "/json-rpc"),
    }[api]


@pytest.fixture(params=["grpc", "http", "json-rpc"])
async def client(
    dtm: Coordinator, business: Business, request: pytest.FixtureRequest
) -> AsyncIterator[DtmClient]:
    """A client over each API; the business gives URLs that suit it."""
    business.scheme = "grpc" if request.param == "grpc" else "http"
    async with DtmClient(address(dtm, request.param), http=dtm.http_url) as client:
        yield client


async def ended(dtm: Coordinator, client: DtmClient, gid: str) -> TransactionState:
    """Let time pass until the transaction has ended: a busy machine may be late for a round."""
    async with asyncio.timeout(60):
        while not (await client.query(gid)).terminal:
            await dtm.advance(30)
    return await client.wait(gid)
