"""The cases of ``kratos/test_grpc_reflection.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_reflection import *  # noqa: F403
