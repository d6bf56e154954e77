"""What the health services of a client's nodes say, as a kratos client asks them.

A ``Watch`` for the whole server stays open to each node that was called, as soon as there is more
than one to choose from. A node that says anything but SERVING gets no calls while another one is
left; a server without a health service counts as healthy. What a node said last holds until it says
something else.

Each watch has a connection of its own. On a shared one the open watch would let the client ping an
idle connection every few seconds, and a Go server ends a connection that does so, with the calls on
it.

Source: go-kratos/kratos transport/grpc/client.go (healthCheckConfig); grpc-go health/client.go.
"""

import asyncio
from collections.abc import Callable

from grpc_health.v1 import health_pb2

from kit import log
from kit.clock import Clock, SystemClock
from kit.errors.codes import GrpcCode
from kit.resilience import BackOff
from kit.transport.grpc.engine import Connection, Keepalive, RpcFailed

_log = log.get_logger()

METHOD = "/grpc.health.v1.Health/Watch"
QUIET = Keepalive(interval=310.0, timeout=20.0)
"""Go's default server allows a ping every 300 s."""

_AGAIN = BackOff(first=0.5, ceiling=5.0)
_REQUEST = health_pb2.HealthCheckRequest().SerializeToString()


class HealthWatches:
    """One watch a node.

    Args:
        target: what the client calls, for the log.
        connect: makes the connection of one watch.
        clock: how the pause after a broken watch passes.
    """

    def __init__(
        self, target: str, connect: Callable[[str], Connection], clock: Clock | None = None
    ) -> None:
        self._target = target
        self._connect = connect
        self._clock = clock or SystemClock()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.unwell: set[str] = set()
        """Addresses that said last that they do not serve."""

    def follow(self, address: str) -> None:
        """Hear what ``address`` says from now on."""
        if address not in self._watches:
            # Ends when the address is forgotten, or in aclose.
            self._watches[address] = asyncio.create_task(self._watch(address))

    def forget(self, address: str) -> None:
        """``address`` is no node any more."""
        watch = self._watches.pop(address, None)
        if watch is not None:
            watch.cancel()
            self._ending.add(watch)
            watch.add_done_callback(self._ending.discard)
        self.unwell.discard(address)

    async def aclose(self) -> None:
        """End every watch."""
        for address in list(self._watches):
            self.forget(address)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _watch(self, address: str) -> None:
        connection = self._connect(address)
        failures = 0
        try:
            while True:
                try:
                    stream = connection.stream(METHOD, (), None)
                    await stream.write(_REQUEST)
                    await stream.done_writing()
                    while (said := await stream.read()) is not None:
                        self._take(address, health_pb2.HealthCheckResponse.FromString(said).status)
                        failures = 0
                except RpcFailed as failure:
                    if failure.status is GrpcCode.UNIMPLEMENTED:
                        self.unwell.discard(address)
                        return
                failures += 1
                await self._clock.sleep(_AGAIN.pause(failures))
        except Exception as exc:  # noqa: BLE001  (a watch that breaks must not stop the calls)
            self.unwell.discard(address)
            _log.warning(f"[gRPC] {self._target}: the health of {address} is not known: {exc}")
        finally:
            await connection.close()

    def _take(self, address: str, status: int) -> None:
        serving = status == health_pb2.HealthCheckResponse.SERVING
        if serving and address in self.unwell:
            self.unwell.discard(address)
            _log.info(f"[gRPC] {self._target}: {address} serves again")
        elif not serving and address not in self.unwell:
            self.unwell.add(address)
            word = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
            _log.warning(f"[gRPC] {self._target}: {address} says {word}; others are called")
