"""Classes for the services of a proto, with a method for each rpc; what is written by hand stays.

Source: go-kratos/kratos cmd/kratos/internal/proto/server/server.go, which skips files that exist.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from google.protobuf import descriptor_pb2

from kit.cli.proto.compiler import describe
from kit.cli.proto.imports import Imports
from kit.cli.proto.project import Project
from kit.cli.protoc.code import docstring, snake
from kit.cli.protoc.comments import comments_of
from kit.cli.usage import WrongUsage

Rpc: TypeAlias = descriptor_pb2.MethodDescriptorProto

_FILE = '''"""{doc}"""

{imports}

class {cls}({base}):
    """{about}"""
'''
_LINE = 100
_BODY = '''        """{doc}"""
        raise Error(501, "UNIMPLEMENTED", "{service}.{name} is not written yet")
'''


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What becomes of one file.

    Attributes:
        path: of the file.
        text: all of it.
        added: the methods that were not there.
    """

    path: Path
    text: str
    added: list[str]


def skeletons(project: Project, protos: Sequence[str], folder: Path) -> list[Skeleton]:
    """The files for the services of ``protos`` in ``folder``; nothing is written.

    Raises:
        WrongUsage: the folder does not exist, protoc refuses, there is no service, or a file that
            is there cannot be read as Python or has no class for its service.
    """
    if not folder.is_dir():
        raise WrongUsage(f"{folder}: no such folder; make it, or name another one with -t")
    described = describe(project, protos)
    modules = {
        message: (file.name, message.removeprefix(f".{file.package}" if file.package else "")[1:])
        for file in described.file
        for message in _messages(file)
    }
    wanted = set(protos)
    made = [
        _skeleton(file, service, modules, folder)
        for file in described.file
        if file.name in wanted
        for service in file.service
    ]
    if not made:
        raise WrongUsage(f"{', '.join(protos)}: no service in it")
    return made


def _skeleton(
    file: descriptor_pb2.FileDescriptorProto,
    service: descriptor_pb2.ServiceDescriptorProto,
    modules: dict[str, tuple[str, str]],
    folder: Path,
) -> Skeleton:
    comments = comments_of(file)
    full_name = f"{file.package}.{service.name}" if file.package else service.name
    stem = service.name.removesuffix("Service") or service.name
    cls = f"{stem}Service"
    path = folder / f"{snake(stem)}.py"
    write = partial(_method, service.name, modules)
    methods = [(each, comments.get(f"{full_name}.{each.name}", "")) for each in service.method]
    if path.exists():
        return _completed(path, cls, methods, write)
    imports = Imports()
    base = f"{imports.name(*_module(file.name, '_pb2_grpc'))}.{service.name}Servicer"
    about = docstring(comments.get(full_name, "")) or f"Answers for {full_name}."
    body = "".join(write(method, comment, imports) for method, comment in methods)
    text = _FILE.format(
        doc=f"The methods of {service.name}: from messages to the business and back.",
        imports=imports.head(),
        cls=cls,
        base=base,
        about=about,
    )
    return Skeleton(path, text + body, [method.name for method, _ in methods])


def _method(
    service: str,
    modules: Mapping[str, tuple[str, str]],
    method: Rpc,
    comment: str,
    imports: Imports,
) -> str:
    """The code of a method that refuses every call."""
    types = []
    for message in (method.input_type, method.output_type):
        file, inner = modules[message]
        types.append(f"{imports.name(*_module(file, '_pb2'))}.{inner}")
    imports.name("typing", "Any")
    imports.name("kit.errors", "Error")
    if method.client_streaming or method.server_streaming:
        imports.name("collections.abc", "AsyncIterator")
    doc = docstring(comment) or f"Answers {method.name}."
    return _signature(method, types[0], types[1]) + _BODY.format(
        doc=doc, service=service, name=method.name
    )


def _signature(method: Rpc, request: str, reply: str) -> str:
    """The first lines of a method, as a formatter would break them."""
    head = "def" if method.server_streaming else "async def"
    takes = f"self, request: {request}, context: Any"
    if method.client_streaming:
        takes = f"self, request_iterator: AsyncIterator[{request}], context: Any"
    gives = f"AsyncIterator[{reply}]" if method.server_streaming else reply
    line = f"    {head} {method.name}({takes}) -> {gives}:"
    if len(line) > _LINE:
        line = f"    {head} {method.name}(\n        {takes}\n    ) -> {gives}:"
    return f"\n{line}\n"


def _completed(
    path: Path,
    cls: str,
    methods: Sequence[tuple[Rpc, str]],
    write: Callable[[Rpc, str, Imports], str],
) -> Skeleton:
    """The file at ``path`` with the methods that its class does not have, behind those it has."""
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as exc:
        raise WrongUsage(f"{path}:{exc.lineno}: {exc.msg}; mend it first") from exc
    found = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == cls]
    if not found:
        raise WrongUsage(f"{path} is there and has no class {cls}; name another folder with -t")
    has = {
        each.name
        for each in found[0].body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    missing = [(method, comment) for method, comment in methods if method.name not in has]
    imports = Imports.of(tree)
    lines = text.splitlines(keepends=True)
    end = found[0].end_lineno or len(lines)
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    lines[end:end] = [write(method, comment, imports) for method, comment in missing]
    completed = "".join(imports.inserted(lines, tree))
    return Skeleton(path, completed, [method.name for method, _ in missing])


def _module(file: str, ending: str) -> tuple[str, str]:
    """The package and the name of the module that is made of a proto."""
    if file == "errors/errors.proto":
        return "kit.errors", "errors_pb2"
    module = file.removesuffix(".proto").replace("-", "_").replace("/", ".") + ending
    package, _, name = module.rpartition(".")
    return package, name


def _messages(file: descriptor_pb2.FileDescriptorProto) -> Iterable[str]:
    """The full names of all messages of ``file``, with the dot in front."""

    def below(prefix: str, messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterable[str]:
        for message in messages:
            name = f"{prefix}.{message.name}"
            yield name
            yield from below(name, message.nested_type)

    return below(f".{file.package}" if file.package else "", file.message_type)
