"""The JSON bodies of transactions and branches as requests; HTTP and JSON-RPC send the same.

Source: dtm-labs/dtm dtmsvr/trans_class.go (TransFromContext, TransFromJSONRPCContext,
setupPayloads), dtmsvr/storage/trans.go (TransGlobalStore).
"""

from collections.abc import Mapping

from kit.dtm.core import Request
from kit.dtm.server.http_json import Object
from kit.dtm.server.requests import (
    check_options,
    check_protocol,
    registration_from,
    request_from,
)

_LEGACY_PAYLOAD = "data"
_NOT_FIELDS = frozenset({"gid", "trans_type", "branch_id", "data", "protocol"})


def transaction_request(body: Object, gid: str) -> Request:
    """The request of a prepare, submit, abort or prepareWorkflow.

    Args:
        body: as sent; ``status``, ``retry_count`` and ``passthrough_headers`` mean nothing.
        gid: of the transaction, as this API reads it.

    Raises:
        BadJson: a field has another type.
        InvalidRequest: the request can never work.
    """
    steps = body.text_maps("steps")
    # clients of dtm before 1.4 put the payload into its step
    payloads = body.texts("payloads") + [
        step[_LEGACY_PAYLOAD] for step in steps if step.get(_LEGACY_PAYLOAD)
    ]
    return request_from(
        gid=gid,
        trans_type=body.text("trans_type"),
        protocol=check_protocol(body.text("protocol")),
        steps=[{k: v for k, v in step.items() if k != _LEGACY_PAYLOAD} for step in steps],
        payloads=[payload.encode() for payload in payloads],
        query_prepared=body.text("query_prepared"),
        custom_data=body.text("custom_data"),
        options=check_options(
            wait_result=body.boolean("wait_result"),
            timeout_to_fail=body.integer("timeout_to_fail"),
            request_timeout=body.integer("request_timeout"),
            retry_interval=body.integer("retry_interval"),
            retry_limit=body.integer("retry_limit"),
            branch_headers=body.text_map("branch_headers"),
            concurrent=body.boolean("concurrent"),
        ),
        rollback_reason=body.text("rollback_reason"),
        req_extra=body.text_map("req_extra"),
    )


def branch_request(fields: Mapping[str, str], gid: str) -> Request:
    """The request of a registerBranch.

    Args:
        fields: as sent; those that the type of the transaction does not need mean nothing.
        gid: of the transaction, as this API reads it.

    Raises:
        InvalidRequest: the request can never work.
    """
    return registration_from(
        gid=gid,
        trans_type=fields.get("trans_type", ""),
        branch_id=fields.get("branch_id", ""),
        data=fields.get("data", "").encode(),
        fields={name: text for name, text in fields.items() if name not in _NOT_FIELDS},
        protocol=check_protocol(fields.get("protocol", "")),
    )
