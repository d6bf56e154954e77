"""The cases of ``tests/conformance/kratos`` once more, on the lean engine.

Only the default engine is another; what is on the other side of the wire stays grpcio.
"""

import pytest

from kit.transport.grpc import engines
from tests.conformance.kratos.conftest import failure_fixture, serve

__all__ = ["failure_fixture", "serve"]


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers and clients of the kit take the lean engine unless they are told otherwise."""
    monkeypatch.setattr(engines, "DEFAULT", "lean")
