"""The kit as users get it: a wheel, installed into environments of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.testing.absent import absent

ROOT = Path(__file__).parents[3]
LONGEST_S = 300
_KEPT = ("HOME", "LANG", "TMPDIR", "REQUIRE_SERVERS")
_PREFIXES = ("UV_", "PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy")
"""What says where packages come from."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Commands as in the shell of somebody who has Python, make and uv, and not this checkout.

    Attributes:
        env: of every command.
    """

    env: Mapping[str, str]

    def run(self, folder: Path, *command: str, status: int = 0) -> str:
        """What ``command`` says in ``folder``, on stdout and stderr together."""
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LONGEST_S,
            env=self.env,
        )
        assert done.returncode == status, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        absent("uv", "pip install uv")
    programs = tmp_path_factory.mktemp("programs")
    (programs / "uv").symlink_to(uv)
    base = Path(sysconfig.get_config_var("BINDIR") or "/usr/bin")
    env = {
        key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_PREFIXES)
    }
    return Shell({**env, "PATH": f"{programs}:{base}:/usr/bin:/bin"})


@pytest.fixture(scope="module")
def wheel(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    shell.run(ROOT, "uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("kit-*.whl")
    return built


@pytest.fixture(scope="module")
def kit_command(shell: Shell, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``kit`` from the wheel, with its extra ``proto``, in an environment of its own."""
    folder = tmp_path_factory.mktemp("tools")
    shell.run(folder, "uv", "venv", "--quiet", "tools")
    pinned = folder / "pinned.txt"
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    pinned.write_text("\n".join(line.partition(" ")[0] for line in locked if "==" in line))
    shell.run(
        folder,
        *("uv", "pip", "install", "--quiet", "--python", "tools/bin/python"),
        *("--constraint", "pinned.txt", f"{wheel}[proto]"),
    )
    return str(folder / "tools" / "bin" / "kit")
