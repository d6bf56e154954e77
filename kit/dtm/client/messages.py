"""What travels to the coordinator, the same for its three APIs, and the two ways to write it.

JSON is byte for byte what Go's ``json.Marshal`` makes of dtm's structs: keys in the order of the
struct, those of maps sorted, no spaces, what is empty left out, ``<``, ``>`` and ``&`` escaped.

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_base.go (TransBase, TransOptions,
TransRegisterBranch), client/dtmgrpc/dtmgimp/types.go (DtmGrpcCall).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kit.dtm.core.model import Options
from kit.dtm.pb.dtm_pb2 import DtmBranchRequest, DtmRequest, DtmTransOptions
from kit.dtm.wire import Protocol

_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)

_DEFAULTS = Options()


class Operation(StrEnum):
    """What is asked about a whole transaction; the spelling of HTTP and JSON-RPC."""

    PREPARE = "prepare"
    SUBMIT = "submit"
    ABORT = "abort"

    @property
    def grpc_name(self) -> str:
        """The method of ``dtmgimp.Dtm``."""
        return self.capitalize()


@dataclass(frozen=True, slots=True)
class TransRequest:
    """A transaction as it is prepared, submitted or aborted.

    Attributes:
        steps: ``action`` and, of a saga, ``compensate`` of each.
        payloads: one a step.
        custom_data: JSON text.
        req_extra: of a workflow's Submit: status, rollback_reason, result.
        bare: of what is above only gid, type and req_extra travel over HTTP, as Go ends workflows.
    """

    gid: str
    trans_type: str
    options: Options = field(default_factory=Options)
    steps: tuple[Mapping[str, str], ...] = ()
    payloads: tuple[bytes, ...] = ()
    query_prepared: str = ""
    custom_data: str = ""
    rollback_reason: str = ""
    req_extra: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class BranchRequest:
    """A branch to be registered.

    Attributes:
        data: its payload, or what it gave.
        fields: tcc ``confirm`` and ``cancel``; xa ``url``; workflow ``op`` and ``status``.
    """

    gid: str
    trans_type: str
    branch_id: str
    data: bytes
    fields: Mapping[str, str]


def grpc_request(request: TransRequest) -> DtmRequest:
    """``request`` as the gRPC API takes it; the options are always there, and ``null`` steps."""
    return DtmRequest(
        Gid=request.gid,
        TransType=request.trans_type,
        TransOptions=_grpc_options(request.options),
        CustomedData=request.custom_data,
        BinPayloads=request.payloads,
        QueryPrepared=request.query_prepared,
        Steps=go_json(request.steps) if request.steps else "null",
        ReqExtra=request.req_extra,
        RollbackReason=request.rollback_reason,
    )


def _grpc_options(options: Options) -> DtmTransOptions:
    if options == _DEFAULTS:  # most are: nothing has to be set
        return DtmTransOptions()
    return DtmTransOptions(
        WaitResult=options.wait_result,
        TimeoutToFail=options.timeout_to_fail,
        RetryInterval=options.retry_interval,
        BranchHeaders=options.branch_headers,
        RequestTimeout=options.request_timeout,
        RetryLimit=options.retry_limit,
    )


def grpc_branch(request: BranchRequest) -> DtmBranchRequest:
    """``request`` as the gRPC API takes it."""
    return DtmBranchRequest(
        Gid=request.gid,
        TransType=request.trans_type,
        BranchID=request.branch_id,
        Data=request.fields,
        BusiPayload=request.data,
    )


def json_request(request: TransRequest, protocol: str) -> str:
    """``request`` as the HTTP and JSON-RPC APIs take it.

    Args:
        request: its payloads are UTF-8.
        protocol: empty as most of Go's HTTP clients leave it, or one of :class:`Protocol`.
    """
    if request.bare:
        body = {
            "gid": request.gid,
            "req_extra": dict(request.req_extra),
            "trans_type": request.trans_type,
        }
        return go_json(body)
    options = request.options
    optional: dict[str, object] = {
        "custom_data": request.custom_data,
        "wait_result": options.wait_result,
        "timeout_to_fail": options.timeout_to_fail,
        "request_timeout": options.request_timeout,
        "retry_interval": options.retry_interval,
        "branch_headers": _sorted(options.branch_headers),
    }
    middle: dict[str, object] = {
        "retry_limit": options.retry_limit,
        "steps": [_sorted(step) for step in request.steps],
        "payloads": [payload.decode() for payload in request.payloads],
        "query_prepared": request.query_prepared,
    }
    return go_json(
        {
            "gid": request.gid,
            "trans_type": request.trans_type,
            **_given(optional),
            "concurrent": options.concurrent,
            **_given(middle),
            "protocol": protocol,
            **_given({"rollback_reason": request.rollback_reason}),
        },
        ordered=True,
    )


def json_branch(request: BranchRequest) -> str:
    """``request`` as the HTTP and JSON-RPC APIs take it; its data is UTF-8."""
    return go_json(
        {
            "gid": request.gid,
            "trans_type": request.trans_type,
            "branch_id": request.branch_id,
            "data": request.data.decode(),
            **request.fields,
        }
    )


def json_protocol(request: TransRequest, api: Protocol) -> str:
    """What ``protocol`` says in the body of ``request``."""
    if api is Protocol.HTTP and request.trans_type != "workflow":
        return ""
    return api


def go_json(value: object, *, ordered: bool = False) -> str:
    r"""``value`` as Go's ``json.Marshal`` writes it.

    Args:
        value: of JSON types.
        ordered: keys are in the order that is wanted, as those of a struct.

    >>> go_json({"b": "<", "a": None})
    '{"a":null,"b":"\\u003c"}'
    """
    text = json.dumps(value, separators=(",", ":"), sort_keys=not ordered, ensure_ascii=False)
    return text.translate(_GO_ESCAPES)


def _sorted(mapping: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(mapping.items()))


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value}
