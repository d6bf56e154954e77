"""``protoc-gen-kit-http``: typed HTTP servers and clients, and an OpenAPI document, from protos.

::

    protoc --python_out=. --kit-http_out=. api/shop/v1/shop.proto

For every file with a service that has ``google.api.http`` rules it writes ``…_pb2_http.py``, and
one ``openapi.json`` for all of them. Parameters, as in ``--kit-http_opt=title=Shop``:

=================  ============================================================================
``openapi``        the name of the document, ``openapi.json`` by default; ``none`` for none
``title``          of the document, ``API`` by default
``version``        of the API, ``0.0.1`` by default
``compat``         ``v2`` or ``v3``: which form ``application/json`` has
``unannotated``    a path prefix: methods without a rule get ``POST <prefix>/pkg.Service/Method``
=================  ============================================================================

Source: go-kratos/kratos cmd/protoc-gen-go-http; google/gnostic cmd/protoc-gen-openapi.
"""

import sys
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2  # type: ignore[import-untyped]  # (registers the option)
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from kit.cli.protoc.code import module_code
from kit.cli.protoc.comments import comments_of
from kit.compat import Compat
from kit.encoding.families import AnyDescriptor
from kit.transport.http.binding import Binder, rules_of
from kit.transport.http.openapi import Document

assert annotations_pb2.http is not None


class Refused(Exception):
    """What the user has to mend; protoc prints it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The plugin's parameters."""

    openapi: str = "openapi.json"
    title: str = "API"
    version: str = "0.0.1"
    compat: Compat = Compat.V2
    unannotated: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Options":
        """Read what protoc passes on.

        Raises:
            Refused: a parameter is unknown or has an impossible value.
        """
        given: dict[str, Any] = {}
        for pair in filter(None, text.split(",")):
            name, equals, value = pair.partition("=")
            if name not in cls.__slots__ or not equals:
                known = ", ".join(cls.__slots__)
                raise Refused(
                    f"parameter {pair!r} is not known; write one of {known}, as name=value"
                )
            given[name] = value
        try:
            given["compat"] = Compat(given.get("compat", "v2"))
        except ValueError as exc:
            raise Refused(f"compat={given['compat']!r} is neither v2 nor v3") from exc
        return cls(**given)


def main() -> int:
    """Speak the protocol of protoc's plugins on stdin and stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())
    return 0


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """The files for ``request``, or the error that protoc prints."""
    response = new_response()
    try:
        for name, content in _files(request, Options.parse(request.parameter)):
            response.file.add(name=name, content=content)
    except (Refused, ValueError) as exc:
        response.error = str(exc)
    return response


def new_response() -> plugin_pb2.CodeGeneratorResponse:
    """An empty one that says what our plugins can read."""
    response = plugin_pb2.CodeGeneratorResponse()
    response.supported_features = (
        plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | plugin_pb2.CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
    )
    response.minimum_edition = descriptor_pb2.EDITION_PROTO2
    response.maximum_edition = descriptor_pb2.EDITION_2023
    return response


def _files(request: plugin_pb2.CodeGeneratorRequest, options: Options) -> list[tuple[str, str]]:
    pool = DescriptorPool()
    said: dict[str, dict[str, str]] = {}
    for file in request.proto_file:
        pool.AddSerializedFile(file.SerializeToString())
        said[file.name] = comments_of(file)
    comments = {name: text for each in said.values() for name, text in each.items()}
    document = Document(title=options.title, version=options.version, compat=options.compat)
    made: list[tuple[str, str]] = []
    for name in request.file_to_generate:
        file_descriptor: AnyDescriptor = pool.FindFileByName(name)
        services = [
            service
            for service in file_descriptor.services_by_name.values()
            if any(rules_of(each, unannotated=options.unannotated) for each in service.methods)
        ]
        for service in services:
            _check(service, options.unannotated)
            document.add(
                service,
                unannotated=options.unannotated,
                comments=lambda full_name: comments.get(full_name, ""),
            )
        if services:
            base = name.removesuffix(".proto").replace("-", "_")
            # Of what it imports and nothing else: the code must not depend on its neighbours.
            own = {
                key: text for each in _reached(file_descriptor) for key, text in said[each].items()
            }
            code = module_code(file_descriptor, services, own, options.unannotated)
            made.append((f"{base}_pb2_http.py", code))
    if made and options.openapi != "none":
        made.append((options.openapi, document.to_json().decode()))
    return made


def _reached(file: AnyDescriptor) -> set[str]:
    """The names of a file and of all that it imports."""
    return {file.name}.union(*map(_reached, file.dependencies))


def _check(service: AnyDescriptor, unannotated: str | None) -> None:
    """Find now what would fail when the server starts.

    Raises:
        ValueError: a rule does not fit its message.
    """
    for method in service.methods:
        for rule in rules_of(method, unannotated=unannotated):
            Binder(rule, method)
            wants_body = {"GET": False, "DELETE": False, "POST": True, "PUT": True, "PATCH": True}
            if wants_body.get(rule.verb, bool(rule.body)) != bool(rule.body):
                does = "has a body" if rule.body else "has no body"
                sys.stderr.write(f"warning: {method.full_name}: {rule.verb} {rule.path} {does}\n")
