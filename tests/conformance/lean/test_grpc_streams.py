"""The cases of ``kratos/test_grpc_streams.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_streams import *  # noqa: F403
