"""The cases of ``kratos/test_middleware.py`` on the lean engine."""

from tests.conformance.kratos.test_middleware import *  # noqa: F403
