"""The fuzz of the lean engine in short: other seeds than the long run's; hypothesis finds more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_nothing_crashes_hangs_leaks_or_disagrees(target: Target) -> None:
    @settings(
        max_examples=target.quick,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))
    def run(dice: object) -> None:
        target.run(dice)  # type: ignore[arg-type]

    run()
