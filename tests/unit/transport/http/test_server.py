"""What a client of the HTTP server observes: spec §7 to §9 and §11."""

import asyncio
import io
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.responses import PlainTextResponse

from kit.errors import ServiceUnavailable, Unauthorized
from kit.middleware.recovery import recovery
from kit.middleware.timeout import timeout
from kit.transport import Handler, current_call
from kit.transport.http import Envelope, HttpClient, HttpRequest, HttpServer, Limits, Raw, cors
from kit.transport.http.client_streams import Socket
from kit.transport.http.replies import StatusMessage
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop import SERVICE, Shop, shop_side

ITEM = b'{"id":"7","priceCents":"5"}'


async def test_a_request_becomes_a_message_and_the_reply_json() -> None:
    """Path, then the v2 form: all fields, 64-bit numbers as text."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/items/a%20b?verbose=1&shelf=s")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert "Server" not in answer.headers
        assert "Date" in answer.headers
        assert answer.json == {
            "id": "a b", "priceCents": "0", "color": "COLOR_UNSPECIFIED", "shelf": "s"
        }  # fmt: skip
        assert side.shop.asked == [pb.GetRequest(id="a b", shelf="s", verbose=True)]
        assert side.seen == ["http /tests.shop.v1.Shop/Get"]


async def test_path_variables_win_over_query_and_body() -> None:
    """Binding order: body, query, path."""
    async with shop_side() as side:
        assert (await side.ask("GET", "/v1/items/x?id=y")).json["id"] == "x"
        body = '{"id":"body","shelf":"s"}'
        answer = await side.json(
            "PATCH", "/v1/items/path?update_mask=shelf&item.price_cents=3", body
        )
        assert answer.json["id"] == "path"
        request = side.shop.asked[-1]
        assert request.item == pb.Item(id="path", shelf="s", price_cents=3)
        assert list(request.update_mask.paths) == ["shelf"]


async def test_a_whole_body_lets_the_query_be_ignored() -> None:
    """Even when it could not be bound."""
    async with shop_side() as side:
        answer = await side.ask("POST", "/v1/items?price_cents=x", ITEM, content_type="text/json")
        assert (answer.status, answer.json["id"]) == (200, "7")


async def test_additional_bindings_any_verb_and_paths_of_several_segments() -> None:
    """All routes of a rule lead to one method."""
    async with shop_side() as side:
        assert (await side.ask("GET", "/v1/shelves/s/items/i")).json["shelf"] == "s"
        assert (await side.ask("LOCK", "/v1/any/1")).json["id"] == "LOCK 1"
        assert (await side.ask("GET", "/v1/files/a/parts/b/c:read")).json[
            "id"
        ] == "files/a/parts/b/c"
        assert (await side.ask("DELETE", "/v1/items/1")).json == {}


async def test_a_part_of_the_reply_and_raw_bodies() -> None:
    """``response_body`` and ``google.api.HttpBody``."""
    async with shop_side() as side:
        assert (await side.ask("GET", "/v1/names")).json == ["a", "b"]
        answer = await side.ask("POST", "/v1/raw", b"\x00\xff", content_type="image/x")
        assert (answer.body, answer.headers["Content-Type"]) == (b"\xff\x00", "image/x")
        answer = await side.ask("POST", "/v1/raw", b"a")
        assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/protojson", "protojson"),
        ("application/proto", "proto"),
        ("text/xml", "xml"),
        ("application/x-www-form-urlencoded", "x-www-form-urlencoded"),
        ("application/yaml; q=0.5", "yaml"),
        ("*/*", "json"),
        ("text/html", "json"),
        ("application/JSON", "json"),
        ("application/xml, application/proto", "json"),
    ],
)
async def test_the_answer_has_the_accepted_codec_else_json(accept: str, kind: str) -> None:
    """Each header line is one candidate; commas and q-values are not looked at."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/items/7", accept=accept)
        assert answer.headers["Content-Type"] == f"application/{kind}"


async def test_a_body_is_read_by_its_content_type() -> None:
    """Proto and form, too."""
    async with shop_side() as side:
        data = pb.Item(id="p", price_cents=9).SerializeToString()
        answer = await side.ask(
            "POST", "/v1/items", data, content_type="application/proto", accept="application/proto"
        )
        assert answer.body == data
        form = "application/x-www-form-urlencoded"
        answer = await side.ask("POST", "/v1/items", b"id=f&color=RED", content_type=form)
        assert answer.json["color"] == "RED"
        answer = await side.ask("POST", "/v1/items", b"", content_type="application/json")
        assert (answer.status, answer.json["id"]) == (200, "")


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (ITEM, "", "unregister Content-Type: "),
        (b"", "", "unregister Content-Type: "),
        (ITEM, "application/cbor", "unregister Content-Type: application/cbor"),
        (b"{", "application/json", "body unmarshal malformed JSON"),
        (b"[1]", "application/json", "body unmarshal Item"),
        (b'{"color":"BLUE"}', "application/json", "body unmarshal color"),
        (b'{"priceCents":"x"}', "application/json", "body unmarshal priceCents"),
        (b"\xff\xff", "application/proto", "body unmarshal"),
        (b"<a", "application/xml", "body unmarshal malformed XML"),
        (b"price_cents=x", "application/x-www-form-urlencoded", "price_cents"),
    ],
)
async def test_what_cannot_be_read_is_400_codec(
    body: bytes, content_type: str, message: str
) -> None:
    """And the middleware never hears of it."""
    async with shop_side() as side:
        headers = {"content_type": content_type} if content_type else {}
        answer = await side.ask("POST", "/v1/items", body, **headers)
        assert answer.status == 400
        assert answer.json.keys() == {"code", "reason", "message", "metadata"}
        assert (answer.json["code"], answer.json["reason"]) == (400, "CODEC")
        assert message in answer.json["message"]
        assert side.seen == []


@pytest.mark.parametrize(
    "query", ["page_size=x", "colors=BLUE", "filter=x", "page_size=1&page_size=2", "%ff=%ff"]
)
async def test_a_query_that_does_not_fit_is_400_codec(query: str) -> None:
    """Malformed text in names is one of these."""
    async with shop_side() as side:
        answer = await side.ask("GET", f"/v1/items?{query}")
        assert (answer.status, answer.json["reason"]) == (400, "CODEC")


async def test_errors_are_answered_with_their_code_by_accept() -> None:
    """JSON has all four fields; proto is errors.Status."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/items/none")
        assert answer.status == 404
        assert answer.json == {
            "code": 404, "reason": "ITEM_NOT_FOUND", "message": "no such item",
            "metadata": {"id": "none"},
        }  # fmt: skip
        answer = await side.ask("GET", "/v1/items/none", accept="application/proto")
        assert StatusMessage.FromString(answer.body).reason == "ITEM_NOT_FOUND"
        answer = await side.ask("GET", "/v1/items/none", accept="application/xml")
        assert (answer.status, answer.body) == (500, b""), "a map has no form in XML"


@pytest.mark.parametrize(
    ("name", "status", "code", "said"),
    [
        ("panic", 500, 500, "oops"),
        ("business", 500, 10001, "no"),
        ("wrong", 500, 500, "gave Filter"),
        ("abort", 503, 503, "not now"),
    ],
)
async def test_every_failure_of_a_method_is_answered(
    name: str, status: int, code: int, said: str
) -> None:
    """A code that is no status stays in the body; Go drops the connection there."""
    async with shop_side() as side:
        answer = await side.ask("GET", f"/v1/items/{name}")
        assert (answer.status, answer.json["code"]) == (status, code)
        assert said in answer.json["message"]
        assert (await side.ask("GET", "/v1/items/7")).status == 200


async def test_a_method_of_the_generated_base_class_is_501() -> None:
    """As over gRPC."""

    class Lazy(Shop):
        Names = Shop.__mro__[1].Names  # type: ignore[assignment, attr-defined]

    def setup(server: Any) -> None:
        server.add_service(SERVICE, Lazy(), unannotated="/lazy")

    async with shop_side(setup) as side:
        answer = await side.ask("POST", "/lazy/tests.shop.v1.Shop/Unbound")
        assert (answer.status, answer.json["message"]) == (501, "method Unbound not implemented")


class Foreign:
    """A message of another package, known by its methods."""

    def __init__(self, item: pb.Item) -> None:
        self.item = item

    def to_binary(self) -> bytes:
        return self.item.SerializeToString()

    @classmethod
    def from_binary(cls, data: bytes) -> "Foreign":
        return cls(pb.Item.FromString(data))


async def test_a_service_may_take_and_give_messages_of_another_package() -> None:
    """By its annotation; JSON is that of protobuf all the same."""

    class Strange(Shop):
        async def Create(self, request: Foreign, context: Any) -> Foreign:  # noqa: N802
            request.item.price_cents += 1
            return request

    server = HttpServer(address="127.0.0.1:0")
    server.add_service(SERVICE, Strange())
    assert json.loads(await create(server))["priceCents"] == "5"


async def create(server: HttpServer) -> bytes:
    """The application called as a server of ASGI calls it."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"priceCents":"4"}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/items", "raw_path": b"/v1/items"}
    await server.app({**scope, "query_string": b"", "headers": headers}, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


async def test_what_nobody_expected_gives_nothing_away_behind_recovery() -> None:
    """The middleware of gRPC works here."""
    async with shop_side(middleware=[recovery()]) as side:
        answer = await side.ask("GET", "/v1/items/panic")
        assert (answer.json["reason"], answer.json["message"]) == (
            "UNKNOWN",
            "unknown request error",
        )
        assert (await side.ask("GET", "/v1/items/redirect")).status == 302


async def test_replies_other_than_messages() -> None:
    """Nothing, raw bytes, redirects returned and raised, headers."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/items/nothing")
        assert (answer.status, answer.body) == (200, b"")
        assert "Content-Type" not in answer.headers
        answer = await side.ask("GET", "/v1/items/raw")
        assert (answer.status, answer.body, answer.headers["X-Raw"]) == (201, b"raw", "1")
        answer = await side.ask("GET", "/v1/items/redirect")
        assert (answer.status, answer.headers["Location"]) == (302, "/v1/items/7")
        assert answer.body == b'<a href="/v1/items/7">Found</a>.\n\n'
        answer = await side.ask("GET", "/v1/items/redirected")
        assert (answer.status, answer.headers["Location"]) == (303, "/v1/items/7?a=1&b=2")
        assert b"a=1&amp;b=2" in answer.body
        answer = await side.ask("GET", "/v1/items/header")
        assert (answer.json["id"], answer.headers["X-Own"]) == ("/v1/items/{id}", "yes")


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/nowhere"), ("PUT", "/v1/items"), ("HEAD", "/v1/items/7"), ("OPTIONS", "/v1/items/7"),
     ("GET", "/debug/pprof/"), ("GET", "/v1/Unbound")],
)  # fmt: skip
async def test_what_is_not_served_is_answered_in_gos_words(verb: str, path: str) -> None:
    """404 for an unknown path and for another verb: spec §22 row 10; nothing else is exposed."""
    async with shop_side() as side:
        answer = await side.ask(verb, path)
        assert answer.status == 404
        assert answer.body == (b"" if verb == "HEAD" else b"404 page not found\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Allow" not in answer.headers


async def test_unclean_paths_and_slashes_are_redirected_301() -> None:
    """The query is kept; the strict slash has Go's line of HTML for GET."""
    async with shop_side() as side:
        answer = await side.ask("POST", "/v1//items?a=%20b")
        assert (answer.status, answer.headers["Location"], answer.body) == (
            301,
            "/v1/items?a=%20b",
            b"",
        )
        answer = await side.ask("GET", "/v1/items/?a=1")
        assert (answer.status, answer.headers["Location"]) == (301, "/v1/items?a=1")
        assert answer.body == b'<a href="/v1/items?a=1">Moved Permanently</a>.\n\n'
        answer = await side.ask("POST", "/v1/items/")
        assert (answer.status, answer.body) == (301, b"")


async def test_own_answers_for_unknown_paths_and_verbs() -> None:
    """Options of kratos since 2.7.3."""
    options: Any = {
        "not_found": PlainTextResponse("gone", 404),
        "method_not_allowed": PlainTextResponse("no", 405),
    }
    async with shop_side(**options) as side:
        assert (await side.ask("GET", "/nowhere")).body == b"gone"
        assert (await side.ask("PUT", "/v1/items")).status == 405


async def test_the_deadline_is_seen_and_the_timeout_middleware_cuts() -> None:
    """Without it a slow method runs on, as in kratos."""
    left: list[float | None] = []

    def looking(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            assert info is not None
            left.append(info.limit)
            return await handler(request)

        return call

    async with shop_side(timeout=0.05, middleware=[looking, timeout()]) as side:
        answer = await side.ask("GET", "/v1/items/slow")
        assert (answer.status, answer.json["reason"]) == (504, "TIMEOUT")
        assert "server timeout of 50ms" in answer.json["message"]
        assert left == [0.05]
        assert side.shop.cancelled.is_set()


async def test_a_method_is_cancelled_when_its_client_goes_away() -> None:
    """As over gRPC."""
    async with shop_side(timeout=0) as side:
        _, writer = await side.connect()
        writer.write(b"GET /v1/items/slow HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(side.shop.entered.wait(), 5)
        writer.close()
        await asyncio.wait_for(side.shop.cancelled.wait(), 5)


async def test_middleware_by_selector_and_filters_around_everything() -> None:
    """Filters see requests that no route serves."""
    order: list[str] = []

    def refusing(_handler: Handler) -> Handler:
        async def call(_request: Any) -> Any:
            raise Unauthorized("NO_TOKEN", "who are you")

        return call

    def noting(app: Any) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            order.append(scope["path"])
            await app(scope, receive, send)

        return call

    def setup(server: Any) -> None:
        server.use("/tests.shop.v1.Shop/*", refusing)
        server.use("/tests.shop.v1.Shop/Names")
        with pytest.raises(ValueError, match="selector"):
            server.use("Shop")

    async with shop_side(setup, filters=[noting]) as side:
        assert (await side.ask("GET", "/v1/items/1")).status == 401
        assert (await side.ask("GET", "/v1/names")).status == 200
        assert (await side.ask("GET", "/nowhere")).status == 404
        assert order == ["/v1/items/1", "/v1/names", "/nowhere"]


async def test_preflights_are_answered_by_the_cors_filter() -> None:
    """On paths that answer 404 to OPTIONS else."""
    async with shop_side(filters=[cors(["https://a.example"])]) as side:
        answer = await side.ask(
            "OPTIONS", "/v1/items", origin="https://a.example", access_control_request_method="POST"
        )
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        answer = await side.ask("GET", "/v1/names", origin="https://b.example")
        assert "Access-Control-Allow-Origin" not in answer.headers
    with pytest.raises(ValueError, match="credentials"):
        cors(["*"], credentials=True)


async def test_handwritten_routes_run_inside_the_middleware(tmp_path: Path) -> None:
    """Their operation is the template; they answer messages, plain values, responses, errors."""
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path.parent / "secret.txt").write_text("secret")

    async def hello(request: HttpRequest) -> Any:
        match request.path_params["name"]:
            case "plain":
                return {"a": [1]}
            case "message":
                return request.bind_vars(pb.Item)
            case "response":
                return PlainTextResponse("text", 202)
            case "raw":
                return Raw(b"x", status=204)
            case "bad":
                return request.bind_query(pb.ListRequest)
            case _:
                raise Unauthorized("X", "y")

    async def create(request: HttpRequest) -> Any:
        return await request.bind(pb.Item)

    def setup(server: Any) -> None:
        group = server.group("/own/")
        group.get("/{name}", hello)
        group.group("sub").post("/items/", create)
        server.static("/files", tmp_path)

    async with shop_side(setup) as side:
        assert (await side.ask("GET", "/own/plain")).json == {"a": [1]}
        assert (await side.ask("GET", "/own/message")).json["id"] == ""
        assert (await side.ask("GET", "/own/response")).status == 202
        answer = await side.ask("GET", "/own/raw")
        assert (answer.status, answer.body) == (204, b"")
        assert (await side.ask("GET", "/own/bad?page_size=x")).json["reason"] == "CODEC"
        assert (await side.ask("GET", "/own/other")).status == 401
        assert (await side.json("POST", "/own/sub/items", '{"id":"1"}')).json["id"] == "1"
        assert (await side.json("POST", "/own/sub/items", "{")).json["reason"] == "CODEC"
        assert (await side.ask("GET", "/files/a.txt")).body == b"hello"
        assert (await side.ask("HEAD", "/files/a.txt")).headers["Content-Length"] == "5"
        for outside in ("/files/%2e%2e/secret.txt", "/files/..%2fsecret.txt", "/files/none"):
            answer = await side.ask("GET", outside)
            assert answer.status in {301, 404}
            assert b"secret" not in answer.body
        assert "http /own/{name}" in side.seen
        assert "http /files/{path=**}" in side.seen


@pytest.mark.parametrize("kind", ["a/b\r\nx: y", "a/b\x00"])
async def test_a_header_that_would_end_itself_is_an_error_of_the_service(kind: str) -> None:
    """Not a second header, nor a second answer."""

    async def split(request: HttpRequest) -> Any:
        where = request.path_params["where"]
        info = current_call()
        assert info is not None
        if where == "reply":
            info.reply_headers.set("x-own", kind)
        return Raw(
            b"", kind if where == "type" else "", headers=(("x", kind),) if where == "raw" else ()
        )

    async with shop_side(lambda server: server.get("/split/{where}", split)) as side:
        for where in ("reply", "type", "raw"):
            answer = await side.ask("GET", f"/split/{where}")
            assert (answer.status, "x" in answer.headers) == (500, False)
            assert "cannot be sent" in answer.json["message"]


async def test_tls_is_served_and_called() -> None:
    """The endpoint says https; WebSockets go through it, too."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with shop_side(tls=server_side) as side:
        assert side.url.startswith("https://127.0.0.1:")
        methods = SERVICE.methods_by_name
        async with HttpClient(side.url, tls=client_side) as client:
            assert (await client.invoke(methods["Get"], pb.GetRequest(id="1"))).id == "1"
            async with Socket(client, methods["Sum"]) as total:
                await total.write(pb.Item(price_cents=2))
                await total.done_writing()
                assert (await total.read()).price_cents == 2
        async with HttpClient(side.url) as stranger:
            with pytest.raises(ServiceUnavailable, match="UNREACHABLE"):
                await stranger.request("GET", "/v1/names")


async def test_an_address_that_is_taken_is_told() -> None:
    """With the address, and before anything is announced."""
    async with shop_side() as side:
        second = HttpServer(address=f"127.0.0.1:{side.port}")
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{side.port}"):
            await second.listen()
        assert second.endpoint is None
    for wrong in ({"address": "nowhere"}, {"network": "udp"}):
        with pytest.raises(ValueError, match=r"nowhere|udp"):
            HttpServer(**wrong)


async def test_an_application_is_mounted_below_a_path() -> None:
    """Routes come first."""

    def setup(server: Any) -> None:
        server.mount("/admin", PlainTextResponse("admin"))

    async with shop_side(setup) as side:
        assert (await side.ask("GET", "/admin/x/y")).body == b"admin"
        assert (await side.ask("GET", "/administrator")).status == 404


async def test_an_envelope_goes_around_replies_and_errors() -> None:
    """Only around JSON."""
    async with shop_side(envelope=Envelope(message="msg", error_status=200)) as side:
        answer = await side.ask("GET", "/v1/names")
        assert answer.json == {"code": 0, "msg": "ok", "reason": "", "data": ["a", "b"]}
        answer = await side.ask("GET", "/v1/items/none")
        assert answer.status == 200
        assert (answer.json["code"], answer.json["msg"]) == (404, "no such item")
        answer = await side.ask("GET", "/v1/items/7", accept="application/proto")
        assert pb.Item.FromString(answer.body).id == "7"


async def test_a_body_that_is_too_large_is_413_and_the_client_reads_it() -> None:
    """Declared or in chunks; 100 MB are not kept."""
    async with shop_side(limits=Limits(body_bytes=1000)) as side:
        headers = {"content_type": "application/json"}
        answer = await side.ask("POST", "/v1/items", io.BytesIO(b"x" * 5_000_000), **headers)
        assert (answer.status, answer.json["reason"]) == (413, "BODY_TOO_LARGE")

        async def chunks() -> Any:
            for _ in range(200):
                yield b"x" * 1000

        async with side.session.post(f"{side.url}/v1/items", data=chunks(), headers={
            "content-type": "application/json"
        }) as reply:  # fmt: skip
            assert reply.status == 413
        assert (await side.ask("GET", "/v1/items/7")).status == 200


async def test_a_body_that_does_not_come_is_cut_at_a_deadline() -> None:
    """The connection ends; others are served meanwhile."""
    async with shop_side(limits=Limits(body_s=0.2)) as side:
        reader, writer = await side.connect()
        writer.write(
            b"POST /v1/items HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        assert (await side.ask("GET", "/v1/items/7")).status == 200
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/items HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/items HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_refused(request_: bytes) -> None:
    """With 4xx or a closed connection; the server lives on."""
    async with shop_side() as side:
        reader, writer = await side.connect()
        writer.write(request_)
        answer = await asyncio.wait_for(reader.read(4096), 5)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        writer.close()
        assert (await side.ask("GET", "/v1/items/7")).status == 200


async def test_a_thousand_idle_connections_do_not_hinder_a_call() -> None:
    """They cost memory only, and end by themselves."""
    async with shop_side() as side:
        held = [await side.connect() for _ in range(1_000)]
        async with asyncio.timeout(5):
            assert (await side.ask("GET", "/v1/items/7")).status == 200
        for _, writer in held:
            writer.close()


async def test_a_request_too_many_is_503() -> None:
    """The cap on what is handled at the same time."""
    async with shop_side(limits=Limits(requests=1), timeout=0) as side:
        slow = asyncio.create_task(side.ask("GET", "/v1/items/slow"))
        await asyncio.wait_for(side.shop.entered.wait(), 5)
        answer = await side.ask("GET", "/v1/items/7")
        assert (answer.status, answer.json["reason"]) == (503, "BUSY")
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow


async def test_stop_lets_running_requests_finish_and_refuses_new_ones() -> None:
    """Idle connections are closed at once."""
    entered, gate = asyncio.Event(), asyncio.Event()

    async def waiting(_request: HttpRequest) -> Any:
        entered.set()
        await gate.wait()
        return "done"

    async with shop_side(lambda server: server.get("/wait", waiting)) as side:
        idle, _ = await side.connect()
        running = asyncio.create_task(side.ask("GET", "/wait"))
        await entered.wait()
        stopping = asyncio.create_task(side.server.stop(5))
        assert await idle.read() == b""
        with pytest.raises(OSError, match="Connect"):
            await side.connect()
        gate.set()
        assert (await running).json == "done"
        await stopping


def test_a_rule_that_does_not_fit_its_message_is_refused_at_registration() -> None:
    """Not when the first request comes."""
    from kit.transport.http.binding import Binder, Rule

    method = SERVICE.methods_by_name["Get"]
    for rule in (Rule("GET", "/{nobody}"), Rule("GET", "/{id.x}"), Rule("POST", "/a", "nobody")):
        with pytest.raises(ValueError, match=r"tests\.shop\.v1\.Shop\.Get"):
            Binder(rule, method)
