"""What the core does, story by story; one file each in ``tests/unit/dtm/transcripts``.

``pytest --rewrite`` writes what the core does now into the files; the difference is reviewed.
"""

from pathlib import Path

import pytest

from tests.unit.dtm.core.stories import replay

FOLDER = Path(__file__).parent.parent / "transcripts"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_the_core_acts_as_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    """Each story is the same as when its transcript was reviewed."""
    text = path.read_text()
    if request.config.getoption("--rewrite"):
        path.write_text(replay(text))
        return
    assert replay(text) == text


@pytest.mark.parametrize(
    ("mode", "number"), [("msg", 15), ("saga", 14), ("tcc", 8), ("xa", 3), ("workflow", 6)]
)
def test_there_are_stories_of_every_mode(mode: str, number: int) -> None:
    """An empty folder would let the test above pass without saying anything."""
    assert len(list(FOLDER.glob(f"{mode}_*.txt"))) >= number
