"""What has to be settled before the first test module is imported."""

import os

import pytest

# Read once, when grpc is imported: its C core would note each closed socket in the output.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# Contract suites live in the kit: their plain assertions should explain themselves as well.
pytest.register_assert_rewrite("kit.testing.store", "kit.testing.registry")
