"""The merged configuration: values that know where they come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str, ...]
Plain: TypeAlias = Scalar | dict[str, "Plain"] | list["Plain"]

MAX_DEPTH = 64
"""Of mappings and lists inside each other."""

MAX_VALUES = 20_000
"""In one item, counted after aliases are replaced by what they stand for."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        label: of the item, such as ``configs/config.yaml``.
        line: from 1; 0 when the item has no lines.
        untyped: whether the value is text only because there was no other way to write it: in an
            environment variable, by a placeholder.
        unplaced: whether it is an environment variable that no key was known for when it came.
    """

    label: str
    line: int = 0
    untyped: bool = False
    unplaced: bool = False

    def __str__(self) -> str:
        return f"{self.label}:{self.line}" if self.line else self.label


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its origin; that of a mapping's entry is the line of its key."""

    value: "Scalar | dict[str, Node] | list[Node]"
    origin: Origin

    @property
    def children(self) -> "dict[str, Node] | None":
        """The entries of a mapping; ``None`` for anything else."""
        return self.value if isinstance(self.value, dict) else None

    def plain(self) -> Plain:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def without_lines(self) -> "Node":
        """A copy whose origins are labels alone."""
        value = self.value
        if isinstance(value, dict):
            value = {key: node.without_lines() for key, node in value.items()}
        elif isinstance(value, list):
            value = [node.without_lines() for node in value]
        return Node(value, replace(self.origin, line=0))

    def find(self, path: Sequence[str | int]) -> "Node | None":
        """The node at ``path``; numbers are places in lists."""
        *_, (node, rest) = self.walk(path)
        return None if rest else node

    def walk(self, path: Sequence[str | int]) -> "Iterator[tuple[Node, Sequence[str | int]]]":
        """This node and those below it along ``path`` as far as there are any.

        Each comes with what is left of the path.
        """
        node = self
        yield node, path
        for done, key in enumerate(path, start=1):
            below: Node | None = None
            if isinstance(node.value, dict):
                below = node.value.get(str(key))
            elif isinstance(node.value, list) and isinstance(key, int) and key < len(node.value):
                below = node.value[key]
            if below is None:
                return
            node = below
            yield node, path[done:]

    def with_value(self, path: Path, node: "Node") -> "Node":
        """A copy with ``node`` at ``path``; mappings on the way are made as needed."""
        if not path:
            return node
        entries = self.children or {}
        below = entries.get(path[0], Node({}, node.origin))
        return Node({**entries, path[0]: below.with_value(path[1:], node)}, self.origin)


def merge(base: Node, over: Node) -> Node:
    """``over`` laid over ``base``: mappings merge, anything else (null too) replaces.

    Source: go-kratos/kratos config/reader.go, Merge (v3; v2 lets empty values replace nothing).
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, over.origin)


def split(path: str) -> Path:
    """The keys of a dotted path; the empty path is the whole.

    >>> split("server.grpc.addr"), split("")
    (('server', 'grpc', 'addr'), ())
    """
    return tuple(path.split(".")) if path else ()


def join(path: Sequence[str | int]) -> str:
    """The dotted path.

    >>> join(("targets", 0, "url"))
    'targets.0.url'
    """
    return ".".join(map(str, path))
