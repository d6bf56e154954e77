"""Every Python block of docs/kit.md and docs/kit/, run in the order of its page."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import structlog

import kit.log

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([DOCS / "kit.md", *(DOCS / "kit").glob("*.md")])
LINKED = sorted([*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md")])
BLOCK = re.compile(r"(?P<sketch><!-- sketch[^\n]*-->\n)?^```python\n(?P<code>.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]+)?\)")
SKETCHED = {"http.md", "middleware.md"}
"""Pages whose blocks may all be sketches."""
PROGRAMS = {"config.md", "registry.md"}
"""Pages of whole programs: ``test_programs.py`` runs them in processes of their own."""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder to work in; the log as it was before."""
    monkeypatch.chdir(tmp_path)
    yield
    kit.log.configure(records=False)
    structlog.reset_defaults()


def blocks(page: Path) -> list[CodeType]:
    """The blocks that are no sketches, compiled with the lines that they have on the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if match["sketch"]:
            continue
        above = "\n" * text.count("\n", 0, match.start("code"))
        found.append(compile(above + match["code"], page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    return found


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in PROGRAMS], ids=lambda page: page.name
)
async def test_the_blocks_of_a_page_run(page: Path, alone: None) -> None:
    """As ``python -m asyncio`` would run them."""
    found = blocks(page)
    assert found or page.name in SKETCHED | {"coming-from-kratos.md"}
    names: dict[str, Any] = {"__name__": "page"}
    for code in found:
        result = eval(code, names)  # the page is ours
        if inspect.isawaitable(result):
            await result


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "kit.md").read_text(encoding="utf-8")
    assert [
        page.name for page in (DOCS / "kit").glob("*.md") if f"kit/{page.name}" not in index
    ] == []


def test_the_files_that_pin_the_specification_exist() -> None:
    """Those that tests/conformance/kratos/README.md names, here or by their path."""
    tests = Path(__file__).parents[1]
    folder = tests / "conformance" / "kratos"
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", (folder / "README.md").read_text()))
    near = [folder, tests / "unit" / "transport" / "http", tests.parent]
    assert [name for name in named if not any((place / name).exists() for place in near)] == []
