"""Mistakes that are noticed before anything is sent; every complaint names field and way out."""

from kit.dtm.client.errors import InvalidCall
from kit.dtm.client.payloads import HTTP_SCHEMES
from kit.dtm.core.model import Options
from kit.dtm.wire import MAX_GID_CHARS, TOPIC_PREFIX, Protocol


def check_gid(gid: str) -> str:
    """``gid``, when a coordinator can keep it.

    Raises:
        InvalidCall: it cannot.
    """
    if not isinstance(gid, str):
        raise InvalidCall(f"gid: {gid!r} is {type(gid).__name__}; give a text")
    if not gid:
        raise InvalidCall("gid: it is empty; take one from new_gid() or make a unique text")
    if len(gid) > MAX_GID_CHARS:
        raise InvalidCall(f"gid: {len(gid)} characters are too many; at most {MAX_GID_CHARS}")
    if not gid.isprintable():
        raise InvalidCall(f"gid: {gid!r} is not printable; use printable characters")
    return gid


def check_options(options: Options) -> Options:
    """``options``, when their numbers can travel.

    Raises:
        InvalidCall: one is negative or not whole.
    """
    for name in ("timeout_to_fail", "request_timeout", "retry_interval", "retry_limit"):
        check_whole(name, getattr(options, name))
    for key, text in options.branch_headers.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidCall(
                f"branch_headers[{key!r}]: {type(text).__name__} cannot be a header; give texts"
            )
    return options


def check_whole(name: str, value: int) -> int:
    """``value``, when it is a whole number that is not negative.

    Raises:
        InvalidCall: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidCall(f"{name}: {value!r} is not a whole number; dtm counts whole seconds")
    if not 0 <= value < 1 << 63:
        raise InvalidCall(f"{name}: {value} is negative or too large; use 0 for the server's")
    return value


def check_url(field: str, url: str, protocol: Protocol, *, empty: bool = False) -> str:
    """``url``, when a transaction of ``protocol`` can have a branch there.

    Args:
        field: names it in errors.
        url: of the branch, or a topic.
        protocol: of the coordinator's API.
        empty: whether there may be none.

    Raises:
        InvalidCall: it is missing, or of another kind than this API's branches.
    """
    if not isinstance(url, str):
        raise InvalidCall(f"{field}: {url!r} is {type(url).__name__}; give the URL as text")
    if not url:
        if empty:
            return url
        raise InvalidCall(f"{field}: it is empty; give the URL of a branch")
    if protocol is Protocol.HTTP and not url.startswith((*HTTP_SCHEMES, TOPIC_PREFIX)):
        raise InvalidCall(
            f"{field}: {url!r} does not start with http:// or https://; for gRPC branches give "
            "DtmClient the gRPC address of the coordinator"
        )
    return url
