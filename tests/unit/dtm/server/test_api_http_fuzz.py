"""Whatever is sent, the answer is one of the specification's, and nothing breaks inside."""

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kit.dtm.core import Policy
from kit.dtm.server.engine import Engine
from kit.dtm.server.gid import new_gid
from kit.dtm.server.http_app import Message
from kit.dtm.server.http_json import BadJson, Object, encode
from kit.dtm.server.metrics import Metrics
from kit.dtm.server.service import Service
from kit.dtm.server.web import web_app
from kit.dtm.store.memory import MemoryStore
from kit.testing import ManualClock
from tests.unit.dtm.server.http_side import BASE, Branches

SPEC_500 = (
    "no TransGlobal with gid: ",
    "no gid specified",
    "convert to int error: ",
    "storage: ",
    "empty topic",
    "empty url",
    "this url exists",
    "no such a topic",
    "this topic is empty",
    "no such an url ",
)
"""The texts that dtm answers with 500, spec §3 and §18.2."""

POSTS = [
    "prepare", "submit", "abort", "forceStop", "registerBranch", "registerTccBranch",
    "prepareWorkflow", "resetNextCronTime",
]  # fmt: skip
GETS = [
    "query", "all", "resetCronTime", "subscribe", "unsubscribe", "scanKV", "queryKV", "newGid",
]  # fmt: skip
FIELDS = [
    "gid", "trans_type", "steps", "payloads", "query_prepared", "protocol", "custom_data",
    "wait_result", "timeout_to_fail", "retry_interval", "request_timeout", "branch_headers",
    "concurrent", "retry_limit", "rollback_reason", "req_extra", "status", "branch_id", "data",
    "confirm", "cancel", "url", "op", "action", "compensate", "GID", "Steps", "delay",
]  # fmt: skip
WORDS = [
    "g1", "msg", "saga", "tcc", "xa", "workflow", "http", "grpc", "json-rpc", "", "01", "action",
    "succeed", "failed", "http://b.test/in", "h:1/s/M", "topic://t", '{"delay":1}', "{}", "null",
    '{"name":"w","data":null}', '{"orders":{"0":[1]},"concurrent":true}', "\0", "\ud800", "a\r\n;",
]  # fmt: skip
QUERIES = [
    "gid", "position", "limit", "status", "transType", "createTimeStart", "createTimeEnd",
    "timeout", "topic", "url", "remark", "cat", "key",
]  # fmt: skip

texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(0, 5), st.floats(), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(FIELDS), texts), inner, max_size=4),
    ),
    max_leaves=12,
)
nearly = st.fixed_dictionaries(
    {
        "gid": st.sampled_from(["g1", "g2"]),
        "trans_type": st.sampled_from(["msg", "saga", "tcc", "xa", "workflow"]),
    },
    optional={name: values for name in FIELDS if name not in ("gid", "trans_type")},
)
bodies = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda value: json.dumps(value).encode(), st.one_of(values, nearly)),
    st.builds(
        lambda value, cut, more: json.dumps(value).encode()[:cut] + more,
        nearly,
        st.integers(0, 60),
        st.binary(max_size=8),
    ),
)
params = st.lists(
    st.tuples(st.sampled_from(QUERIES), st.one_of(texts, st.integers().map(str))), max_size=4
)


class Client:
    """Calls an application without a socket; answers of a whole story come from one store."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.fresh()

    def fresh(self) -> None:
        clock = ManualClock()
        store = MemoryStore(clock)
        self.engine = Engine(store, Branches(), clock, Policy(), owner="one")
        service = Service(self.engine, store, clock, new_gid=lambda: new_gid(clock.now_ms()))
        self._app = web_app(service, Metrics())

    def ask(
        self, method: str, path: str, query: bytes = b"", body: bytes = b""
    ) -> tuple[int, object]:
        return self._runner.run(self._ask(method, path, query, body))

    async def _ask(self, method: str, path: str, query: bytes, body: bytes) -> tuple[int, object]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query, "headers": [],
        }  # fmt: skip
        await self._app(scope, receive, send)
        data = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(data)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with asyncio.Runner() as runner:
        yield Client(runner)


def check(status: int, answer: object) -> None:
    assert isinstance(answer, dict)
    if status == 500:
        message = answer["message"]
        assert message.startswith(SPEC_500), message
    elif status != 200:
        assert status in (400, 409, 425), status
        assert answer["message"]


quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(calls=st.lists(st.tuples(st.sampled_from(POSTS), bodies), min_size=1, max_size=4))
def test_no_body_makes_the_server_fail(client: Client, calls: list[tuple[str, bytes]]) -> None:
    """400, 409 and 425 for what is refused; 500 only with the texts that dtm has for it."""
    client.fresh()
    for name, body in calls:
        check(*client.ask("POST", f"{BASE}/{name}", body=body))
        status, _ = client.ask("GET", f"{BASE}/all")
        assert status == 200


@quick
@given(
    name=st.sampled_from(GETS),
    query=st.one_of(
        params.map(lambda p: urlencode(p, errors="replace").encode()), st.binary(max_size=30)
    ),
)
def test_no_query_makes_the_server_fail(client: Client, name: str, query: bytes) -> None:
    """The same for what stands behind the question mark."""
    check(*client.ask("GET", f"{BASE}/{name}", query))


@quick
@given(
    body=st.one_of(
        bodies,
        st.builds(
            lambda method, params: json.dumps(
                {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
            ).encode(),
            st.sampled_from(["newGid", "prepare", "submit", "abort", "registerBranch", "x"]),
            st.one_of(values, nearly),
        ),
    )
)
def test_no_json_rpc_call_makes_the_server_fail(client: Client, body: bytes) -> None:
    """Every reply has the four keys and a code of the specification."""
    client.fresh()
    status, answer = client.ask("POST", "/api/json-rpc", body=body)
    assert isinstance(answer, dict)
    assert list(answer) == ["error", "id", "jsonrpc", "result"]
    error = answer["error"]
    assert (status == 400) == (error is not None and error["code"] == -32700)
    if error is not None:
        assert error["code"] in (-32700, -32600, -32601, -32603, -32901)
        assert "internal error" not in error["message"]


@quick
@given(value=values, field=st.sampled_from(FIELDS))
@example(value={"gid": "\ud800"}, field="gid")
def test_reading_gives_the_type_that_was_asked_for_or_a_complaint_that_can_be_sent(
    value: object, field: str
) -> None:
    """Texts that were read can be stored, and complaints can be encoded."""
    body = Object({field.lower(): value})
    readers = (body.text, body.integer, body.boolean, body.texts, body.text_map, body.text_maps)
    for reader in readers:
        complaint = ""
        try:
            read = reader(field.lower())
        except BadJson as error:
            complaint = str(error)
        else:
            assert "\\u0000" not in encode(read).decode()
        assert not complaint or field.lower() in complaint
        encode({"message": complaint})


@quick
@given(value=values.filter(lambda v: "NaN" not in json.dumps(v) and "Inf" not in json.dumps(v)))
def test_what_is_written_can_be_read_back_and_holds_no_markup(value: object) -> None:
    """Escapes change the text, never the value."""
    clean = json.loads(json.dumps(value).encode("utf-8", "replace"))
    try:
        text = encode({"value": clean})
    except UnicodeEncodeError:
        return  # a lone surrogate: whoever reads bodies has replaced it
    assert not set(b"<>&") & set(text)
    assert json.loads(text) == {"value": clean}
