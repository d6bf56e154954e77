"""Settings by operation: middleware, time limits.

Source: go-kratos/kratos internal/matcher/middleware.go.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class ByOperation(Generic[T]):
    """Values for operations or prefixes of them; an exact one wins, then the longest prefix.

    >>> limits = ByOperation({"/shop.v1.Shop/*": 1.0, "/shop.v1.Shop/Report": 30.0})
    >>> limits.find("/shop.v1.Shop/Report"), limits.find("/shop.v1.Shop/Get"), limits.find("/x/Y")
    (30.0, 1.0, None)

    Raises:
        ValueError: a selector is neither an operation nor a prefix that ends in ``*``.
    """

    def __init__(self, values: Mapping[str, T] | None = None) -> None:
        self._exact: dict[str, T] = {}
        self._prefixes: list[tuple[str, T]] = []
        for selector, value in (values or {}).items():
            self.add(selector, value)

    def add(self, selector: str, value: T) -> None:
        """Use ``value`` for what ``selector`` matches.

        Raises:
            ValueError: ``selector`` is neither an operation nor a prefix that ends in ``*``.
        """
        prefix = selector.removesuffix("*")
        if not selector.startswith("/") or "*" in prefix:
            raise ValueError(
                f"selector {selector!r} is neither an operation nor a prefix that ends in '*'; "
                "write for example /api.trans.v1.Trans/*"
            )
        if selector == prefix:
            self._exact[selector] = value
        else:
            self._prefixes.append((prefix, value))
            self._prefixes.sort(key=lambda entry: -len(entry[0]))

    def find(self, operation: str) -> T | None:
        """The value for ``operation``, if there is one."""
        own = self._exact.get(operation)
        if own is not None:
            return own
        return next((value for start, value in self._prefixes if operation.startswith(start)), None)


class TimeLimits:
    """Seconds that a call is given: of its operation, else of all.

    Args:
        default: 0 or less for no limit.
        by_operation: likewise, by operation or prefix.

    Raises:
        ValueError: a selector is neither an operation nor a prefix that ends in ``*``.
    """

    def __init__(self, default: float, by_operation: Mapping[str, float] | None = None) -> None:
        self.default = default if default > 0 else None
        self._by_operation = ByOperation(by_operation)
        self._any = bool(by_operation)

    def of(self, operation: str) -> float | None:
        """The limit of ``operation``; ``None`` for none."""
        if not self._any:
            return self.default
        own = self._by_operation.find(operation)
        if own is None:
            return self.default
        return own if own > 0 else None


__all__ = ["ByOperation", "TimeLimits"]
