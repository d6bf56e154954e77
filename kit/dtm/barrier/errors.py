"""What goes wrong at a barrier.

::

    kit.errors.Error
    ├── BarrierError      400 BARRIER        the call does not say which branch it is
    └── CommitsApart      500 COMMITS_APART  barrier row and business rows would not commit together

Both are *unknown* to a coordinator, never FAILURE: it asks again, and finds the code mended.
"""

from kit.errors import BadRequest, InternalServer


class BarrierError(BadRequest):
    """The call does not say which branch it is: 400 BARRIER."""

    def __init__(self, message: str) -> None:
        super().__init__("BARRIER", message)


class CommitsApart(InternalServer):
    """Barrier row and business rows would not commit together: 500 COMMITS_APART.

    Without that a crash between two commits loses the effect or repeats it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("COMMITS_APART", message)
