"""gRPC as kratos speaks it, a server and a client over an exchangeable engine.

::

    server = GrpcServer(address="0.0.0.0:9000", middleware=[recovery()])
    add_TransServicer_to_server(TransService(), server.services)
    server.register_unary("/dtmgimp.Dtm/Submit", submit)  # bytes in, bytes out, no middleware

    async with GrpcClient("discovery:///trans", discovery=registry) as client:
        await TransStub(client.channel).TransOut(AdjustInfo(Amount=30, UserID=1), timeout=1.0)
        await client.unary("/api.trans.v1.Trans/TransOut", payload, metadata=[("k", "v")])

A failed call raises :class:`RpcError`, a :class:`kit.errors.Error` that also has the gRPC
``status``. ``engine.py`` is the seam (bytes, metadata, deadline, status), ``grpcio.py`` the
engine on ``grpc.aio``.

Source: go-kratos/kratos transport/grpc.
"""

import kit.transport.grpc._quiet  # noqa: F401  (before grpcio)
from kit.transport.grpc.client import GrpcClient
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    RawMetadata,
    Reply,
    RpcFailed,
    ServerCall,
)
from kit.transport.grpc.failure import RpcError, status_of
from kit.transport.grpc.server import GrpcServer
from kit.transport.grpc.target import Target, parse_target
from kit.transport.tls import ClientTls, ServerTls

__all__ = [
    "ClientTls",
    "GrpcClient",
    "GrpcServer",
    "Keepalive",
    "Limits",
    "RawMetadata",
    "Reply",
    "RpcError",
    "RpcFailed",
    "ServerCall",
    "ServerTls",
    "Target",
    "parse_target",
    "status_of",
]
