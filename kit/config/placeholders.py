"""``${server.port:9000}`` inside values.

The name is looked up in the merged tree by its dotted path, then among the environment variables
(kratos needs an env source for that; ``${GRPC_ADDR:0.0.0.0:9000}`` is what people write); else the
text after the first colon counts, else nothing does. Found is found, even when it is empty. The
shortest match counts, several may stand in one string, ``$NAME`` is left alone. The result is text,
which a model reads as the type it wants.

A value that has placeholders itself is resolved first; in kratos that depends on chance.

Source: go-kratos/kratos config/options.go, defaultResolver.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from kit.config.errors import Problem
from kit.config.source import MAX_ITEM_BYTES
from kit.config.tree import Node, Path, join, split
from kit.log import go_text

_PLACEHOLDER = re.compile(r"\$\{(.*?)\}")


def resolve(root: Node, environ: Mapping[str, str]) -> tuple[Node, list[Problem]]:
    """``root`` with every placeholder replaced, and what is wrong with some of them."""
    resolver = _Resolver(root, environ)
    return resolver.node(root, ()), resolver.problems


class _Resolver:
    def __init__(self, root: Node, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._root, self._environ = root, environ
        self._texts: dict[Path, str] = {}
        self._open: list[Path] = []

    def node(self, node: Node, path: Path) -> Node:
        match node.value:
            case dict() as entries:
                resolved = {key: self.node(below, (*path, key)) for key, below in entries.items()}
                return Node(resolved, node.origin)
            case list() as items:
                below = [self.node(item, (*path, str(at))) for at, item in enumerate(items)]
                return Node(below, node.origin)
            case str() as text if "${" in text:
                return Node(self._text(node, path), replace(node.origin, untyped=True))
            case _:
                return node

    def _text(self, node: Node, path: Path) -> str:
        """The text of the scalar at ``path`` with its placeholders replaced."""
        if path in self._texts:
            return self._texts[path]
        if not isinstance(node.value, str):
            return "" if node.value is None else go_text(node.value)
        if path in self._open:
            around = " -> ".join(map(join, [*self._open[self._open.index(path) :], path]))
            self._problem(node, path, f"the placeholder refers back to itself: {around}")
            return ""
        self._open.append(path)
        text = _PLACEHOLDER.sub(lambda found: self._value(found[1], node, path), node.value)
        self._open.pop()
        if len(text) > MAX_ITEM_BYTES:
            self._problem(node, path, f"placeholders make a text of over {MAX_ITEM_BYTES} bytes")
            text = ""
        self._texts[path] = text
        return text

    def _value(self, inside: str, node: Node, path: Path) -> str:
        """What replaces ``${inside}`` in the string at ``path``."""
        name, _, default = inside.partition(":")
        name = name.strip()
        found = self._root.find(split(name)) if name else None
        if found is None:
            return self._environ.get(name, default)
        if isinstance(found.value, dict | list):
            kind = "mapping" if found.children is not None else "list"
            self._problem(node, path, f"the placeholder ${{{name}}} stands for a {kind}")
            return ""
        return self._text(found, split(name))

    def _problem(self, node: Node, path: Path, message: str) -> None:
        if not node.origin.unplaced:  # other programs' variables may look like anything
            self.problems.append(Problem(str(node.origin), join(path), message))
