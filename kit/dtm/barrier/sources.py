"""Reading which branch a call is for: gRPC metadata, a query, a request of any framework."""

from collections.abc import Iterable, Mapping

from kit.dtm.barrier.branch import BranchBarrier
from kit.dtm.barrier.errors import BarrierError
from kit.dtm.wire import MetadataKey
from kit.transport import current_call

_QUERY_KEYS = ("trans_type", "gid", "branch_id", "op")
_METADATA_KEYS = (
    MetadataKey.TRANS_TYPE, MetadataKey.GID, MetadataKey.BRANCH_ID, MetadataKey.OP,
)  # fmt: skip

_REQUEST_QUERIES = ("query_params", "args", "GET")
"""Where Starlette and FastAPI, Flask, and Django keep the query of a request."""

_DROPPED = str.maketrans("", "", "\r\n;")


def barrier_from_grpc(
    metadata: Iterable[tuple[str, str | bytes]], *, table: str = ""
) -> BranchBarrier:
    """The branch that a gRPC call is for, from what the caller sent along.

    ``current_call().request_headers.items()`` is that, and so is ``ServerCall.metadata``.

    Raises:
        BarrierError: ids are missing or empty; the message names them.

    Source: dtm-labs/dtm client/dtmgrpc/barrier.go, BarrierFromGrpc.
    """
    return _barrier({key: _text(value) for key, value in metadata}, _METADATA_KEYS, table)


def barrier_from_query(query: Mapping[str, str], *, table: str = "") -> BranchBarrier:
    """The branch that an HTTP call is for, from its query; of JSON-RPC from its params.

    Line ends and ``;`` are dropped, as dtm does.

    Raises:
        BarrierError: ids are missing or empty; the message names them.

    Source: dtm-labs/dtm client/dtmcli/barrier.go, BarrierFromQuery.
    """
    sent = {key: value for key in _QUERY_KEYS if isinstance(value := query.get(key), str)}
    return _barrier(
        {key: value.translate(_DROPPED) for key, value in sent.items()}, _QUERY_KEYS, table
    )


def barrier_from_request(request: object, *, table: str = "") -> BranchBarrier:
    """The branch that a request of FastAPI, Starlette, Flask or Django is for.

    Raises:
        BarrierError: it has no query, or ids are missing; the message names them.
    """
    for name in _REQUEST_QUERIES:
        if isinstance(query := getattr(request, name, None), Mapping):
            return barrier_from_query(query, table=table)
    raise BarrierError(
        f"a {type(request).__module__}.{type(request).__qualname__} has no query; give the request "
        "of FastAPI, Starlette, Flask or Django, or call barrier_from_query()"
    )


def current_barrier(*, table: str = "") -> BranchBarrier:
    """The branch that the running handler of a kit server is for.

    Raises:
        BarrierError: no call is being handled, or ids are missing.
    """
    call = current_call()
    if call is None:
        raise BarrierError("no call is being handled; use barrier_from_grpc or barrier_from_query")
    return barrier_from_grpc(call.request_headers.items(), table=table)


def _barrier(sent: Mapping[str, str], keys: tuple[str, ...], table: str) -> BranchBarrier:
    values = [sent.get(key, "") for key in keys]
    if missing := [key for key, value in zip(keys, values, strict=True) if not value]:
        kind = "metadata" if keys is _METADATA_KEYS else "query"
        raise BarrierError(
            f"{kind} {', '.join(missing)} missing; the call has to come from a dtm coordinator "
            "or client"
        )
    return BranchBarrier(*values, table=table)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
