"""Every Python block of docs/transactions.md, run in its order against a real coordinator."""

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import uvicorn

from kit.ports import free_port
from kit.testing import Coordinator
from kit.testing.postgres import postgres_server

PAGE = Path(__file__).parents[2] / "docs" / "transactions.md"
BLOCK = re.compile(
    r"(?P<needs><!-- needs: postgres -->\n)?^```python\n(?P<code>.*?)^```", re.M | re.S
)

DTM = "http://localhost:36789/api/dtmsvr"
BUSI = "http://localhost:8080"
POSTGRES = "postgresql://dtm:secret@localhost:5432/dtm"


def blocks(*, postgres: bool) -> list[CodeType]:
    """The blocks, compiled with the lines that they have on the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name in (DTM, BUSI, POSTGRES):
        assert name in text, f"the page does not name {name} any more"
    found = []
    for match in BLOCK.finditer(text):
        if match["needs"] and not postgres:
            continue
        above = "\n" * text.count("\n", 0, match.start("code"))
        found.append(compile(above + match["code"], PAGE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    return found


def replaced(code: CodeType, places: dict[str, str]) -> CodeType:
    """``code`` with other addresses, wherever they stand in it."""
    constants = tuple(
        replaced(value, places)
        if isinstance(value, CodeType)
        else places.get(value, value)
        if isinstance(value, str)
        else value
        for value in code.co_consts
    )
    return code.replace(co_consts=constants)


@asynccontextmanager
async def serving(app: Any, port: int) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), "the service of the page does not start"
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


async def run_page(places: dict[str, str], *, postgres: bool) -> int:
    """Run the blocks as ``python -m asyncio`` would; how many there were."""
    names: dict[str, Any] = {"__name__": "page"}
    async with AsyncExitStack() as stack:
        dtm = await stack.enter_async_context(Coordinator())
        port = free_port()
        found = {DTM: dtm.http_url, BUSI: f"http://127.0.0.1:{port}", **places}
        served = False
        count = 0
        for code in blocks(postgres=postgres):
            result = eval(replaced(code, found), names)  # the page is ours
            if inspect.isawaitable(result):
                await result
            if "app" in names and not served:
                await stack.enter_async_context(serving(names["app"], port))
                served = True
            count += 1
        return count


async def test_the_blocks_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All modes that need no server beside the coordinator, and the barrier."""
    monkeypatch.chdir(tmp_path)
    assert await run_page({}, postgres=False) == 9


async def test_the_blocks_of_the_page_run_with_xa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the block that prepares in PostgreSQL."""
    monkeypatch.chdir(tmp_path)
    async with postgres_server() as server:
        given = server.settings
        login = f"{given['user']}:{given['password']}"
        source = f"postgresql://{login}@{given['host']}:{given['port']}/{given['database']}"
        assert await run_page({POSTGRES: source}, postgres=True) == 10
        left = await server.sql("SELECT count(*) FROM pg_prepared_xacts")
        assert left.strip() == "0"
