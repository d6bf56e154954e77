"""The nodes of one target: a connection to each, a pick per call, another node when one is away.

A call that certainly never left goes to another node, at most :data:`MOST_NODES_TRIED` of them and
never twice to one. A node that could not be reached gets no call until its connection stands again,
unless no other node is left: no call of a user serves to find out. The same goes for a node whose
health service says that it does not serve.

Source: in grpc-go a connection that fails leaves the picker (balancer/base); grpcio has no such
plug-in, so the kit has one channel a node and does it here.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from kit import log
from kit.duration import format_duration
from kit.errors.codes import GrpcCode
from kit.registry import RegistryUnavailable
from kit.selector import Done, NoAvailableNode, Node, Selector
from kit.transport import CallInfo
from kit.transport.grpc.engine import Connection, RawMetadata, Reply, RpcFailed
from kit.transport.grpc.failure import RpcError
from kit.transport.grpc.healthwatch import HealthWatches
from kit.transport.grpc.resolver import Resolver
from kit.transport.grpc.target import Target

_log = log.get_logger()

MOST_NODES_TRIED = 5


class _Peer:
    """A node and the connection to it."""

    __slots__ = ("active", "address", "connection", "retired")

    def __init__(self, address: str, connection: Connection) -> None:
        self.address = address
        self.connection = connection
        self.active = 0
        self.retired = False


class Lease:
    """A node in use by one call."""

    __slots__ = ("_done", "_info", "_peer", "_pool", "connection")

    def __init__(self, pool: "Pool", peer: _Peer, done: Done, info: CallInfo) -> None:
        self._pool = pool
        self._peer = peer
        self._done = done
        self._info = info
        self.connection = peer.connection

    def end(self, error: BaseException | None) -> None:
        """Give the node back and tell the balancer what became of the call."""
        self._done(error)
        self._pool._ended(self._peer)  # noqa: SLF001  (two halves of one thing)

    def failed(self, failure: RpcFailed) -> RpcError:
        """End with ``failure``, and say it in words that tell where it happened."""
        error = self._pool._failed(failure, self._peer, self._info)  # noqa: SLF001
        self.end(error)
        return error


class Pool:
    """Connections to the nodes of ``target``.

    Args:
        target: what the client was told to call.
        connect: makes the connection to an address.
        selector: picks a node per call.
        first_answer: seconds to wait for the registry's first list.
        health: hears what the health services of the nodes say; ``None`` when nobody asks them.
    """

    def __init__(
        self,
        target: Target,
        *,
        connect: Callable[[str], Connection],
        selector: Selector,
        first_answer: float,
        health: HealthWatches | None = None,
    ) -> None:
        self._target = target
        self._connect = connect
        self._selector = selector
        self._first_answer = first_answer
        self._health = health
        self._nodes = tuple(Node(address) for address in target.addresses)
        self._peers: dict[str, _Peer] = {}
        self._away: set[str] = set()
        self._resolver: Resolver | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def resolve_with(self, resolver: Resolver) -> None:
        """Take the nodes from ``resolver``, from the first call on."""
        self._resolver = resolver

    def push(self, nodes: tuple[Node, ...]) -> None:
        """Use ``nodes`` from now on; connections to others close when their calls have ended."""
        self._nodes = nodes
        addresses = {node.address for node in nodes}
        self._away &= addresses
        for address in self._peers.keys() - addresses:
            if self._health is not None:
                self._health.forget(address)
            peer = self._peers.pop(address)
            peer.retired = True
            if not peer.active:
                self._close(peer)

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: RawMetadata,
        info: CallInfo,
        *,
        bare: bool = False,
    ) -> Reply:
        """Make one call; ``info.peer`` tells the node while and after it runs.

        ``bare`` as in :meth:`kit.transport.grpc.engine.Connection.unary`.

        Raises:
            RpcError: the call failed.
            NoAvailableNode: there is no node to call.
            RegistryUnavailable: the registry has not answered yet.
        """
        if self._closed or not self._is_resolved():
            await self.resolved(info.deadline)
        tried: list[str] = []
        while True:
            lease = self.lease(info, tried)
            try:
                reply = await lease.connection.unary(
                    method, request, metadata, info.deadline, bare=bare
                )
            except RpcFailed as failure:
                error = lease.failed(failure)
                tried.append(info.peer)
                late = info.deadline is not None and time.monotonic() >= info.deadline
                if not failure.unsent or late or not self._others(tried):
                    raise error from failure
            except BaseException as exc:
                lease.end(exc)
                raise
            else:
                lease.end(None)
                return reply

    def lease(self, info: CallInfo, tried: Sequence[str] = ()) -> "Lease":
        """The connection for one call; its ``end`` or ``failed`` is due when the call has ended.

        Raises:
            NoAvailableNode: there is no node to call.
        """
        peer, done = self._pick(tried)
        info.peer = peer.address
        peer.active += 1
        return Lease(self, peer, done, info)

    def _ended(self, peer: _Peer) -> None:
        peer.active -= 1
        if peer.retired and not peer.active:
            self._close(peer)

    async def resolved(self, deadline: float | None) -> None:
        """Wait until it is known which nodes there are.

        Raises:
            RegistryUnavailable: the registry did not say so in time.
        """
        if self._closed:
            raise RuntimeError(f"the client of {self._target.text} is closed")
        if self._resolver is None or self._is_resolved():
            return
        if self._watching is None:
            # Ends in aclose.
            self._watching = asyncio.create_task(self._resolver.run())
        wait = self._first_answer
        if deadline is not None:
            wait = min(wait, deadline - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                await self._resolver.answered.wait()
        except TimeoutError:
            raise RegistryUnavailable(
                f"discovery create watcher overtime: {self._resolver.described} did not list "
                f"{self._target.service} in {format_duration(round(max(wait, 0.0), 3))}"
            ) from None

    def _is_resolved(self) -> bool:
        return self._resolver is None or self._resolver.answered.is_set()

    async def aclose(self) -> None:
        """Cut every connection; calls that run are cancelled."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._health is not None:
            await self._health.aclose()
        for peer in self._peers.values():
            self._close(peer)
        self._peers.clear()
        await asyncio.gather(*self._closing)

    def _pick(self, tried: Sequence[str]) -> tuple[_Peer, Done]:
        nodes: Sequence[Node] = self._others(tried) if tried else self._nodes
        if self._away:
            nodes = tuple(node for node in nodes if self._within_reach(node.address)) or nodes
        health = self._health
        if health is not None and health.unwell:
            nodes = tuple(node for node in nodes if node.address not in health.unwell) or nodes
        try:
            node, done = self._selector.select(nodes)
        except NoAvailableNode as exc:
            raise NoAvailableNode(self._nobody()) from exc
        peer = self._peers.get(node.address)
        if peer is None:
            peer = self._peers[node.address] = _Peer(node.address, self._connect(node.address))
        if health is not None and len(self._nodes) > 1:
            health.follow(node.address)
        return peer, done

    def _others(self, tried: Sequence[str]) -> tuple[Node, ...]:
        if len(tried) >= MOST_NODES_TRIED:
            return ()
        return tuple(node for node in self._nodes if node.address not in tried)

    def _nobody(self) -> str:
        if self._nodes:
            return f"{self._target.text}: the node filters left none of {len(self._nodes)}"
        return f"{self._target.text}: no instance of {self._target.service} is registered"

    def _within_reach(self, address: str) -> bool:
        if address not in self._away:
            return True
        if not self._peers[address].connection.ready():
            return False
        self._away.discard(address)
        _log.info(f"[gRPC] {self._target.text}: {address} is back")
        return True

    def _take_out(self, address: str, failure: RpcFailed) -> None:
        if address in self._peers and address not in self._away:
            self._away.add(address)
            if len(self._nodes) > 1:
                _log.warning(f"[gRPC] {self._target.text}: {address} is away: {failure.message}")

    def _failed(self, failure: RpcFailed, peer: _Peer, info: CallInfo) -> RpcError:
        message, address = failure.message, peer.address
        if failure.unsent:
            self._take_out(address, failure)
            message = f"{self._target.text}: no connection to {address}: {message}"
        elif failure.status is GrpcCode.UNAVAILABLE and not peer.connection.ready():
            self._take_out(address, failure)  # the connection broke under the call
        elif (
            failure.status is GrpcCode.DEADLINE_EXCEEDED
            and info.deadline is not None
            and info.limit is not None
            and time.monotonic() >= info.deadline - 0.001
        ):
            message = (
                f"{info.limit_side} timeout of {format_duration(info.limit)} for "
                f"{info.operation}: {self._target.text} at {address} did not answer"
            )
        return RpcError(failure.status, message, failure.trailers, failure.headers)

    def _close(self, peer: _Peer) -> None:
        task = asyncio.create_task(peer.connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
