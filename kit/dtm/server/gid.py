"""Ids for transactions whose client did not bring one.

Source: dtm-labs/dtm dtmsvr/utils.go (GenGid), lithammer/shortuuid v3 (its alphabet and order).
"""

import uuid

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LENGTH = 22


def short_uuid(number: uuid.UUID) -> str:
    """``number`` in base 57, least significant digit first, 22 characters.

    >>> short_uuid(uuid.UUID(int=58))
    '3322222222222222222222'
    """
    rest, digits = number.int, []
    while rest:
        rest, digit = divmod(rest, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits).ljust(_LENGTH, _ALPHABET[0])


def new_gid() -> str:
    """A random id."""
    return short_uuid(uuid.uuid4())
