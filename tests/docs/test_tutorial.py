"""docs/tutorial.md as a reader runs it: one shell, all blocks in their order."""

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from kit.ports import free_port
from kit.testing.absent import absent

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(?P<kind>sh|python|text)\n(?P<text>.*?)^```", re.M | re.S)
LONGEST_S = 300
KEPT = ("HOME", "LANG", "TMPDIR", "REQUIRE_SERVERS")
PREFIXES = ("UV_", "PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "http", "NO_PROXY", "no_proxy")
PORTS = ("8000", "8001", "9000", "9001", "9100", "9101", "36790")


def script(page: str) -> tuple[str, list[str]]:
    """The page as one script, and what it has to say, in its order."""
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    said: list[str] = []
    for match in BLOCK.finditer(page):
        text = match["text"]
        if match["kind"] == "sh":
            parts.append(text)
        elif match["kind"] == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            parts.append(f"cat > {name} <<'END'\n{text}END\n")
        else:
            said += text.splitlines()
    return "\n".join(parts), said


@pytest.mark.timeout(2 * LONGEST_S)
async def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    """On free ports in place of the usual ones."""
    for program in ("bash", "curl", "make"):
        if shutil.which(program) is None:
            absent(program, f"apt-get install {program}")
    page = PAGE.read_text(encoding="utf-8")
    ports = {usual: str(free_port()) for usual in PORTS}
    env = {
        **{
            key: value
            for key, value in os.environ.items()
            if key in KEPT or key.startswith(PREFIXES)
        },
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HTTP_ADDR": f"127.0.0.1:{ports['8000']}",
        "GRPC_ADDR": f"127.0.0.1:{ports['9000']}",
        "ADMIN_ADDR": f"127.0.0.1:{ports['9100']}",
        "GRPC_PORT": ports["36790"],
        "HTTP_PORT": str(free_port()),
    }
    for usual, free in ports.items():
        page, count = re.subn(rf":{usual}\b", f":{free}", page)
        assert count, f"the page does not name port {usual} any more"
    text, said = script(page)
    assert len(said) == 7
    shell = await asyncio.create_subprocess_exec(
        "bash",
        *("-c", text),
        cwd=tmp_path,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LONGEST_S):
            output = (await shell.communicate())[0].decode()
    finally:
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended, as they should
    assert shell.returncode == 0, output
    at = 0  # where the lines of the page that show an output have been found
    for line in said:
        at = output.find(line, at)
        assert at >= 0, f"{line!r} does not come\n{output}"
        at += len(line)
