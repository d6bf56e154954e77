"""The cases of ``kratos/test_grpc_lifecycle.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_lifecycle import *  # noqa: F403
