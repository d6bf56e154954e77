"""The cases of ``kratos/test_grpc_json.py`` on the lean engine."""

from tests.conformance.kratos.test_grpc_json import *  # noqa: F403
