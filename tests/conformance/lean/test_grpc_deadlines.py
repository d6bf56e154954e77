"""The cases of ``kratos/test_grpc_deadlines.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_deadlines import *  # noqa: F403
