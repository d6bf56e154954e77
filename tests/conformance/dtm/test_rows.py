"""Every row of the protocol's feature checklist that is the coordinator's has a test here."""

import re
from pathlib import Path

ROWS = {*range(1, 57), *range(61, 67)}
"""57-60 are the barrier's, 67 the page's, 68-70 those of foreign clients."""


def test_every_row_of_the_checklist_has_a_test() -> None:
    """Row 65, consul, is covered by its refusal: the kit announces itself in etcd only."""
    found: set[int] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        names = re.findall(r"^async def test_row_(\d\d)_", path.read_text(), re.MULTILINE)
        found.update(map(int, names))
    assert found == ROWS, {"missing": ROWS - found, "unknown": found - ROWS}
