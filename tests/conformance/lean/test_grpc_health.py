"""The cases of ``kratos/test_grpc_health.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_health import *  # noqa: F403
