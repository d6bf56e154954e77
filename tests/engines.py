"""The gRPC engine of a test: of the kit's servers and clients that are not told theirs.

``GRPC_ENGINE=lean``, or ``grpcio``, in the environment of a run takes one for all tests that would
take both, or one of their own choice. Which one is really at work is seen from outside: callers by
:func:`hearing`, servers by :func:`engine_at`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import get_args

import pytest

from kit.dtm.pb.dtm_pb2 import DtmGidReply
from kit.dtm.server import config
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer, ServerCall, engines
from kit.transport.grpc.engines import EngineName

VARIABLE = "GRPC_ENGINE"


def chosen(otherwise: EngineName = engines.DEFAULT) -> EngineName:
    """The engine that the environment names, ``otherwise`` when it names none."""
    named = os.environ.get(VARIABLE)
    for name in get_args(EngineName):
        if name == named:
            return name  # type: ignore[no-any-return]
    assert not named, f"{VARIABLE}={named}: write grpcio or lean"
    return otherwise


ENGINES: tuple[EngineName, ...] = tuple(dict.fromkeys(map(chosen, get_args(EngineName))))
"""Those that this run is about."""


@contextmanager
def speaking(engine: EngineName) -> Iterator[None]:
    """``engine`` is the default here, and what the environment of processes begun here names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "DEFAULT", engine)
        patch.setattr(config, "GRPC_ENGINE", engine)
        patch.setenv(VARIABLE, engine)
        yield


AGENTS = {"kit-grpc-lean/1": "lean", "grpc-python-asyncio": "grpcio"}
"""How callers introduce themselves, up to the first blank or version."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_TRUE_BINARY_METADATA = 0xFE03
"""A setting of gRPC's own, which grpcio sends and the lean engine does not know."""


@asynccontextmanager
async def hearing(*methods: str) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A server's address, and by method the engine of who called it last; says yes to all.

    A gid is what it answers, which is nothing to those who did not ask for one.
    """
    heard: dict[str, str] = {}
    server = GrpcServer(address="127.0.0.1:0", engine="grpcio")

    def register(method: str) -> None:
        async def answer(_: bytes, call: ServerCall) -> bytes:
            agent = str(dict(call.metadata)["user-agent"])
            (heard[method],) = (name for text, name in AGENTS.items() if agent.startswith(text))
            return DtmGidReply(Gid="g-1").SerializeToString()

        server.register_unary(method, answer)

    for method in methods:
        register(method)
    async with running(server) as address:
        yield address, heard


async def engine_at(address: str) -> EngineName:
    """The engine of the server there, by the first frame that it sends."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(_HELLO)
        head = await reader.readexactly(9)
        settings = await reader.readexactly(int.from_bytes(head[:3], "big"))
    finally:
        writer.close()
    known = {int.from_bytes(settings[at : at + 2], "big") for at in range(0, len(settings), 6)}
    return "grpcio" if _TRUE_BINARY_METADATA in known else "lean"
