"""Peers written in Go and for Node, built once and kept under ``~/.cache/kit-interop``.

``python -m tests.interop.build`` builds them all ahead of the tests, so that no test waits for a
compiler. What cannot be built here, without Go or without its module proxy, is skipped by name; a
program of this folder that does not compile is an error.

The versions are those of ``go/go.mod`` with its ``go.sum``, and of ``node/package-lock.json``.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GO, NODE = HERE / "go", HERE / "node"
BUILD_WITHIN = 300.0
"""Seconds for one program, downloads included: minutes on a busy machine that has nothing yet."""
PAUSE = 900.0
"""Seconds after a failed download in which nobody tries again: a test run says it once."""

PROGRAMS = {
    "kratos": "./kratos",
    "interop_client": "google.golang.org/grpc/interop/client",
    "interop_server": "google.golang.org/grpc/interop/server",
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl",
    # Does not compile with a grpc-go of today, so it brings the one it was made with.
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.93.0",
}

_OURS = (
    "\n# ",  # how the compiler heads its errors
    "missing go.sum entry",
    "updates to go.mod needed",
    "no required module provides",
    "npm ci` can only install",
)
"""What a build says that fails for a mistake in this folder, not for the want of a network."""


class CannotBuildError(Exception):
    """A tool or the network is missing; the text says which."""


@cache
def go_program(name: str) -> str:
    """The path of one of :data:`PROGRAMS`, built now if it never was.

    Skips the running test when it cannot be built here.

    Raises:
        RuntimeError: it does not compile.
    """
    try:
        return str(build(name))
    except CannotBuildError as exc:
        pytest.skip(f"{name} cannot be built: {exc}")


@cache
def node_packages() -> tuple[str, str]:
    """The node program and the folder with the packages that ``node/peer.js`` needs.

    Skips the running test when they cannot be had here.
    """
    try:
        return install_node()
    except CannotBuildError as exc:
        pytest.skip(f"@grpc/grpc-js cannot be installed: {exc}")


def build(name: str) -> Path:
    """As :func:`go_program`, for who is no test.

    Raises:
        CannotBuildError: Go or its proxy is missing.
        RuntimeError: it does not compile.
    """
    go = _tool("go")
    package = PROGRAMS[name]
    sources = [package, _output([go, "env", "GOVERSION", "GOOS", "GOARCH"])]
    if package.startswith("."):
        files = [*GO.glob("*/*.go"), GO / "go.mod", GO / "go.sum"]
        sources += [file.read_text() for file in sorted(files)]
    elif "@" not in package:
        sources += [(GO / "go.mod").read_text(), (GO / "go.sum").read_text()]
    kept = _kept(name, sources)
    with _alone(kept):
        if not kept.exists():
            _compile(go, package, kept)
    return kept


def _compile(go: str, package: str, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        options = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
        if "@" in package:
            command, cwd = [go, "install", *options, package], Path(folder)
        else:
            command, cwd = [go, "build", *options, "-o", f"{folder}/", package], GO
        # The Go that is here is the one to use: no other is fetched.
        _run(command, cwd, {"GOBIN": folder, "GOTOOLCHAIN": "local", "GOWORK": "off"})
        [made] = Path(folder).iterdir()
        made.rename(kept)


def install_node() -> tuple[str, str]:
    """As :func:`node_packages`, for who is no test.

    Raises:
        CannotBuildError: node, npm or its registry is missing.
    """
    node, npm = _tool("node"), _tool("npm")
    files = [NODE / "package.json", NODE / "package-lock.json"]
    kept = _kept("node", [file.read_text() for file in files])
    with _alone(kept):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                for file in files:
                    shutil.copy(file, folder)
                _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], Path(folder), {})
                (Path(folder) / "node_modules").rename(kept)
    return node, str(kept)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotBuildError(f"{name} is not on PATH")
    return found


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _run(command: list[str], cwd: Path, environment: dict[str, str]) -> None:
    tool = Path(command[0]).name
    failed = _folder() / f"{tool}.failed"
    if failed.exists() and time.time() - failed.stat().st_mtime < PAUSE:
        raise CannotBuildError(f"{failed.read_text()} (tried less than {PAUSE / 60:.0f} min ago)")
    try:
        ran = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=BUILD_WITHIN,
        )
        complaint, status = ran.stderr, ran.returncode
    except subprocess.TimeoutExpired:
        complaint, status = f"{tool}: not done within {BUILD_WITHIN:.0f} s", 1
    if status == 0:
        return
    if any(mistake in f"\n{complaint}" for mistake in _OURS):
        raise RuntimeError(f"{' '.join(command)}:\n{complaint}")
    lines = [line for line in complaint.splitlines() if line.strip() and "downloading" not in line]
    reason = "; ".join(lines[:2])[:300] or f"{tool} ended with {status}"
    failed.write_text(reason)
    raise CannotBuildError(reason)


def _kept(name: str, sources: list[str]) -> Path:
    digest = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]
    return _folder() / f"{name}-{digest}"


def _folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kit-interop"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """One process builds, the others wait for it."""
    with kept.with_name(f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build everything that can be built here, and say what cannot."""
    missing: dict[str, list[str]] = {}
    for name in (*PROGRAMS, "grpc-js"):
        try:
            install_node() if name == "grpc-js" else build(name)
        except CannotBuildError as exc:
            missing.setdefault(str(exc), []).append(name)
    for reason, names in missing.items():
        print(f"interop: skipped, {reason}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
