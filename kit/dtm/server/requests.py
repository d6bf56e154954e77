"""A client's request, checked: every complaint names the field, the value and the way out.

Nothing that these functions refuse was stored.

Source: dtm-labs/dtm dtmsvr/trans_class.go (TransFromDtmRequest, setupPayloads), which panics where
this refuses.
"""

import json
import re
from collections.abc import Mapping, Sequence

from kit.dtm.core import MODES, Branch, Options, Request
from kit.dtm.wire import MAX_BRANCHES, MAX_GID_CHARS, TOPIC_PREFIX, Op, Protocol, TransType

MAX_URL_CHARS = 1024
MAX_CUSTOM_DATA_CHARS = 1024
MAX_SECONDS = 10 * 365 * 86_400
MAX_HEADERS = 100
_HEADER_KEY = re.compile(r"[0-9a-z_.-]+")
_SHOWN = 60


class InvalidRequest(ValueError):
    """A request that can never work; the text names the field and the way out."""


def check_gid(gid: str) -> str:
    """``gid``, when it can be stored and sent."""
    if not gid:
        raise InvalidRequest("Gid: it is empty; take one from NewGid or make a unique text")
    if len(gid) > MAX_GID_CHARS:
        raise InvalidRequest(
            f"Gid: {len(gid)} characters are too many; at most {MAX_GID_CHARS} are kept"
        )
    if not (gid.isascii() and gid.isprintable()) or gid != gid.strip():
        raise InvalidRequest(
            f"Gid: {_shown(gid)} cannot travel in gRPC metadata; use printable ASCII without "
            "spaces around it"
        )
    return gid


def check_trans_type(text: str) -> TransType:
    """The transaction type that ``text`` spells."""
    try:
        trans_type = TransType(text)
    except ValueError:
        known = ", ".join(TransType)
        raise InvalidRequest(f"TransType: {_shown(text)} is unknown; use one of {known}") from None
    if trans_type not in MODES:
        carried = ", ".join(sorted(MODES))
        raise InvalidRequest(f"TransType: {text} is not carried out yet; use {carried}")
    return trans_type


def check_options(
    *,
    wait_result: bool,
    timeout_to_fail: int,
    request_timeout: int,
    retry_interval: int,
    retry_limit: int,
    branch_headers: Mapping[str, str],
) -> Options:
    """Options whose numbers and headers make sense."""
    seconds = {
        "TimeoutToFail": timeout_to_fail,
        "RequestTimeout": request_timeout,
        "RetryInterval": retry_interval,
        "RetryLimit": retry_limit,
    }
    for name, value in seconds.items():
        if not 0 <= value <= MAX_SECONDS:
            raise InvalidRequest(
                f"TransOptions.{name}: {value} is out of range; use 0 (the server's setting) to "
                f"{MAX_SECONDS}"
            )
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
    return Options(
        wait_result=wait_result,
        timeout_to_fail=timeout_to_fail,
        request_timeout=request_timeout,
        retry_interval=retry_interval,
        retry_limit=retry_limit,
        branch_headers={key.lower(): value for key, value in branch_headers.items()},
    )


def check_custom_data(text: str) -> str:
    """``text``, when it is empty or says a delay and concurrency that can be understood."""
    if not text:
        return ""
    if len(text) > MAX_CUSTOM_DATA_CHARS:
        raise InvalidRequest(
            f"CustomedData: {len(text)} characters are too many; at most {MAX_CUSTOM_DATA_CHARS}"
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"CustomedData: not JSON: {error}") from None
    if data is None:
        return ""
    if not isinstance(data, dict):
        raise InvalidRequest('CustomedData: not an object; write for example {"delay":5}')
    delay = data.get("delay", 0)
    if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= MAX_SECONDS:
        raise InvalidRequest(
            f"CustomedData.delay: {_shown(delay)} is not a number of seconds up to {MAX_SECONDS}"
        )
    if not isinstance(data.get("concurrent", False), bool):
        raise InvalidRequest(
            f"CustomedData.concurrent: {_shown(data['concurrent'])} is neither true nor false"
        )
    return text


def check_url(field: str, url: str) -> str:
    """``url``, when a branch may stand there."""
    if len(url) > MAX_URL_CHARS or not url.isprintable():
        raise InvalidRequest(
            f"{field}: not a URL of at most {MAX_URL_CHARS} printable characters: {_shown(url)}"
        )
    if url.startswith((TOPIC_PREFIX, "http://", "https://")):
        raise InvalidRequest(
            f"{field}: {_shown(url)} needs topics or HTTP branches, which this coordinator does "
            "not carry out yet; use a gRPC branch, host:port/package.Service/Method"
        )
    return url


def msg_branches(
    steps: Sequence[Mapping[str, str]], payloads: Sequence[bytes]
) -> tuple[Branch, ...]:
    """The rows of a message: one action a step, numbered ``01``, ``02``, ….

    Source: dtm-labs/dtm dtmsvr/trans_type_msg.go, GenBranches.
    """
    if len(steps) > MAX_BRANCHES:
        raise InvalidRequest(f"Steps: {len(steps)} are too many; at most {MAX_BRANCHES}")
    if len(payloads) != len(steps):
        raise InvalidRequest(
            f"BinPayloads: {len(payloads)} for {len(steps)} steps; send one payload a step, an "
            "empty one where there is nothing to say"
        )
    return tuple(
        Branch(
            f"{number:02d}",
            Op.ACTION,
            check_url(f"Steps[{number - 1}].action", step["action"]),
            payload,
        )
        for number, (step, payload) in enumerate(zip(steps, payloads, strict=True), 1)
    )


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
        if "action" not in step:
            raise InvalidRequest(f"Steps[{index}].action: it is missing; name the branch to call")
    return steps


def msg_request(
    *,
    gid: str,
    trans_type: str,
    steps: str,
    payloads: Sequence[bytes],
    query_prepared: str,
    custom_data: str,
    options: Options,
    rollback_reason: str = "",
) -> Request:
    """The request of a Prepare, Submit or Abort over gRPC."""
    checked = check_trans_type(trans_type)
    return Request(
        gid=check_gid(gid),
        trans_type=checked,
        protocol=Protocol.GRPC,
        branches=msg_branches(parse_steps(steps), payloads),
        query_prepared=check_url("QueryPrepared", query_prepared),
        custom_data=check_custom_data(custom_data),
        options=options,
        rollback_reason=rollback_reason[:1024],
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
