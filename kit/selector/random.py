"""Any node is as good as any other.

Source: go-kratos/kratos selector/random/random.go.
"""

import random
from collections.abc import Sequence

from kit.selector import Done, Node


class RandomBalancer:
    """Uniform; ignores weights.

    Args:
        rng: where chance comes from; a generator of its own by default.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311  (load is not a secret)

    def pick(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
        """One of ``nodes``."""
        return nodes[int(self._rng.random() * len(nodes))], _nothing


def _nothing(error: BaseException | None) -> None:
    """What became of the call changes nothing."""
