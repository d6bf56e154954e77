"""The rows of ``kratos/test_checklist.py`` that concern gRPC, on the lean engine."""

from tests.conformance.kratos import test_checklist as rows

OF_GRPC = tuple(f"test_row_{number}_" for number in (*range(1, 8), 17, 20, 28))

globals().update({name: getattr(rows, name) for name in dir(rows) if name.startswith(OF_GRPC)})
