"""Other interpreters of this machine; a test that needs one is skipped by name without."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def another_python(*, older_than: tuple[int, int] | None = None) -> tuple[str, str]:
    """An interpreter of another minor version, and its version as text.

    From PATH as ``python3.8``, or from pyenv's folder. One that is older than ``older_than`` where
    that is given; nothing before 3.8, which has no ``importlib.metadata``.
    """
    for minor in range(8, sys.version_info.minor + 5):
        if minor == sys.version_info.minor or (older_than and (3, minor) >= older_than):
            continue
        pyenv = (Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python")
        for python in (shutil.which(f"python3.{minor}"), *map(str, pyenv)):
            if python and _works(python, minor):
                return python, f"3.{minor}"
    pytest.skip("no other python3.N is installed")


def _works(python: str, minor: int) -> bool:
    """Whether it is that version; pyenv's own commands answer for versions they do not have."""
    code = "import sys, importlib.metadata; print(sys.version_info[1])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(minor)
