"""The engines by name.

=========  ======================================================================================
grpcio     ``grpc.aio``: the default, complete
lean       :mod:`kit.transport.lean`: HTTP/2 on the loop itself, a fraction of the CPU per call
=========  ======================================================================================
"""

from typing import Literal, TypeAlias, get_args

from kit.transport.grpc.engine import ClientEngine, ServerEngineFactory
from kit.transport.grpc.grpcio import GrpcioConnection, GrpcioServer

EngineName: TypeAlias = Literal["grpcio", "lean"]

DEFAULT: EngineName = "grpcio"


def engine_name(text: str) -> EngineName:
    """``text``, which somebody wrote, as the name of an engine.

    Raises:
        ValueError: no engine has that name.
    """
    for name in get_args(EngineName):
        if name == text:
            return name  # type: ignore[no-any-return]
    raise _unknown(text)


def server_engine(engine: ServerEngineFactory | EngineName | None) -> ServerEngineFactory:
    """The engine of a server: itself, by its name, or the default for ``None``.

    Raises:
        ValueError: no engine has that name.
    """
    chosen = engine or DEFAULT
    if not isinstance(chosen, str):
        return chosen
    if chosen == "grpcio":
        return GrpcioServer
    if chosen == "lean":
        from kit.transport.lean import LeanServer  # only for those that take it

        return LeanServer
    raise _unknown(chosen)


def client_engine(engine: ClientEngine | EngineName | None) -> ClientEngine:
    """The engine of a client, as :func:`server_engine`.

    Raises:
        ValueError: no engine has that name.
    """
    chosen = engine or DEFAULT
    if not isinstance(chosen, str):
        return chosen
    if chosen == "grpcio":
        return GrpcioConnection
    if chosen == "lean":
        from kit.transport.lean import LeanConnection  # only for those that take it

        return LeanConnection
    raise _unknown(chosen)


def _unknown(name: str) -> ValueError:
    return ValueError(f"engine {name!r} is not known; write grpcio or lean")
