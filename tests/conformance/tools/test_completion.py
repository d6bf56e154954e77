"""``kit completion`` in real shells, and Go's spelling of flags."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from kit.cli import main
from tests.conformance.tools.conftest import KIT, Tools
from tests.conformance.tools.services import several

BASH = """
source <(kit completion bash)
COMP_WORDS=(WORDS) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_kit_completion kit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("kit do", ["doctor"]),
        ("kit run --no", ["--no-reload"]),
        ("kit run o", ["orders"]),
        ("kit completion z", ["zsh"]),
    ],
)
async def test_bash_completes(tools: Tools, tmp_path: Path, words: str, wanted: list[str]) -> None:
    """Commands, options, values, and the services of the folder."""
    folder = several(tmp_path / "shop", "orders", "stock")
    tools.folder = folder
    path = f"{Path(KIT).parent}:/usr/bin:/bin"
    bash = await tools.start(
        "bash", "bash", "-c", BASH.replace("(WORDS)", f"({words})"), env={"PATH": path}
    )
    assert await bash.ended(30) == 0, bash.output
    assert bash.lines == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_shell_takes_the_script(tools: Tools, tmp_path: Path, shell: str) -> None:
    """It parses; a shell that is not here is skipped by name."""
    status, script = await tools.said(tmp_path, "completion", shell)
    assert status == 0
    assert "_KIT_COMPLETE" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    parsed = await tools.start(shell, shell, "-n", str(tmp_path / "script"))
    assert await parsed.ended() == 0, parsed.output


def test_options_parse_with_one_dash_as_well() -> None:
    """With space or ``=``; short options and what comes after ``--`` stay as they are."""
    runner = CliRunner()
    for arguments in (["-version"], ["--version"], ["version"]):
        assert "kit" in runner.invoke(main, arguments).output
    assert "Usage: kit run" in runner.invoke(main, ["run", "-help"]).output
    assert "Usage: kit run" in runner.invoke(main, ["run", "-h"]).output
    for spelling in (["-target", "x"], ["-target=x"], ["--target=x"]):
        result = runner.invoke(main, ["doctor", *spelling])
        assert "'x' is no URL" in result.output
        assert result.exit_code == 2


@pytest.mark.parametrize("name", ["run", "dev", "doctor", "completion"])
def test_the_help_of_a_command_has_examples(name: str) -> None:
    """And says how it exits."""
    shown = CliRunner().invoke(main, [name, "--help"]).output
    assert "Examples:" in shown
    assert f"kit {name}" in shown
    assert "Exit status:" in shown or name == "completion"
