"""Asks branches, whatever they speak; what the engine is given.

Each URL is called by the protocol that it and the transaction's stored protocol ask for, so one
transaction may have branches of several. Targets are kept apart by :mod:`kit.dtm.server.lanes`.

Source: dtm-labs/dtm dtmsvr/trans_status.go (getBranchResult, getURLResult).
"""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

from kit.clock import Clock, SystemClock
from kit.dtm.core import Branch, Transaction
from kit.dtm.driver import Driver
from kit.dtm.server.callers import BranchAnswer, Caller
from kit.dtm.server.callers.classify import answer_of, classify
from kit.dtm.server.callers.exchange import HttpExchange
from kit.dtm.server.callers.grpc import GrpcCaller
from kit.dtm.server.callers.http import HttpCaller
from kit.dtm.server.callers.jsonrpc import JsonRpcCaller
from kit.dtm.server.callers.names import CheckedResolver, NameCheck
from kit.dtm.server.lanes import PER_TARGET, TOTAL, Lanes
from kit.dtm.server.targets import Lookup, SystemLookup, Targets
from kit.dtm.wire import Protocol, Result
from kit.transport.grpc import GrpcClient

Observer: TypeAlias = Callable[[Transaction, Branch, Result, float], None]
"""Told of every call that has ended, with the seconds that it took, waiting included."""

_HTTP = ("http://", "https://")


class BranchCaller:
    """Asks branches over gRPC, HTTP and JSON-RPC.

    Args:
        driver: what splits the URLs of gRPC branches.
        connect: makes the client of a gRPC target.
        targets: which branches may be called; the defaults of :class:`Targets` otherwise.
        legacy_body_result: the words FAILURE and ONGOING in the body of a 200 count.
        per_target: calls to one target at once.
        total: calls at once.
        docker: the environment says ``IS_DOCKER``.
        observe: for metrics.
        clock: measures pauses and durations.
        lookup: how names become addresses; the machine's resolver otherwise.
        new_id: makes the ``id`` of a JSON-RPC request; random otherwise.
        rng: spreads the probes of targets that are away.
    """

    def __init__(
        self,
        driver: Driver,
        connect: Callable[[str], GrpcClient],
        *,
        targets: Targets | None = None,
        legacy_body_result: bool = True,
        per_target: int = PER_TARGET,
        total: int = TOTAL,
        docker: bool = False,
        observe: Observer | None = None,
        clock: Clock | None = None,
        lookup: Lookup | None = None,
        new_id: Callable[[], str] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.targets = targets or Targets()
        self._system_lookup = SystemLookup() if lookup is None else None
        lookup = lookup or self._system_lookup
        assert lookup is not None
        self._names = NameCheck(self.targets, lookup)
        self._exchange = HttpExchange(CheckedResolver(self.targets, lookup))
        self._grpc = GrpcCaller(driver, connect, names=self._names, clock=clock, docker=docker)
        self._http = HttpCaller(
            self._exchange, self.targets, legacy=legacy_body_result, docker=docker
        )
        ids = {} if new_id is None else {"new_id": new_id}
        self._json_rpc = JsonRpcCaller(self._http, legacy=legacy_body_result, **ids)
        self._lanes = Lanes(clock, per_target=per_target, total=total, rng=rng)
        self._clock = clock
        self._observe = observe

    async def __aenter__(self) -> "BranchCaller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut every connection; may be called twice."""
        async with AsyncExitStack() as stack:
            if self._system_lookup is not None:
                stack.callback(self._system_lookup.close)
            stack.push_async_callback(self._names.aclose)
            stack.push_async_callback(self._exchange.aclose)
            stack.push_async_callback(self._grpc.aclose)

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask ``branch``, ``limit`` seconds at most."""
        observe = self._observe
        started = 0.0 if observe is None else self._clock.monotonic()
        try:
            caller, target = self._route(tx.protocol, branch.url)
        except ValueError as error:
            answer = answer_of(Result.UNKNOWN, str(error))
        else:
            answer = await self._lanes.call(target, caller, tx, branch, limit)
        if observe is not None:
            observe(tx, branch, answer.result, self._clock.monotonic() - started)
        return answer

    def _route(self, protocol: Protocol, url: str) -> tuple[Caller, str]:
        """Who calls ``url``, and which target it belongs to.

        Raises:
            ValueError: the driver cannot read it.
        """
        if protocol is not Protocol.HTTP and not url.startswith(_HTTP):
            return self._grpc, self._grpc.parse(url).target
        if protocol is Protocol.JSON_RPC and "method" in url:
            return self._json_rpc, _http_target(url)
        return self._http, _http_target(url)


def _http_target(url: str) -> str:
    """Scheme and authority, without the user in it."""
    scheme, _, rest = url.partition("://")
    for end in "/?#":
        rest = rest.partition(end)[0]
    return f"{scheme}://{rest.rpartition('@')[2]}".lower()


__all__ = ["BranchAnswer", "BranchCaller", "Caller", "GrpcCaller", "Observer", "classify"]
