"""A place to start the tools in."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes import Process, Processes

KIT = str(Path(sys.executable).parent / "kit")


class Tools(Processes):
    """Starts ``kit`` in folders."""

    async def kit(self, folder: Path, *arguments: str, **env: str) -> Process:
        """A running ``kit``."""
        self.folder = folder
        return await self.start("kit", KIT, *arguments, env=env)

    async def said(self, folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
        """The exit status of a ``kit`` that ends by itself, and what it said."""
        process = await self.kit(folder, *arguments, **env)
        status = await process.ended(30)
        return status, process.output


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Tools]:
    owner = Tools(tmp_path)
    try:
        yield owner
    finally:
        for process in owner._started:
            if process.running:  # it stops what it has started
                process.handle.terminate()
        try:
            async with asyncio.timeout(40):
                for process in owner._started:
                    await process.handle.wait()
        finally:
            await owner.aclose()
