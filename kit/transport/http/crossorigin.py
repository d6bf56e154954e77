"""Lets pages of other origins call a server: a filter, so that it sees preflights.

Source: kratos has none built in; users put a handler wrapper into its filters.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from starlette.middleware.cors import CORSMiddleware

from kit.transport.http.asgi import AsgiApp


def cors(
    origins: Sequence[str],
    *,
    methods: Sequence[str] = ("GET", "POST", "PUT", "PATCH", "DELETE"),
    headers: Sequence[str] = (),
    exposed: Sequence[str] = (),
    credentials: bool = False,
    max_age_s: int = 600,
) -> Callable[[AsgiApp], AsgiApp]:
    """A filter that answers preflights and marks replies.

    Args:
        origins: such as ``https://shop.example``; ``*`` for every one.
        methods: that pages may use.
        headers: that pages may send, beside the simple ones.
        exposed: reply headers that pages may read.
        credentials: whether pages may send cookies.
        max_age_s: how long a browser may keep the answer to a preflight.

    Raises:
        ValueError: every origin with credentials would open the server to every page.
    """
    if credentials and "*" in origins:
        raise ValueError("origins '*' with credentials lets every page act for its visitor")

    def wrap(app: AsgiApp) -> AsgiApp:
        layer = CORSMiddleware(
            cast("Any", app),
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=headers,
            expose_headers=exposed,
            allow_credentials=credentials,
            max_age=max_age_s,
        )
        return cast("AsgiApp", layer)

    return wrap
