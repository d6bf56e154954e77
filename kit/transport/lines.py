"""The log lines of transports that readers of kratos' logs look for."""

from collections.abc import Callable

from kit.compat import Compat, chosen


def say(write: Callable[..., None], v2: str, v3: str, **fields: object) -> None:
    """Write one line: the text ``v2``, or under v3 the message ``v3`` with ``fields``.

    Args:
        write: a level of a logger, such as ``log.info``.
        v2: the whole text.
        v3: the message alone.
        fields: what the text says beside it.
    """
    if chosen() is Compat.V3:
        write(v3, **fields)
    else:
        write("%s", v2)


__all__ = ["say"]
