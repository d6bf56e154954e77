"""From a request to a method's message, by the ``google.api.http`` rules of the method.

Body first, then query, then path variables, which win. With ``body: "*"`` the query is ignored.

Source: go-kratos/kratos cmd/protoc-gen-go-http/http.go, transport/http/binding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.api import (  # type: ignore[import-untyped]  # it has no marker
    annotations_pb2,
    http_pb2,
    httpbody_pb2,
)
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit.encoding import Codec, CodecError, form, protojson
from kit.encoding.families import AnyDescriptor
from kit.transport.http.router import ANY_VERB
from kit.transport.http.template import Template, join, parse_template

HTTP_BODY = httpbody_pb2.HttpBody.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to call a method over HTTP.

    Attributes:
        verb: in capitals; ``*`` for every one.
        path: a template.
        body: ``*``, the name of a field, or empty when no body is bound.
        response_body: the field that is answered in place of the whole reply, or empty.
    """

    verb: str
    path: str
    body: str = ""
    response_body: str = ""


def rules_of(method: AnyDescriptor, *, unannotated: str | None = None) -> list[Rule]:
    """The rules of a method in the order of their routes: additional ones before the main one.

    Args:
        method: its descriptor.
        unannotated: the path prefix of a method without a rule, which gets
            ``POST <prefix>/pkg.Service/Method``; ``None`` leaves such methods out.
    """
    default = f"/{method.containing_service.full_name}/{method.name}"
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return [] if unannotated is None else [Rule("POST", f"{unannotated}{default}")]
    main = options.Extensions[annotations_pb2.http]
    return [_rule(each, default) for each in (*main.additional_bindings, main)]


def _rule(rule: http_pb2.HttpRule, default: str) -> Rule:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        verb, path = rule.custom.kind.upper() or ANY_VERB, rule.custom.path
    elif kind is None:
        verb, path = "POST", ""
    else:
        verb, path = kind.upper(), getattr(rule, kind)
    return Rule(verb, path or default, rule.body, rule.response_body)


class Binder:
    """Binds the requests of one rule.

    Args:
        rule: what to bind where.
        method: the method it is a rule of.
        prefix: goes before the rule's path.

    Raises:
        ValueError: the rule names a field that does not exist, or its path cannot be read.
    """

    def __init__(self, rule: Rule, method: AnyDescriptor, prefix: str = "") -> None:
        self.rule = rule
        path = rule.path if rule.path.startswith("/") else f"/{rule.path}"
        self.template: Template = parse_template(join(prefix, path) if prefix else path)
        self._kind = GetMessageClass(method.input_type)
        where = f"{method.full_name}: {rule.verb} {rule.path}"
        for name in self.template.names:
            _check_path(method.input_type, name, where)
        self._field: AnyDescriptor = None
        if rule.body not in {"", "*"}:
            self._field = _field(method.input_type, rule.body, f"{where}: body")
        self._raw = self._carries_http_body(method.input_type)
        self._reply_field: AnyDescriptor = None
        if rule.response_body:
            reply = method.output_type
            self._reply_field = _field(reply, rule.response_body, f"{where}: response_body")

    def _carries_http_body(self, message: AnyDescriptor) -> bool:
        if self._field is None:
            return bool(self.rule.body and message.full_name == HTTP_BODY)
        kind = self._field.message_type
        return kind is not None and kind.full_name == HTTP_BODY and not self._field.is_repeated

    @property
    def reads_body(self) -> bool:
        """Whether the body is bound."""
        return bool(self.rule.body)

    @property
    def takes_any_type(self) -> bool:
        """Whether the body is bound as it is, whatever its content type."""
        return self._raw

    def bind(
        self,
        body: bytes,
        codec: Codec | None,
        query: bytes,
        variables: Mapping[str, str],
        content_type: str = "",
    ) -> Message:
        """The message of a request.

        Args:
            body: as it came, when :attr:`reads_body`.
            codec: of its content type.
            query: the part behind ``?``.
            variables: of the path, decoded.
            content_type: for bodies that are bound as they are.

        Raises:
            CodecError: a part does not fit.
        """
        message = self._of_body(body, codec, content_type)
        if query and self.rule.body != "*":
            form.bind(message, form.parse(query))
        if variables:
            form.bind(message, {name: [value] for name, value in variables.items()})
        return message

    def overlay(
        self, frame: bytes, codec: Codec, query: bytes, variables: Mapping[str, str]
    ) -> Message:
        """The message of a WebSocket's frame, overlaid by query and path variables.

        The frame has the whole message, or that of the field which the rule names as body.

        Raises:
            CodecError: a part does not fit.
        """
        try:
            message: Message
            if self._field is None:
                message = codec.decode(frame, self._kind)
            else:
                message = self._of_field(frame, codec)
        except CodecError as exc:
            raise CodecError(f"body unmarshal {exc}") from exc
        form.bind(message, form.parse(query))
        form.bind(message, {name: [value] for name, value in variables.items()})
        return message

    def _of_body(self, body: bytes, codec: Codec | None, content_type: str) -> Message:
        if self._raw:
            message = self._kind()
            target: Any = message if self._field is None else getattr(message, self._field.name)
            target.content_type, target.data = content_type, body
            return message
        if not body or not self.rule.body:
            return self._kind()
        assert codec is not None, "whoever gives a body gives its codec"
        try:
            if self._field is None:
                decoded: Message = codec.decode(body, self._kind)
                return decoded
            return self._of_field(body, codec)
        except CodecError as exc:
            raise CodecError(f"body unmarshal {exc}") from exc

    def _of_field(self, body: bytes, codec: Codec) -> Message:
        message, field = self._kind(), self._field
        if field.message_type is not None and not field.is_repeated:
            kind = GetMessageClass(field.message_type)
            getattr(message, field.name).CopyFrom(codec.decode(body, kind))
        elif codec.name in {"json", "protojson"}:
            protojson.merge({field.name: protojson.loads(body)}, message)
        else:
            raise CodecError(f"{field.name} is no message, which {codec.name} needs; send JSON")
        return message

    def reply_of(self, reply: Message) -> tuple[Any, AnyDescriptor]:
        """What of ``reply`` is answered, and its field when it is only one."""
        if self._reply_field is None:
            return reply, None
        return getattr(reply, self._reply_field.name), self._reply_field


def encode_field(field: AnyDescriptor, value: Any, codec: Codec) -> bytes:
    """One field of a reply in the form of ``codec``.

    Raises:
        CodecError: the codec has no form for what is no message.
    """
    if field.message_type is not None and not field.is_repeated:
        return codec.encode(value)
    if codec.name in {"json", "protojson"}:
        return protojson.text_of(protojson.field_to_value(field, value))
    raise CodecError(f"{field.name} is no message, which {codec.name} needs; accept JSON")


def _field(message: AnyDescriptor, name: str, where: str) -> AnyDescriptor:
    if name not in message.fields_by_name:
        raise ValueError(f"{where}: {message.full_name} has no field {name!r}")
    return message.fields_by_name[name]


def _check_path(message: AnyDescriptor, name: str, where: str) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        field = _field(message, parent, where)
        if field.message_type is None or field.is_repeated:
            raise ValueError(f"{where}: {parent!r} of {name!r} is not a message")
        message = field.message_type
    _field(message, last, where)
