"""Puts middleware around some operations only.

::

    select(jwt.server(key), prefixes=["/api.admin."], match=lambda operation: "Secret" in operation)

Source: go-kratos/kratos middleware/selector/selector.go.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from kit.transport import Handler, Middleware, chain, current_call

MOST_OPERATIONS = 10_000
"""Operations whose answer is remembered."""


def select(
    *middleware: Middleware,
    prefixes: Iterable[str] = (),
    paths: Iterable[str] = (),
    patterns: Iterable[str] = (),
    match: Callable[[str], bool] | None = None,
) -> Middleware:
    """Applies ``middleware`` to operations for which any of the tests holds; to none without tests.

    On servers and on clients.

    Args:
        middleware: the first listed is the outermost.
        prefixes: the operation begins so.
        paths: the operation is exactly this, such as ``/api.trans.v1.Trans/TransOut``.
        patterns: regular expressions whose first match is the whole operation.
        match: asked at each call when nothing else holds; may look at
            :func:`kit.transport.current_call`.

    Raises:
        ValueError: a pattern is no regular expression. (kratos leaves it out without a word, and
            with it perhaps the check of who calls.)
    """
    begins = tuple(prefixes)
    exact = frozenset(paths)
    compiled = [_compiled(pattern) for pattern in patterns]
    inner = chain(middleware)
    known: dict[str, bool] = {}

    def fixed(operation: str) -> bool:
        answer = known.get(operation)
        if answer is None:
            answer = (
                operation in exact
                or operation.startswith(begins)
                or any(_is_whole(pattern, operation) for pattern in compiled)
            )
            if len(known) < MOST_OPERATIONS:
                known[operation] = answer
        return answer

    def wrap(handler: Handler) -> Handler:
        chosen = inner(handler)

        async def call(request: Any) -> Any:
            info = current_call()
            operation = "" if info is None else info.operation
            if info is not None and (fixed(operation) or (match is not None and match(operation))):
                return await chosen(request)
            return await handler(request)

        return call

    return wrap


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"selector pattern {pattern!r}: {error}; see docs/kit/middleware.md"
        ) from None


def _is_whole(pattern: re.Pattern[str], operation: str) -> bool:
    first = pattern.search(operation)
    return first is not None and first.group() == operation
