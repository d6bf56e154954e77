"""Filters that keep the nodes a call may go to.

Source: go-kratos/kratos selector/filter/version.go.
"""

from collections.abc import Sequence

from kit.selector import Node, NodeFilter


def version(text: str) -> NodeFilter:
    """Keeps the nodes that announced exactly this version."""

    def keep(nodes: Sequence[Node]) -> Sequence[Node]:
        return tuple(node for node in nodes if node.version == text)

    return keep
