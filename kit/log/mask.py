"""Secrets stay out of logs and of error messages: what a key is called decides.

Source: go-kratos/kratos log/filter.go (FilterKey, shown as ``***``).
"""

import re
from collections.abc import Mapping
from functools import lru_cache

MASK = "***"

_SECRET = re.compile(
    r"(?:password|passwd|pwd|passphrase|secret|token|authorization|cookie|credentials?"
    r"|(?:api|access|private|secret|signing)[-_. ]?key|(?:^|[-_. ])pass|(?:^|[-_. ])dsn)$",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret(key: str) -> bool:
    """Whether a key of this name holds something that must not be shown.

    The end of the name decides: ``max_tokens`` and ``token_count`` are numbers.

    >>> [is_secret(key) for key in ("password", "Store.Password", "authToken", "X-Api-Key")]
    [True, True, True, True]
    >>> [is_secret(key) for key in ("key", "max_tokens", "compass", "secretary")]
    [False, False, False, False]
    """
    return _SECRET.search(key) is not None


def masked(value: object, extra: frozenset[str] = frozenset()) -> object:
    """``value`` with the secrets inside its mappings replaced.

    Args:
        value: mappings, lists and tuples are searched, anything else is given back as it is.
        extra: further key names, in lower case.

    >>> masked({"user": "ann", "auth": [{"token": "t-1"}]})
    {'user': 'ann', 'auth': [{'token': '***'}]}
    """
    if isinstance(value, Mapping):
        return {
            key: MASK
            if is_secret(name := str(key)) or name.lower() in extra
            else masked(item, extra)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(item, extra) for item in value]
    return value


_USERINFO = re.compile(r"(\w+://[^\s/:@]*):[^\s/@]*@")


def mask_urls(text: str) -> str:
    """``text`` with the passwords of its URLs replaced.

    >>> mask_urls("postgres://kit:hunter2@db/orders")
    'postgres://kit:***@db/orders'
    """
    return _USERINFO.sub(rf"\1:{MASK}@", text)
