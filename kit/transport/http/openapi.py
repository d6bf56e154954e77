"""OpenAPI 3 of services with ``google.api.http`` rules, as the kit really answers them.

64-bit numbers are texts, enums are names, errors have the fields of kratos' error model, and an
envelope is told when there is one. Comments are those of the proto file, where a plugin has them;
descriptors at run time have none.

Source: OpenAPI 3.0.3; google/gnostic cmd/protoc-gen-openapi, whose default response is another one.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from kit.compat import Compat
from kit.encoding import protojson
from kit.encoding.families import AnyDescriptor, AnyField
from kit.transport.http.binding import HTTP_BODY, Rule, rules_of
from kit.transport.http.replies import HTML, Envelope, Raw
from kit.transport.http.router import ANY_VERB
from kit.transport.http.template import join, parse_template

Schema: TypeAlias = dict[str, Any]
Comments: TypeAlias = Callable[[str], str]
"""The comment of a full name, such as ``pkg.Service.Method``; empty when there is none."""

ERROR_SCHEMA = "kit.Error"
_Field = FieldDescriptor
_VERBS = ("get", "put", "post", "delete", "patch")
_TEXT_64: Schema = {"type": "string"}
_SCALARS: dict[int, Schema] = {
    _Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    _Field.TYPE_BOOL: {"type": "boolean"},
    _Field.TYPE_STRING: {"type": "string"},
    _Field.TYPE_BYTES: {"type": "string", "format": "byte"},
}
_SIGNED = {_Field.CPPTYPE_INT32: "int32", _Field.CPPTYPE_INT64: "int64"}
_UNSIGNED = {_Field.CPPTYPE_UINT32: "uint32", _Field.CPPTYPE_UINT64: "uint64"}
_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {"description": "any JSON value"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
    },
    "google.protobuf.BoolValue": {"type": "boolean", "nullable": True},
    "google.protobuf.StringValue": {"type": "string", "nullable": True},
    "google.protobuf.BytesValue": {"type": "string", "format": "byte", "nullable": True},
    "google.protobuf.DoubleValue": {"type": "number", "format": "double", "nullable": True},
    "google.protobuf.FloatValue": {"type": "number", "format": "float", "nullable": True},
    "google.protobuf.Int32Value": {"type": "integer", "format": "int32", "nullable": True},
    "google.protobuf.UInt32Value": {"type": "integer", "format": "uint32", "nullable": True},
    "google.protobuf.Int64Value": {"type": "string", "format": "int64", "nullable": True},
    "google.protobuf.UInt64Value": {"type": "string", "format": "uint64", "nullable": True},
}


def _no_comment(_name: str) -> str:
    return ""


class Document:
    """One document over any number of services.

    Args:
        title: of the document.
        version: of the API.
        compat: which form ``application/json`` has.
        envelope: around JSON answers.
    """

    def __init__(
        self,
        *,
        title: str = "API",
        version: str = "0.0.1",
        compat: Compat = Compat.V2,
        envelope: Envelope | None = None,
    ) -> None:
        self.title = title
        self.version = version
        self._v3 = compat is Compat.V3
        self._envelope = envelope
        self._paths: dict[str, dict[str, Any]] = {}
        self._schemas: dict[str, Schema] = {}
        self._tags: dict[str, str] = {}
        self._comments: Comments = _no_comment

    def add(
        self,
        service: AnyDescriptor,
        *,
        prefix: str = "",
        unannotated: str | None = None,
        comments: Comments = _no_comment,
    ) -> None:
        """Describe the methods of ``service`` that have a rule.

        Raises:
            ValueError: a path cannot be read.
        """
        self._comments = comments
        for method in service.methods:
            for number, rule in enumerate(reversed(rules_of(method, unannotated=unannotated))):
                self._tags[service.name] = comments(service.full_name)
                self._operation(service, method, rule, prefix, number)

    def to_dict(self) -> Mapping[str, Any]:
        """The document as a tree of plain values."""
        if self._paths:
            self._schemas[ERROR_SCHEMA] = self._error_schema()
        return {
            "openapi": "3.0.3",
            "info": {"title": self.title, "version": self.version},
            "paths": {path: self._paths[path] for path in sorted(self._paths)},
            "components": {
                "schemas": {name: self._schemas[name] for name in sorted(self._schemas)}
            },
            "tags": [_described({"name": name}, text) for name, text in sorted(self._tags.items())],
        }

    def to_json(self) -> bytes:
        """The document as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2).encode() + b"\n"

    def _operation(
        self, service: AnyDescriptor, method: AnyDescriptor, rule: Rule, prefix: str, number: int
    ) -> None:
        template = parse_template(join(prefix, rule.path) if prefix else rule.path)
        path = template.build_names()
        operation: dict[str, Any] = {
            "tags": [service.name],
            "operationId": f"{service.name}_{method.name}" + (f"_{number}" if number else ""),
        }
        _described(operation, self._comments(method.full_name))
        bound = set(template.names)
        operation["parameters"] = [
            self._parameter(method.input_type, name, "path") for name in template.names
        ]
        if rule.body and not method.client_streaming:
            operation["requestBody"] = self._request_body(method.input_type, rule, bound)
        if rule.body != "*":
            skipped = bound | ({rule.body} if rule.body else set())
            operation["parameters"] += self._query(method.input_type, skipped)
        if not operation["parameters"]:
            del operation["parameters"]
        operation["responses"] = self._responses(method, rule)
        verbs = _VERBS if rule.verb == ANY_VERB else (rule.verb.lower(),)
        for verb in ("get",) if method.client_streaming else verbs:
            if verb in {*_VERBS, "head", "options", "trace"}:
                unique = f"_{verb}" if rule.verb == ANY_VERB else ""
                entry = {**operation, "operationId": operation["operationId"] + unique}
                self._paths.setdefault(path, {}).setdefault(verb, entry)

    def _responses(self, method: AnyDescriptor, rule: Rule) -> dict[str, Any]:
        if method.client_streaming:
            text = "Switching Protocols: a WebSocket with one message in a text frame"
            return {"101": {"description": text}, "default": self._error_response()}
        reply = self._reply_schema(method.output_type, rule.response_body)
        if method.server_streaming:
            media = {"text/event-stream": {"schema": reply}}
            return {"200": {"description": "events", "content": media}, **self._default()}
        if method.output_type.full_name == HTTP_BODY:
            media = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
            return {"200": {"description": "OK", "content": media}, **self._default()}
        if self._envelope is not None:
            reply = self._wrapped(reply)
        media = {"application/json": {"schema": reply}}
        return {"200": {"description": "OK", "content": media}, **self._default()}

    def _default(self) -> dict[str, Any]:
        return {"default": self._error_response()}

    def _error_response(self) -> dict[str, Any]:
        schema = {"$ref": f"#/components/schemas/{ERROR_SCHEMA}"}
        return {"description": "an error", "content": {"application/json": {"schema": schema}}}

    def _error_schema(self) -> Schema:
        code: Schema = {"type": "integer", "format": "int32"}
        text: Schema = {"type": "string"}
        metadata: Schema = {"type": "object", "additionalProperties": text}
        names = ("code", "reason", "message")
        if self._envelope is not None:
            names = (self._envelope.code, self._envelope.reason, self._envelope.message)
        properties = {names[0]: code, names[1]: text, names[2]: text, "metadata": metadata}
        schema: Schema = {"type": "object", "properties": properties}
        if not self._v3 or self._envelope is not None:
            schema["required"] = list(properties)
        return schema

    def _wrapped(self, reply: Schema) -> Schema:
        envelope = self._envelope
        assert envelope is not None
        properties: Schema = {
            envelope.code: {"type": "integer", "enum": [envelope.ok_code]},
            envelope.message: {"type": "string"},
            envelope.reason: {"type": "string"},
            envelope.data: reply,
        }
        return {"type": "object", "properties": properties, "required": list(properties)}

    def _reply_schema(self, message: AnyDescriptor, field: str) -> Schema:
        if field:
            return self._field_schema(message.fields_by_name[field])
        return self._message_schema(message)

    def _request_body(self, message: AnyDescriptor, rule: Rule, bound: set[str]) -> dict[str, Any]:
        if rule.body == "*" and message.full_name == HTTP_BODY:
            media: dict[str, Any] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
            return {"content": media}
        if rule.body == "*":
            schema = self._message_schema(message)
        else:
            schema = self._field_schema(message.fields_by_name[rule.body])
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _query(self, message: AnyDescriptor, bound: set[str]) -> list[Schema]:
        found: list[Schema] = []

        def walk(descriptor: AnyDescriptor, prefix: str, above: tuple[str, ...]) -> None:
            for field in descriptor.fields:
                name = f"{prefix}{field.name}"
                if name in bound:
                    continue
                kind = field.message_type
                if kind is None or kind.full_name in _KNOWN:
                    written = f"{prefix}{self._name(field)}"
                    found.append(self._parameter(message, name, "query", written))
                elif not field.is_repeated and kind.full_name not in above:
                    walk(kind, f"{name}.", (*above, kind.full_name))

        walk(message, "", (message.full_name,))
        return found

    def _parameter(
        self, message: AnyDescriptor, name: str, place: str, written: str = ""
    ) -> Schema:
        field: AnyField = None
        for step in name.split("."):
            field = message.fields_by_name[step]
            message = field.message_type
        parameter: Schema = {"name": written or name, "in": place}
        _described(parameter, self._comments(field.full_name))
        if place == "path":
            parameter["required"] = True
        schema = self._field_schema(field)
        if field.type == _Field.TYPE_MESSAGE and field.message_type.full_name.endswith("Duration"):
            schema = {"type": "string"}  # Go's form in queries, such as 1h2m
        parameter["schema"] = schema
        return parameter

    def _message_schema(self, message: AnyDescriptor) -> Schema:
        if message.full_name in _KNOWN and not self._v3:
            return dict(_KNOWN[message.full_name])
        name = message.full_name
        if name not in self._schemas:
            schema: Schema = {"type": "object", "properties": {}}
            self._schemas[name] = schema  # before its fields: types may contain themselves
            _described(schema, self._comments(name))
            for field in message.fields:
                schema["properties"][self._name(field)] = self._commented(field)
        return {"$ref": f"#/components/schemas/{name}"}

    def _name(self, field: AnyField) -> str:
        return str(field.name if self._v3 else field.json_name)

    def _commented(self, field: AnyField) -> Schema:
        schema = self._field_schema(field)
        text = self._comments(field.full_name)
        if field.message_type is not None and not field.is_repeated:
            # unset messages are written as null, and a reference can have nothing beside it
            schema = {"allOf": [schema]} if "$ref" in schema else schema
            return _described({**schema, "nullable": True}, text)
        described = "\n".join(filter(None, (text, schema.get("description", ""))))
        return _described(schema, described)

    def _field_schema(self, field: AnyField) -> Schema:
        if protojson.is_map(field):
            element = field.message_type.fields_by_name["value"]
            return {"type": "object", "additionalProperties": self._element(element)}
        element_schema = self._element(field)
        return {"type": "array", "items": element_schema} if field.is_repeated else element_schema

    def _element(self, field: AnyField) -> Schema:
        if field.message_type is not None:
            return self._message_schema(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type in _SCALARS:
            return dict(_SCALARS[field.type])
        form = {**_SIGNED, **_UNSIGNED}[field.cpp_type]
        if form.endswith("64") and not self._v3:
            return {**_TEXT_64, "format": form}
        unsigned = {"minimum": 0} if field.cpp_type in _UNSIGNED else {}
        return {"type": "integer", "format": form, **unsigned}

    def _enum(self, enum: AnyDescriptor) -> Schema:
        if self._v3:
            return {"type": "integer", "enum": [value.number for value in enum.values]}
        texts = [(value.name, self._comments(value_name(enum, value))) for value in enum.values]
        schema: Schema = {"type": "string", "enum": [name for name, _ in texts]}
        described = "\n".join(f"{name}: {text}" for name, text in texts if text)
        return _described(schema, described)


def value_name(enum: AnyDescriptor, value: Any) -> str:
    """The name under which comments know the value of an enum."""
    return f"{enum.full_name}.{value.name}"


def _described(entry: Schema, text: str) -> Schema:
    if text:
        entry["description"] = text
    return entry


def docs_page() -> Raw:
    """A page that shows ``openapi.json`` beside it; it loads nothing from elsewhere."""
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    page = (Path(__file__).parent / "docs.html").read_bytes()
    return Raw(page, HTML, 200, (("content-security-policy", policy),))
