"""The cases of ``kratos/test_grpc_metadata.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_metadata import *  # noqa: F403
