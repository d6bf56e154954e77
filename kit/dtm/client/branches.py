"""Calls to branches in the coordinator's place: tcc try, xa action, query-prepared, workflow steps.

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_base.go (TransRequestBranch),
client/dtmgrpc/dtmgimp/types.go (InvokeBranch), client/dtmcli/utils.go (HTTPResp2DtmError).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.errors import DtmUnavailable, InvalidCall
from kit.dtm.client.exchange import HttpExchange
from kit.dtm.client.grpc import grpc_outcome
from kit.dtm.client.http import code_of
from kit.dtm.client.payloads import HTTP_SCHEMES
from kit.dtm.client.tracing import trace_headers
from kit.dtm.client.transport import outcome
from kit.dtm.driver import Driver
from kit.dtm.wire import MetadataKey
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient

MAX_TARGETS = 256
"""gRPC targets whose connections are kept; those of further ones are closed after each call."""


class Decodable(Protocol):
    """A class of protobuf messages."""

    @classmethod
    def FromString(cls, data: bytes, /) -> "Decodable":  # noqa: N802  (protobuf's name)
        """The message that is encoded in ``data``."""
        ...


M = TypeVar("M", bound=Decodable)


@dataclass(frozen=True, slots=True)
class BranchReply:
    """What a branch gave.

    Attributes:
        data: the body, or the encoded message.
    """

    data: bytes

    def json(self) -> object:
        """The body, decoded.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.data)

    def message(self, kind: type[M]) -> M:
        """The reply as a message of the class ``kind``.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        reply = kind.FromString(self.data)
        assert isinstance(reply, kind), f"{kind.__name__}.FromString gave another class"
        return reply


class Branches:
    """Calls branches over HTTP and gRPC.

    Args:
        server: the coordinator's address as the client knows it; sent along.
        exchange: what sends HTTP; closed by the caller.
        driver: how the URLs of gRPC branches are read.
        connect: makes the client of a gRPC target.
    """

    def __init__(
        self,
        server: str,
        exchange: HttpExchange,
        driver: Driver,
        connect: Callable[[str], GrpcClient],
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._driver = driver
        self._connect = connect
        self._clients: dict[str, GrpcClient] = {}

    async def aclose(self) -> None:
        """Cut the connections to gRPC branches; may be called twice."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def call(
        self,
        url: str,
        ids: BranchBarrier,
        payload: bytes | None,
        *,
        headers: Mapping[str, str],
        phase2_url: str = "",
    ) -> BranchReply:
        """Ask one branch and give its answer.

        Args:
            url: of the branch.
            ids: which branch of which transaction it is called as, and for what.
            payload: ``None``: GET without a body, or an empty message.
            headers: the branch headers of the transaction.
            phase2_url: xa: what is called to commit or roll back.

        Raises:
            Failure: the branch says no.
            Ongoing: it is not done yet.
            DtmUnavailable: there was another answer, or none.
            InvalidCall: ``url`` cannot be understood.
        """
        if url.startswith(HTTP_SCHEMES):
            return await self._http(url, ids, payload, headers, phase2_url)
        return await self._grpc(url, ids, payload or b"", headers, phase2_url)

    async def request(
        self,
        method: str,
        url: str,
        ids: BranchBarrier,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> BranchReply:
        """Any HTTP request as a step of a workflow; raises as :meth:`call`.

        The status alone says what the answer is: workflows never knew the words of older versions.
        """
        return await self._classified(method, url, _ids(ids), body, headers, words=False)

    async def _http(
        self,
        url: str,
        ids: BranchBarrier,
        payload: bytes | None,
        headers: Mapping[str, str],
        phase2_url: str,
    ) -> BranchReply:
        query = _ids(ids) | {"dtm": self._server}
        if phase2_url:
            query["phase2_url"] = phase2_url
        method = "GET" if payload is None else "POST"
        return await self._classified(method, url, query, payload, headers, words=True)

    async def _classified(
        self,
        method: str,
        url: str,
        query: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        words: bool,
    ) -> BranchReply:
        reply = await self._exchange.send(method, url, query=query, headers=headers, body=body)
        code = code_of(reply, words=words)
        if code is not GrpcCode.OK:
            raise outcome(f"{method} {url} (HTTP {reply.status})", code, reply.text)
        return BranchReply(reply.body)

    async def _grpc(
        self,
        url: str,
        ids: BranchBarrier,
        payload: bytes,
        headers: Mapping[str, str],
        phase2_url: str,
    ) -> BranchReply:
        try:
            target, method = self._driver.parse(url)
        except ValueError as exc:
            raise InvalidCall(str(exc)) from exc
        metadata = self.metadata(ids, headers)
        if phase2_url:
            metadata[MetadataKey.PHASE2_URL] = phase2_url
        kept = target in self._clients or len(self._clients) < MAX_TARGETS
        try:
            client = self._clients.get(target) or self._connect(target)
        except ValueError as exc:
            raise InvalidCall(f"url: {url!r}: {exc}") from exc
        if kept:
            self._clients[target] = client
        try:
            return BranchReply(await client.unary(method, payload, metadata=metadata.items()))
        except Error as exc:
            raise _definite(grpc_outcome(exc, f"call of {url}")) from exc
        finally:
            if not kept:
                await client.aclose()

    def metadata(self, ids: BranchBarrier, headers: Mapping[str, str]) -> dict[str, str]:
        """The gRPC metadata of a call as the branch ``ids``."""
        return {
            MetadataKey.GID: ids.gid,
            MetadataKey.TRANS_TYPE: ids.trans_type,
            MetadataKey.BRANCH_ID: ids.branch_id,
            MetadataKey.OP: ids.op,
            MetadataKey.DTM: self._server,
            **trace_headers(),
            **{key.lower(): value for key, value in headers.items()},
        }


def _definite(error: Error) -> Error:
    """A branch that refuses its arguments said nothing about the transaction."""
    if isinstance(error, DtmUnavailable):
        return DtmUnavailable(error.message, error.status)
    return error


def _ids(ids: BranchBarrier) -> dict[str, str]:
    return {
        "gid": ids.gid,
        "trans_type": ids.trans_type,
        "branch_id": ids.branch_id,
        "op": ids.op,
    }
