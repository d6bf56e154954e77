"""A client's request, checked: every complaint names the field, the value and the way out.

Nothing that these functions refuse was stored.

Source: dtm-labs/dtm dtmsvr/trans_class.go (TransFromDtmRequest, setupPayloads), which panics where
this refuses.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from kit.dtm.core import Branch, Options, Request
from kit.dtm.wire import (
    MAX_BRANCHES,
    MAX_GID_CHARS,
    TOPIC_PREFIX,
    BranchStatus,
    Op,
    Protocol,
    Status,
    TransType,
)

MAX_URL_CHARS = 1024
MAX_CUSTOM_DATA_CHARS = 1 << 20
MAX_REASON_CHARS = 1024
MAX_NAME_CHARS = 128
MAX_OP_CHARS = 45
MAX_SECONDS = 10 * 365 * 86_400
MAX_HEADERS = 100
MAX_HEADER_BYTES = 6_144
"""Of all branch headers together: peers take 8 KiB of headers, and ours come beside them."""
_TOKEN = re.compile(r"[!-~]{1,128}")
_HEADER_KEY = re.compile(r"[0-9a-z_.-]+")
_SHOWN = 60


class InvalidRequest(ValueError):
    """A request that can never work; the text names the field and the way out."""


def check_gid(gid: str, protocol: Protocol = Protocol.GRPC) -> str:
    """``gid``, when it can be stored and sent to the branches of ``protocol``."""
    if not gid:
        raise InvalidRequest("Gid: it is empty; take one from NewGid or make a unique text")
    if len(gid) > MAX_GID_CHARS:
        raise InvalidRequest(
            f"Gid: {len(gid)} characters are too many; at most {MAX_GID_CHARS} are kept"
        )
    if not gid.isprintable() or gid != gid.strip():
        raise InvalidRequest(
            f"Gid: {_shown(gid)} is not a name; use printable characters without spaces around them"
        )
    if protocol is not Protocol.HTTP and not gid.isascii():
        raise InvalidRequest(
            f"Gid: {_shown(gid)} cannot travel in gRPC metadata; use printable ASCII"
        )
    return gid


def check_trans_type(text: str) -> TransType:
    """The transaction type that ``text`` spells."""
    try:
        trans_type = TransType(text)
    except ValueError:
        known = ", ".join(TransType)
        raise InvalidRequest(f"TransType: {_shown(text)} is unknown; use one of {known}") from None
    return trans_type


def check_options(
    *,
    wait_result: bool,
    timeout_to_fail: int,
    request_timeout: int,
    retry_interval: int,
    retry_limit: int,
    branch_headers: Mapping[str, str],
    concurrent: bool = False,
) -> Options:
    """Options whose numbers and headers make sense."""
    numbers = (timeout_to_fail, request_timeout, retry_interval, retry_limit)
    if min(numbers) < 0 or max(numbers) > MAX_SECONDS:
        raise _out_of_range(numbers)
    return Options(
        wait_result=wait_result,
        timeout_to_fail=timeout_to_fail,
        request_timeout=request_timeout,
        retry_interval=retry_interval,
        retry_limit=retry_limit,
        branch_headers=_headers(branch_headers) if branch_headers else {},
        concurrent=concurrent,
    )


def _out_of_range(numbers: Sequence[int]) -> InvalidRequest:
    names = ("TimeoutToFail", "RequestTimeout", "RetryInterval", "RetryLimit")
    pairs = zip(names, numbers, strict=True)
    name, value = next(pair for pair in pairs if not 0 <= pair[1] <= MAX_SECONDS)
    return InvalidRequest(
        f"TransOptions.{name}: {value} is out of range; use 0 (the server's setting) to "
        f"{MAX_SECONDS}"
    )


def _headers(branch_headers: Mapping[str, str]) -> dict[str, str]:
    if len(branch_headers) > MAX_HEADERS:
        raise InvalidRequest(
            f"TransOptions.BranchHeaders: {len(branch_headers)} are too many; at most {MAX_HEADERS}"
        )
    for key, text in branch_headers.items():
        lower = key.lower()
        if not _HEADER_KEY.fullmatch(lower) or lower.startswith("grpc-") or lower.endswith("-bin"):
            raise InvalidRequest(
                f"TransOptions.BranchHeaders: {_shown(key)} cannot be a header name; use letters, "
                "digits, - _ . and neither grpc- before nor -bin behind"
            )
        if not (text.isascii() and text.isprintable()):
            raise InvalidRequest(
                f"TransOptions.BranchHeaders[{key}]: its value cannot travel in a header; use "
                "printable ASCII"
            )
    size = sum(len(key) + len(text) for key, text in branch_headers.items())
    if size > MAX_HEADER_BYTES:
        raise InvalidRequest(
            f"TransOptions.BranchHeaders: {size} bytes together are too many for the headers of a "
            f"call; at most {MAX_HEADER_BYTES}"
        )
    return {key.lower(): value for key, value in branch_headers.items()}


def check_custom_data(trans_type: TransType, text: str, steps: int = 0) -> str:
    """``text``, when the transaction type can make sense of it.

    Args:
        trans_type: msg reads ``delay`` and ``concurrent``, saga ``concurrent`` and ``orders``,
            workflow ``name`` and ``data``; tcc and xa read nothing.
        text: empty, or JSON of an object.
        steps: how many there are, for the orders of a saga.
    """
    if not text:
        return ""
    if len(text) > MAX_CUSTOM_DATA_CHARS:
        raise InvalidRequest(
            f"CustomedData: {len(text)} characters are too many; at most {MAX_CUSTOM_DATA_CHARS}"
        )
    if "\0" in text:
        raise InvalidRequest("CustomedData: a NUL cannot be stored; leave it out")
    check = _CUSTOM_DATA.get(trans_type)
    if check is None:
        return text
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"CustomedData: not JSON: {error}") from None
    if data is None:
        return ""
    if not isinstance(data, dict):
        raise InvalidRequest('CustomedData: not an object; write for example {"concurrent":true}')
    if not isinstance(data.get("concurrent", False), bool):
        raise InvalidRequest(
            f"CustomedData.concurrent: {_shown(data['concurrent'])} is neither true nor false"
        )
    check(data, steps)
    return text


def _check_delay(data: Mapping[str, object], _: int) -> None:
    delay = data.get("delay", 0)
    if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= MAX_SECONDS:
        raise InvalidRequest(
            f"CustomedData.delay: {_shown(delay)} is not a number of seconds up to {MAX_SECONDS}"
        )


def _check_orders(data: Mapping[str, object], steps: int) -> None:
    orders = data.get("orders")
    if orders is None:
        return
    if not isinstance(orders, dict):
        raise InvalidRequest('CustomedData.orders: not an object; write for example {"1":[0]}')
    for key, before in orders.items():
        if not (key.isdecimal() and key.isascii() and int(key) < steps):
            raise InvalidRequest(
                f"CustomedData.orders: {_shown(key)} is no step; use 0 to {steps - 1}"
            )
        if not isinstance(before, list) or not all(
            isinstance(step, int) and not isinstance(step, bool) and 0 <= step < int(key)
            for step in before
        ):
            raise InvalidRequest(
                f"CustomedData.orders[{key}]: {_shown(before)} is not a list of earlier steps; a "
                "step waits for smaller numbers only"
            )


def _check_workflow(data: Mapping[str, object], _: int) -> None:
    name, payload = data.get("name", ""), data.get("data")
    if not isinstance(name, str) or not name.isprintable() or len(name) > MAX_NAME_CHARS:
        raise InvalidRequest(
            f"CustomedData.name: {_shown(name)} is not a name of at most {MAX_NAME_CHARS} "
            "printable characters"
        )
    try:
        base64.b64decode(payload if isinstance(payload, str) else "", validate=True)
    except ValueError:
        raise InvalidRequest("CustomedData.data: not base64 text") from None
    if not isinstance(payload, str | None):
        raise InvalidRequest("CustomedData.data: not base64 text")


_CUSTOM_DATA: dict[TransType, Callable[[Mapping[str, object], int], None]] = {
    TransType.MSG: _check_delay,
    TransType.SAGA: _check_orders,
    TransType.WORKFLOW: _check_workflow,
}


def check_url(field: str, url: str, protocol: Protocol = Protocol.GRPC) -> str:
    """``url``, when a branch may stand there; an empty one is never called."""
    if len(url) > MAX_URL_CHARS or not (url.isprintable() and url.isascii()):
        raise InvalidRequest(
            f"{field}: not a URL of at most {MAX_URL_CHARS} printable ASCII characters: "
            f"{_shown(url)}"
        )
    if url and protocol is Protocol.HTTP and not url.startswith(("http://", "https://")):
        raise InvalidRequest(
            f"{field}: {_shown(url)} does not start with http:// or https://; branches of other "
            "kinds need protocol grpc or json-rpc"
        )
    return url


def check_protocol(text: str) -> Protocol:
    """The protocol that ``text`` spells; empty is http, as in dtm."""
    try:
        return Protocol(text or Protocol.HTTP)
    except ValueError:
        known = ", ".join(Protocol)
        raise InvalidRequest(f"protocol: {_shown(text)} is unknown; use one of {known}") from None


def parse_steps(text: str) -> list[dict[str, str]]:
    """Steps as dtm sends them over gRPC: JSON text of an array of string maps."""
    if not text or text == "null":
        return []
    try:
        steps = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"Steps: not JSON: {error}") from None
    if not isinstance(steps, list):
        raise InvalidRequest('Steps: not an array; write for example [{"action":"host:port/S/M"}]')
    for index, step in enumerate(steps):
        if not isinstance(step, dict) or not all(isinstance(v, str) for v in step.values()):
            raise InvalidRequest(f"Steps[{index}]: not an object with text values: {_shown(step)}")
    return steps


def request_from(
    *,
    gid: str,
    trans_type: str,
    protocol: Protocol,
    steps: Sequence[Mapping[str, str]] = (),
    payloads: Sequence[bytes] = (),
    query_prepared: str = "",
    custom_data: str = "",
    options: Options | None = None,
    rollback_reason: str = "",
    req_extra: Mapping[str, str] | None = None,
) -> Request:
    """The request of a Prepare, Submit, Abort or PrepareWorkflow, checked.

    Steps of other types than msg and saga mean nothing, as in dtm.

    Raises:
        InvalidRequest: it can never work.
    """
    checked = check_trans_type(trans_type)
    rows = _ROWS.get(checked)
    branches = rows(steps, _payloads(steps, payloads), protocol) if rows else ()
    extra = req_extra or {}
    return Request(
        gid=check_gid(gid, protocol),
        trans_type=checked,
        protocol=protocol,
        branches=branches,
        query_prepared=check_url("QueryPrepared", query_prepared, protocol),
        custom_data=check_custom_data(checked, custom_data, len(steps)),
        options=options or Options(),
        rollback_reason=_text(extra.get("rollback_reason", "") or rollback_reason),
        final_status=_final_status(checked, extra),
        result=_result(extra),
    )


def registration_from(
    *,
    gid: str,
    trans_type: str,
    branch_id: str,
    data: bytes,
    fields: Mapping[str, str],
    protocol: Protocol,
) -> Request:
    """The request of a RegisterBranch, checked.

    Args:
        gid: of the transaction.
        trans_type: tcc, xa or workflow.
        branch_id: made by the client.
        data: payload of the branch, or what a step of a workflow gave.
        fields: ``confirm`` and ``cancel`` of tcc; ``url`` of xa; ``op`` and ``status`` of workflow.
        protocol: of the transaction.

    Raises:
        InvalidRequest: it can never work.

    Source: dtm-labs/dtm dtmsvr/api.go, svcRegisterBranch.
    """
    rows = _REGISTERED.get(trans_type)
    if rows is None:
        raise InvalidRequest(
            f"TransType: unknow trans type: {_clipped(trans_type)}; branches are registered for "
            f"{', '.join(_REGISTERED)}"
        )
    if not _TOKEN.fullmatch(branch_id):
        raise InvalidRequest(
            f"BranchID: {_shown(branch_id)} is not 1 to {MAX_NAME_CHARS} printable ASCII "
            "characters without spaces; take 01, 02, …"
        )
    return Request(
        gid=check_gid(gid, protocol),
        trans_type=TransType(trans_type),
        protocol=protocol,
        branches=rows(branch_id, data, fields, protocol),
    )


def _payloads(steps: Sequence[Mapping[str, str]], payloads: Sequence[bytes]) -> Sequence[bytes]:
    if len(payloads) != len(steps):
        raise InvalidRequest(
            f"BinPayloads: {len(payloads)} for {len(steps)} steps; send one payload a step, an "
            "empty one where there is nothing to say"
        )
    return payloads


def _steps(
    steps: Sequence[Mapping[str, str]], *keys: str
) -> Iterator[tuple[int, str, Mapping[str, str]]]:
    if len(steps) > MAX_BRANCHES:
        raise InvalidRequest(f"Steps: {len(steps)} are too many; at most {MAX_BRANCHES}")
    for index, step in enumerate(steps):
        for key in keys:
            if key not in step:
                raise InvalidRequest(
                    f"Steps[{index}].{key}: it is missing; name the branch to call, or leave the "
                    "text empty for none"
                )
        yield index, f"{index + 1:02d}", step


def _msg_rows(
    steps: Sequence[Mapping[str, str]], payloads: Sequence[bytes], protocol: Protocol
) -> tuple[Branch, ...]:
    """One action a step.

    Source: dtm-labs/dtm dtmsvr/trans_type_msg.go, GenBranches.
    """
    rows = []
    for index, branch_id, step in _steps(steps, "action"):
        url = step["action"]
        if not url.startswith(TOPIC_PREFIX):
            check_url(f"Steps[{index}].action", url, protocol)
        elif len(url) > MAX_URL_CHARS or not url.isprintable():
            raise InvalidRequest(
                f"Steps[{index}].action: {_shown(url)} names no topic; use at most "
                f"{MAX_NAME_CHARS} printable characters"
            )
        rows.append(Branch(branch_id, Op.ACTION, url, payloads[index]))
    return tuple(rows)


def _saga_rows(
    steps: Sequence[Mapping[str, str]], payloads: Sequence[bytes], protocol: Protocol
) -> tuple[Branch, ...]:
    """A compensation and an action a step, in this order.

    Source: dtm-labs/dtm dtmsvr/trans_type_saga.go, GenBranches.
    """
    rows = []
    for index, branch_id, step in _steps(steps, "action"):
        for op in (Op.COMPENSATE, Op.ACTION):
            url = check_url(f"Steps[{index}].{op}", step.get(op, ""), protocol)
            rows.append(Branch(branch_id, op, url, payloads[index]))
    return tuple(rows)


_ROWS: dict[
    TransType,
    Callable[[Sequence[Mapping[str, str]], Sequence[bytes], Protocol], tuple[Branch, ...]],
] = {TransType.MSG: _msg_rows, TransType.SAGA: _saga_rows}


def _tcc_branch(
    branch_id: str, data: bytes, fields: Mapping[str, str], protocol: Protocol
) -> tuple[Branch, ...]:
    return tuple(
        Branch(branch_id, op, check_url(f"Data.{op}", fields.get(op, ""), protocol), data)
        for op in (Op.CANCEL, Op.CONFIRM)
    )


def _xa_branch(
    branch_id: str, data: bytes, fields: Mapping[str, str], protocol: Protocol
) -> tuple[Branch, ...]:
    url = check_url("Data.url", fields.get("url", ""), protocol)
    return tuple(Branch(branch_id, op, url, data) for op in (Op.ROLLBACK, Op.COMMIT))


def _workflow_branch(
    branch_id: str, data: bytes, fields: Mapping[str, str], _: Protocol
) -> tuple[Branch, ...]:
    op, status = fields.get("op", ""), fields.get("status", "")
    if not _TOKEN.fullmatch(op) or len(op) > MAX_OP_CHARS:
        raise InvalidRequest(
            f"Data.op: {_shown(op)} is not an operation; use action, commit, rollback or business"
        )
    if status not in (BranchStatus.SUCCEED, BranchStatus.FAILED):
        raise InvalidRequest(f"Data.status: {_shown(status)} is neither succeed nor failed")
    return (Branch(branch_id, op, "", data, BranchStatus(status)),)


_REGISTERED: dict[str, Callable[[str, bytes, Mapping[str, str], Protocol], tuple[Branch, ...]]] = {
    TransType.TCC: _tcc_branch,
    TransType.XA: _xa_branch,
    TransType.WORKFLOW: _workflow_branch,
}


def _final_status(trans_type: TransType, extra: Mapping[str, str]) -> Status | None:
    if trans_type is not TransType.WORKFLOW or "status" not in extra:
        return None
    status = extra["status"]
    if status not in (Status.SUCCEED, Status.FAILED):
        raise InvalidRequest(f"ReqExtra.status: {_shown(status)} is neither succeed nor failed")
    return Status(status)


def _result(extra: Mapping[str, str]) -> str:
    result = extra.get("result", "")
    if "\0" in result or len(result) > MAX_CUSTOM_DATA_CHARS:
        raise InvalidRequest(
            f"ReqExtra.result: {len(result)} characters; at most {MAX_CUSTOM_DATA_CHARS} are kept, "
            "and no NUL"
        )
    return result


def _text(text: str) -> str:
    """``text`` for people, as long as it is kept."""
    return text[:MAX_REASON_CHARS].replace("\0", "\ufffd")


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN and text.isprintable() else _shown(text)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
