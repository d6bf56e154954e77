"""The cases of ``kratos/test_grpc_errors.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_errors import *  # noqa: F403
