"""The gRPC engine of a test: of the kit's servers and clients that are not told theirs.

``GRPC_ENGINE=lean``, or ``grpcio``, in the environment of a run takes one for all tests that would
take both, or one of their own choice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest

from kit.transport.grpc import engines
from kit.transport.grpc.engines import EngineName

VARIABLE = "GRPC_ENGINE"


def chosen(otherwise: EngineName = engines.DEFAULT) -> EngineName:
    """The engine that the environment names, ``otherwise`` when it names none."""
    named = os.environ.get(VARIABLE)
    for name in get_args(EngineName):
        if name == named:
            return name  # type: ignore[no-any-return]
    assert not named, f"{VARIABLE}={named}: write grpcio or lean"
    return otherwise


ENGINES: tuple[EngineName, ...] = tuple(dict.fromkeys(map(chosen, get_args(EngineName))))
"""Those that this run is about."""


@contextmanager
def speaking(engine: EngineName) -> Iterator[None]:
    """``engine`` is the default here, and what the environment of processes begun here names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "DEFAULT", engine)
        patch.setenv(VARIABLE, engine)
        yield
