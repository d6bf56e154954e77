"""The rows of ``kratos/test_checklist.py`` that concern gRPC, on the lean engine."""

from tests.conformance.kratos import test_checklist as rows

globals().update(
    {
        name: getattr(rows, name)
        for name in dir(rows)
        if name.startswith(tuple(f"test_row_{number}_" for number in (1, 2, 3, 4, 5, 6, 7, 20, 28)))
    }
)
