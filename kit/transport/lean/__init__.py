"""gRPC over HTTP/2 on the event loop itself, without grpcio's threads: the engine ``lean``.

The second implementation of :mod:`kit.transport.grpc.engine`; ``GrpcServer(engine="lean")`` and
``GrpcClient(target, engine="lean")`` take it. Each module knows only those above it:

===============  ===============================================================================
``frames``       the bytes of HTTP/2
``headers``      HPACK
``guard``        what a peer may do
``connection``   one HTTP/2 connection, without its socket
``messages``     gRPC messages in DATA
``calls``        what header fields mean to gRPC
``wire``         the socket: writes, timers, keepalive
``server``       :class:`LeanServer`
``client``       :class:`LeanConnection`
===============  ===============================================================================

Why it is there, what it was measured against and what it does not do: docs/adr/0010-lean-engine.md.
"""

from kit.transport.lean.client import LeanConnection
from kit.transport.lean.guard import Guard
from kit.transport.lean.server import LeanServer

__all__ = ["Guard", "LeanConnection", "LeanServer"]
