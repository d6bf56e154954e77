"""The codecs that a server or client has from the start.

Source: go-kratos/kratos transport/http/codec.go and what it imports.
"""

from kit.encoding import CodecTable
from kit.encoding.form import FormCodec
from kit.encoding.json import JsonCodec, ProtoJsonCodec
from kit.encoding.proto import ProtoCodec
from kit.encoding.structjson import StructJsonCodec
from kit.encoding.xml import XmlCodec
from kit.encoding.yaml import YamlCodec


def codecs(compat: str = "v2") -> CodecTable:
    """A new table of all of them.

    Args:
        compat: with ``v2`` messages are written as ``json`` by the protobuf mapping, with ``v3``
            by the rules for structs; ``protojson`` is the mapping in both.
    """
    json = JsonCodec() if compat == "v2" else StructJsonCodec()
    return CodecTable([json, ProtoJsonCodec(), ProtoCodec(), XmlCodec(), YamlCodec(), FormCodec()])
