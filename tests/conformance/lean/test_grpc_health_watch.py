"""The cases of ``kratos/test_grpc_health_watch.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_health_watch import *  # noqa: F403
