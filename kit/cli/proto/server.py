"""Classes for the services of a proto, with a method for each rpc; what is written by hand stays.

Source: go-kratos/kratos cmd/kratos/internal/proto/server/server.go, which skips files that exist.
"""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2

from kit.cli.proto.compiler import describe
from kit.cli.proto.project import Project
from kit.cli.protoc.code import docstring, snake
from kit.cli.protoc.comments import comments_of
from kit.cli.templates import wrapped
from kit.cli.usage import WrongUsage

_HEAD = '"""{doc}"""\n\n'
_CLASS = '''

class {cls}({grpc}.{service}Servicer):
    """{doc}"""
'''
_LINE = 100
_BODY = '''        """{doc}"""
        raise Error(501, "UNIMPLEMENTED", "{service}.{name} is not written yet")
'''


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc of a service.

    Attributes:
        name: as in the proto.
        code: of a method that refuses every call.
        imports: what it needs, as ``(module, name)``.
    """

    name: str
    code: str
    imports: frozenset[tuple[str, str]]


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
    methods = [
        _method(service.name, each, modules, comments.get(f"{full_name}.{each.name}", ""))
        for each in service.method
    ]
    if path.exists():
        return _completed(path, cls, methods)
    grpc = _import(file.name, "_pb2_grpc")
    imports = {grpc, *(each for method in methods for each in method.imports)}
    about = docstring(comments.get(full_name, "")) or f"Answers for {full_name}."
    text = (
        _HEAD.format(doc=f"The methods of {service.name}: from messages to the business and back.")
        + _import_lines(imports)
        + _CLASS.format(cls=cls, grpc=grpc[1], service=service.name, doc=about)
        + "".join(method.code for method in methods)
    )
    return Skeleton(path, text, [method.name for method in methods])


def _method(
    service: str,
    method: descriptor_pb2.MethodDescriptorProto,
    modules: dict[str, tuple[str, str]],
    comment: str,
) -> Method:
    imports = {("typing", "Any"), ("kit.errors", "Error")}
    if method.client_streaming or method.server_streaming:
        imports.add(("collections.abc", "AsyncIterator"))
    types = []
    for message in (method.input_type, method.output_type):
        file, inner = modules[message]
        module = _import(file, "_pb2")
        imports.add(module)
        types.append(f"{module[1]}.{inner}")
    code = _signature(method, types[0], types[1])
    doc = docstring(comment) or f"Answers {method.name}."
    code += _BODY.format(doc=doc, service=service, name=method.name)
    return Method(method.name, code, frozenset(imports))


def _signature(method: descriptor_pb2.MethodDescriptorProto, request: str, reply: str) -> str:
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


def _completed(path: Path, cls: str, methods: list[Method]) -> Skeleton:
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
    missing = [method for method in methods if method.name not in has]
    lines = text.splitlines(keepends=True)
    end = found[0].end_lineno or len(lines)
    if lines and not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    lines[end:end] = [method.code for method in missing]
    needed = {each for method in missing for each in method.imports} - _imported(tree)
    if needed:
        at = _after_imports(tree)
        lines[at:at] = [f"from {module} import {name}\n" for module, name in sorted(needed)]
    return Skeleton(path, "".join(lines), [method.name for method in missing])


def _imported(tree: ast.Module) -> set[tuple[str, str]]:
    return {
        (each.module or "", alias.name)
        for each in tree.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
        if alias.asname in {None, alias.name}
    }


def _after_imports(tree: ast.Module) -> int:
    """The number of lines up to the last import, or to the docstring."""
    lines = [
        each.end_lineno or 0 for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom)
    ]
    if not lines and ast.get_docstring(tree) is not None:
        lines = [tree.body[0].end_lineno or 0]
    return max(lines, default=0)


def _import_lines(imports: Iterable[tuple[str, str]]) -> str:
    """Imports in the usual three groups."""
    standard = {"collections.abc", "typing"}
    groups: list[dict[str, list[str]]] = [{}, {}, {}]
    for module, name in sorted(imports):
        third = module.startswith(("kit.", "google."))
        group = groups[0] if module in standard else groups[1] if third else groups[2]
        group.setdefault(module, []).append(name)
    lines = "\n".join(
        "".join(f"from {module} import {', '.join(names)}\n" for module, names in group.items())
        for group in groups
        if group
    )
    return wrapped(lines)


def _import(file: str, ending: str) -> tuple[str, str]:
    module = file.removesuffix(".proto").replace("-", "_").replace("/", ".") + ending
    if file == "errors/errors.proto":
        return "kit.errors", "errors_pb2"
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
