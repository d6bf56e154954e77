"""The OpenAPI document, and that it says what is really answered."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI

from kit.compat import Compat
from kit.transport.http import Envelope, HttpClient, HttpServer
from kit.transport.http.openapi import Document
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop import SERVICE, shop_side
from tests.unit.transport.http.shop_pb2_http import COMMENTS, ShopHTTPClient
from tests.unit.transport.http.trans_pb2 import AdjustInfo, Response
from tests.unit.transport.http.trans_pb2_http import (
    OPERATION_TRANS_TRANS_IN,
    TransHTTPClient,
    register_trans_http_server,
)

HERE = Path(__file__).parent
EMITTED = json.loads((HERE / "openapi.json").read_text())


def schema_of(document: Any, path: str, verb: str, status: str = "200") -> Any:
    return document["paths"][path][verb]["responses"][status]["content"]["application/json"][
        "schema"
    ]


def misfits(value: Any, schema: Any, document: Any, where: str = "$") -> list[str]:
    """Where ``value`` is not what ``schema`` says; extra and missing fields are misfits, too."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return misfits(value, document["components"]["schemas"][name], document, where)
    if value is None:
        return [] if schema.get("nullable") else [f"{where} is null"]
    if "allOf" in schema:
        return misfits(value, schema["allOf"][0], document, where)
    kinds = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list}
    match schema.get("type"):
        case "object" if isinstance(value, dict):
            fields = schema.get("properties", {})
            more = schema.get("additionalProperties")
            found = [
                f"{where}.{name} is not described"
                for name in value
                if name not in fields and not more
            ]
            found += [
                f"{where}.{name} is missing"
                for name in schema.get("required", ())
                if name not in value
            ]
            for name, each in value.items():
                sub = fields.get(name, more if isinstance(more, dict) else {})
                found += misfits(each, sub, document, f"{where}.{name}")
            return found
        case "array" if isinstance(value, list):
            return [
                each for item in value for each in misfits(item, schema["items"], document, where)
            ]
        case None:
            return []
        case kind:
            if not isinstance(value, kinds.get(kind, ())):
                return [f"{where}: {value!r} is no {kind}"]
            known = schema.get("enum")
            return (
                [f"{where}: {value!r} is not in the enum"] if known and value not in known else []
            )


def test_the_emitted_document_is_valid_openapi() -> None:
    """By the models of FastAPI; ids of operations are unique."""
    OpenAPI.model_validate(EMITTED)
    ids = [op["operationId"] for verbs in EMITTED["paths"].values() for op in verbs.values()]
    assert len(ids) == len(set(ids))
    assert EMITTED["paths"]["/v1/items/{id}"]["get"]["description"] == "Get gives one item."
    color = EMITTED["components"]["schemas"]["tests.shop.v1.Item"]["properties"]["color"]
    assert color["enum"] == ["COLOR_UNSPECIFIED", "RED", "GREEN"]
    assert "RED: RED is the colour of tomatoes." in color["description"]
    assert "/v1/{name}:read" in EMITTED["paths"]


async def test_the_server_tells_what_the_plugin_emitted_and_answers_so() -> None:
    """Replies and errors fit their schemas, every field of them."""

    def setup(server: HttpServer) -> None:
        server.document = Document(title="Shop")
        server.document.add(SERVICE, comments=lambda name: COMMENTS.get(name, ""))

    async with shop_side(setup, openapi=True) as side:
        answer = await side.ask("GET", "/openapi.json")
        document = answer.json
        shop = {
            path: verbs
            for path, verbs in EMITTED["paths"].items()
            if "trans" not in path and "accounts" not in path
        }
        assert document["paths"] == shop
        full = pb.Everything(
            numbers=[1], items=[pb.Item(id="a")], counts={"a": 1}, maybe=1, name="x"
        )
        full.nested.a_float = 0.5
        full.at.GetCurrentTime()
        full.during.seconds = 1
        full.text.value = "t"
        full.tree["a"] = 1
        full.any.Pack(pb.Item(id="b"))
        full.by_number[5].price_cents = 3
        body = json.dumps(
            json.loads(__import__("kit.encoding.json").encoding.json.JsonCodec().encode(full))
        )
        for text in (body, "{}"):
            answer = await side.json("POST", "/v1/echo", text)
            assert misfits(answer.json, schema_of(document, "/v1/echo", "post"), document) == []
        answer = await side.ask("GET", "/v1/names")
        assert misfits(answer.json, schema_of(document, "/v1/names", "get"), document) == []
        answer = await side.ask("GET", "/v1/items/none")
        error = schema_of(document, "/v1/items/{id}", "get", "default")
        assert misfits(answer.json, error, document) == []
        assert misfits({"code": "x"}, error, document) != [], "the check itself can fail"
        page = await side.ask("GET", "/docs")
        assert page.status == 200
        assert b"openapi.json" in page.body
        assert b"//" not in page.body.replace(b"http://", b"").split(b"<script>")[0]
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_an_envelope_and_v3_are_told() -> None:
    """Names of the envelope; numbers instead of texts."""
    async with shop_side(openapi=True, envelope=Envelope(message="msg")) as side:
        document = (await side.ask("GET", "/openapi.json")).json
        for path, verb, status in (
            ("/v1/items/7", "get", "200"),
            ("/v1/items/none", "get", "default"),
        ):
            answer = await side.ask("GET", path)
            schema = schema_of(document, "/v1/items/{id}", verb, status)
            assert misfits(answer.json, schema, document) == []
    async with shop_side(openapi=True, compat=Compat.V3) as side:
        document = (await side.ask("GET", "/openapi.json")).json
        OpenAPI.model_validate(document)
        answer = await side.json("POST", "/v1/items", '{"id":"7","price_cents":5,"color":1}')
        assert answer.json == {"id": "7", "price_cents": 5, "color": 1}
        schema = schema_of(document, "/v1/items", "post")
        assert misfits(answer.json, schema, document) == []


class Trans:
    """One class for gRPC and HTTP."""

    async def TransOut(self, request: AdjustInfo, context: Any) -> Response:  # noqa: N802
        return Response()

    async def TransIn(self, request: AdjustInfo, context: Any) -> Response:  # noqa: N802
        assert context.info.operation == OPERATION_TRANS_TRANS_IN
        assert (request.Amount, request.UserID) == (30, 2)
        return Response()


async def test_generated_code_serves_and_calls() -> None:
    """The transfer service over HTTP, typed on both sides."""

    def setup(server: HttpServer) -> None:
        register_trans_http_server(server, Trans())

    async with shop_side(setup, openapi=True) as side, HttpClient(side.url) as http:
        client = TransHTTPClient(http)
        assert await client.TransIn(AdjustInfo(Amount=30, UserID=2)) == Response()
        assert await client.TransOut(AdjustInfo(Amount=30, UserID=1), timeout=1) == Response()
        shop = ShopHTTPClient(http)
        assert (await shop.Get(pb.GetRequest(id="1"))).id == "1"
        assert [each.id async for each in shop.Watch(pb.ListRequest(page_size=1))] == ["0"]
        async with shop.Sum() as total:
            await total.write(pb.Item(price_cents=2))
            await total.done_writing()
            assert (await total.read()).price_cents == 2  # type: ignore[union-attr]
        document = (await side.ask("GET", "/openapi.json")).json
        described = document["paths"]["/v1/accounts/{UserID}/in"]["post"]
        assert described["description"] == "TransIn puts the amount into the account."


@pytest.mark.parametrize("sys_", [sys.version_info])
def test_the_document_is_read_without_services(sys_: Any) -> None:
    """Nothing is described, and nothing breaks."""
    assert json.loads(Document().to_json())["paths"] == {}
