"""From protos to Python: messages, stubs, types, HTTP, errors and an OpenAPI document.

protoc is the one inside ``grpc_tools``; the kit's own plugins run in this process. All code is made
in a temporary folder, so that nothing is written when one proto is broken.

Source: go-kratos/kratos cmd/kratos/internal/proto/client/client.go.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

import kit
from kit.cli.proto.project import Project
from kit.cli.usage import WrongUsage

OPENAPI = "openapi.json"
LONGEST_S = 300.0
"""Of one run of protoc: a plugin that hangs must not hang a build."""

_EXTRA = {"grpc_tools": "grpcio-tools>=1.80", "mypy_protobuf": "mypy-protobuf>=3.7"}
_PLUGINS = {"mypy": "main", "mypy_grpc": "grpc"}
"""Plugins of mypy-protobuf by their functions in its ``main`` module."""

_ERRORS_PROTO = "errors/errors.proto"
_ERRORS_IMPORT = re.compile(r"^(from|import) errors(?= import errors_pb2|\.errors_pb2)", re.M)

_PACKAGE = '"""What is generated from the protos of this folder."""\n'


@dataclass(frozen=True, slots=True)
class Generated:
    """What a run gave.

    Attributes:
        files: text by path, relative to the project's root.
        descriptors: the protos and all they import.
        warnings: what protoc says of protos that it takes.
    """

    files: Mapping[str, str]
    descriptors: descriptor_pb2.FileDescriptorSet
    warnings: list[str] = field(default_factory=list)


def check_tools(python: str = sys.executable) -> None:
    """See whether ``python`` has protoc.

    Raises:
        WrongUsage: the extra ``proto`` is not installed; the message has the command.
    """
    if python != sys.executable:
        probe = [python, "-c", f"import {', '.join(_EXTRA)}"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)  # noqa: S603  (the user names it)
        missing = list(_EXTRA.values()) if done.returncode else []
    else:
        missing = [need for name, need in _EXTRA.items() if find_spec(name) is None]
    if missing:
        packages = " ".join(f"'{each}'" for each in missing)
        pip = f"{python} -m pip install" if find_spec("pip") else f"uv pip install -p {python}"
        raise WrongUsage(f"protoc is not installed (the kit's extra proto); run: {pip} {packages}")


def generate(
    project: Project,
    protos: Sequence[str],
    *,
    openapi: str = OPENAPI,
    title: str = "API",
    options: Sequence[str] = (),
) -> Generated:
    """The Python code of ``protos``.

    Args:
        project: where they are.
        protos: names relative to its root.
        openapi: the name of the document of all services, or ``none``.
        title: of the document.
        options: handed to protoc as they are.

    Raises:
        WrongUsage: protoc or a plugin refuses, in its words: ``file:line:column: …``; or the tools
            are not installed.
    """
    check_tools(project.python)
    with tempfile.TemporaryDirectory(prefix="kit-proto-") as temporary:
        out = Path(temporary) / "out"
        out.mkdir()
        made = Path(temporary) / "descriptors.bin"
        with _plugins(Path(temporary), project.python) as plugins:
            warnings = _protoc(
                project,
                *plugins,
                f"--descriptor_set_out={made}",
                "--include_imports",
                "--include_source_info",
                f"--python_out={out}",
                f"--grpc_python_out={out}",
                f"--mypy_out=quiet:{out}",
                f"--mypy_grpc_out=quiet:{out}",
                *options,
                *protos,
            )
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
        files = {
            path.relative_to(out).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
    _drop_empty_stubs(files, descriptors)
    if not (project.root / _ERRORS_PROTO).exists():
        files = {name: _ERRORS_IMPORT.sub(r"\1 kit.errors", text) for name, text in files.items()}
    files.update(_own(descriptors, protos, openapi, title))
    for folder in _packages(files):
        if not (project.root / folder / "__init__.py").exists():
            files[f"{folder}/__init__.py"] = _PACKAGE
    return Generated(files, descriptors, warnings)


def describe(project: Project, protos: Sequence[str]) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of ``protos`` and of all they import, with comments.

    Raises:
        WrongUsage: protoc refuses them, or is not installed.
    """
    check_tools(project.python)
    with tempfile.TemporaryDirectory(prefix="kit-proto-") as temporary:
        made = Path(temporary) / "descriptors.bin"
        _protoc(
            project,
            f"--descriptor_set_out={made}",
            "--include_imports",
            "--include_source_info",
            *protos,
        )
        return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())


def _protoc(project: Project, *arguments: str) -> list[str]:
    """Run protoc in the project's root; what it warns of.

    Raises:
        WrongUsage: it does not accept the protos.
    """
    import google.api  # type: ignore[import-untyped]

    # google/api is in a wheel of its own; errors/errors.proto is the kit's.
    wheels = [Path(each).parents[1] for each in google.api.__path__]
    folders = [project.root, *project.includes, *wheels, Path(kit.__file__).parent]
    command = [project.python, "-m", "grpc_tools.protoc", *(f"-I{each}" for each in folders)]
    try:
        done = subprocess.run(  # noqa: S603  (the user's own interpreter)
            [*command, *arguments],
            cwd=project.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        raise WrongUsage(f"protoc has not ended after {LONGEST_S:.0f} s") from None
    said = [line.removeprefix(f"{project.root}/") for line in done.stderr.splitlines() if line]
    if done.returncode != 0:
        raise WrongUsage("\n".join(said) or f"protoc ended with {done.returncode}")
    return said


@contextmanager
def _plugins(folder: Path, python: str) -> Iterator[list[str]]:
    """The arguments that name plugins: they need neither PATH nor installed scripts."""
    arguments = []
    for name, function in _PLUGINS.items():
        script = folder / f"protoc-gen-{name}"
        script.write_text(
            f"#!/bin/sh\nexec {shlex.quote(python)} -c "
            f"'from mypy_protobuf.main import {function}; {function}()'\n",
            encoding="utf-8",
        )
        script.chmod(0o700)
        arguments.append(f"--plugin=protoc-gen-{name}={script}")
    yield arguments


def _own(
    descriptors: descriptor_pb2.FileDescriptorSet, protos: Sequence[str], openapi: str, title: str
) -> dict[str, str]:
    """What the kit's plugins make.

    Raises:
        WrongUsage: they refuse.
    """
    from kit.cli import protoc
    from kit.cli.protoc import errors

    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=protos,
        proto_file=descriptors.file,
        parameter=f"openapi={openapi},title={title}",
    )
    made: dict[str, str] = {}
    for plugin in (protoc.generate, errors.generate):
        response = plugin(request)
        if response.error:
            raise WrongUsage(response.error)
        made.update((file.name, file.content) for file in response.file)
    return made


def _drop_empty_stubs(files: dict[str, str], descriptors: descriptor_pb2.FileDescriptorSet) -> None:
    """Leave out the stubs of protos without a service; protoc makes files without a line of use."""
    for file in descriptors.file:
        if not file.service:
            base = file.name.removesuffix(".proto").replace("-", "_")
            for ending in ("py", "pyi"):
                files.pop(f"{base}_pb2_grpc.{ending}", None)


def _packages(files: Mapping[str, str]) -> list[str]:
    """The folders of ``files``; each has to be a package, or another one of its name could win."""
    folders = {
        parent.as_posix()
        for name in files
        for parent in Path(name).parents
        if name.endswith(".py") and parent != Path()
    }
    return sorted(folders)
