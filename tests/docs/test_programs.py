"""The whole programs in the documentation run, and print what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "kit"
PROGRAMS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in (DOCS / "config.md", DOCS / "registry.md")
    for number, block in enumerate(
        found
        for found in re.findall(
            r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
        )
        if "asyncio.run(" in found
    )
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_documentation_runs(program: str, tmp_path: Path) -> None:
    """A comment behind ``print`` is the beginning of what it prints, as far as ``…`` or a colon."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = re.findall(r"print\(.*\)  # (.*)$", program, re.MULTILINE)
    printed = done.stdout.splitlines()
    assert len(printed) == len(wanted)
    for line, text in zip(printed, wanted, strict=True):
        assert line.startswith(re.split(r"…|: the ", text)[0]), (line, text)
