"""Request metadata: text to text, lower-case keys, several values a key.

Source: go-kratos/kratos metadata/metadata.go.
"""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar


class Metadata:
    """Keys are lower-cased; an empty key or value is ignored, as in kratos."""

    __slots__ = ("_values",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for key, value in items:
            self.add(key, value)

    def add(self, key: str, value: str) -> None:
        """Append ``value`` to the values of ``key``."""
        if key and value:
            self._values.setdefault(key.lower(), []).append(value)

    def set(self, key: str, value: str) -> None:
        """Make ``value`` the only value of ``key``."""
        if key and value:
            self._values[key.lower()] = [value]

    def get(self, key: str) -> str:
        """The first value of ``key``, or the empty text."""
        values = self._values.get(key.lower())
        return values[0] if values else ""

    def values(self, key: str) -> list[str]:
        """All values of ``key``."""
        return list(self._values.get(key.lower(), ()))

    def items(self) -> Iterator[tuple[str, str]]:
        """Every pair; a key with several values comes several times."""
        for key, values in self._values.items():
            for value in values:
                yield key, value

    def clone(self) -> "Metadata":
        """A copy that can be changed alone."""
        return Metadata(self.items())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Metadata({list(self.items())!r})"


server_metadata: ContextVar[Metadata | None] = ContextVar("kit_server_metadata", default=None)
"""What the metadata middleware of a server found in the request."""

client_metadata: ContextVar[Metadata | None] = ContextVar("kit_client_metadata", default=None)
"""What the code of this task wants its outgoing calls to carry."""
