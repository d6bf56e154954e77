"""How the URL of a gRPC branch becomes a target and a method.

Source: dtm-labs/dtmdriver driver.go.
"""

from typing import NamedTuple, Protocol


class BranchUrl(NamedTuple):
    """Where a branch is: a target of :class:`kit.transport.grpc.GrpcClient` and a full method."""

    target: str
    method: str


class Driver(Protocol):
    """Understands the branch URLs of one family of services."""

    name: str
    """As ``MicroService.Driver`` spells it."""

    def parse(self, url: str) -> BranchUrl:
        """Split ``url``.

        Raises:
            ValueError: it is not a URL of this driver; the message says what is missing.
        """
        ...
