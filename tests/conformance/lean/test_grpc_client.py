"""The cases of ``kratos/test_grpc_client.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_client import *  # noqa: F403
