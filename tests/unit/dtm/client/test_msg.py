"""A message on the wire, against a real gRPC server in the place of the coordinator."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from google.protobuf.empty_pb2 import Empty

from api.trans.v1.trans_pb2 import AdjustInfo
from kit.dtm.barrier import BarrierError, BranchBarrier, barrier_from_grpc
from kit.dtm.client import DtmClient, DtmUnavailable, InvalidCall, Msg, Saga, tcc
from kit.dtm.client.base import BranchIds
from kit.dtm.client.messages import grpc_request
from kit.dtm.core.model import Options
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.pb.dtm_pb2 import DtmBranchRequest, DtmGidReply, DtmRequest, DtmTransOptions
from kit.errors.codes import GrpcCode
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer, RawMetadata, RpcFailed, ServerCall
from kit.transport.grpc.engines import EngineName

EMPTY = Empty().SerializeToString()


class Coordinator:
    """Answers as told and remembers what it was asked; it is the query's server as well."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.requests: list[DtmRequest] = []
        self.registrations: list[DtmBranchRequest] = []
        self.refusals: dict[str, RpcFailed] = {}
        self.query_metadata: RawMetadata = ()
        self.address = ""

    @property
    def query_url(self) -> str:
        return f"{self.address}/busi.Busi/QueryPrepared"

    def server(self) -> GrpcServer:
        server = GrpcServer(address="127.0.0.1:0")

        async def new_gid(request: bytes, _: ServerCall) -> bytes:
            assert request == b""
            return DtmGidReply(Gid="g-1").SerializeToString()

        async def query(request: bytes, call: ServerCall) -> bytes:
            assert request == b""
            self.query_metadata = call.metadata
            return self._answer("query")

        def method(name: str) -> None:
            async def handle(request: bytes, _: ServerCall) -> bytes:
                self.requests.append(DtmRequest.FromString(request))
                return self._answer(name)

            server.register_unary(f"/dtmgimp.Dtm/{name}", handle)

        async def register(request: bytes, _: ServerCall) -> bytes:
            self.registrations.append(DtmBranchRequest.FromString(request))
            return self._answer("RegisterBranch")

        server.register_unary("/dtmgimp.Dtm/NewGid", new_gid)
        server.register_unary("/dtmgimp.Dtm/RegisterBranch", register)
        server.register_unary("/busi.Busi/QueryPrepared", query)
        for name in ("Prepare", "Submit", "Abort"):
            method(name)
        return server

    def _answer(self, name: str) -> bytes:
        self.asked.append(name.lower())
        if refusal := self.refusals.get(name):
            raise refusal
        return EMPTY


@pytest.fixture
async def coordinator(engine: EngineName) -> AsyncIterator[Coordinator]:
    coordinator = Coordinator()
    async with running(coordinator.server()) as address:
        coordinator.address = address
        yield coordinator


@pytest.fixture
async def client(coordinator: Coordinator) -> AsyncIterator[DtmClient]:
    async with DtmClient(coordinator.address) as client:
        yield client


async def test_a_gid_comes_from_the_coordinator(client: DtmClient) -> None:
    """``NewGid``."""
    assert await client.new_gid() == "g-1"


async def test_a_submitted_message_has_go_s_bytes(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """dtm-protocol.md §2.2: steps as JSON text, payloads beside them, options always there."""
    msg = Msg(client, "order 7 ✓", Options(wait_result=True, branch_headers={"token": "t"}))
    msg.add("discovery:///trans/api.trans.v1.Trans/TransOut", AdjustInfo(Amount=30, UserID=1))
    msg.add_topic("paid<&>", b"\x08\x1e")
    await msg.submit()
    (request,) = coordinator.requests
    assert request == DtmRequest(
        Gid="order 7 ✓",
        TransType="msg",
        TransOptions=DtmTransOptions(WaitResult=True, BranchHeaders={"token": "t"}),
        BinPayloads=[b"\x08\x1e\x10\x01", b"\x08\x1e"],
        Steps=(
            '[{"action":"discovery:///trans/api.trans.v1.Trans/TransOut"},'
            '{"action":"topic://paid\\u003c\\u0026\\u003e"}]'
        ),
    )


def test_a_message_without_steps_says_null() -> None:
    """What Go's ``json.Marshal`` makes of a nil slice; the options are sent although all zero."""
    request = grpc_request(Msg(DtmClient("localhost:36790"), "g").request())
    assert request.SerializeToString() == b"\x0a\x01g\x12\x03msg\x1a\x00\x3a\x04null"


@pytest.mark.parametrize(
    ("delay", "concurrent", "text"),
    [
        (0, False, ""),
        (5, False, '{"delay":5}'),
        (5, True, '{"concurrent":true,"delay":5}'),
        (0, True, '{"concurrent":true}'),
    ],
)
def test_custom_data_is_there_when_something_is_asked_for(
    delay: int, concurrent: bool, text: str
) -> None:
    """``delay`` is dtm's, ``concurrent`` our extension."""
    msg = Msg(DtmClient("localhost:36790"), "g", Options(concurrent=concurrent))
    assert msg.delay(delay).request().custom_data == text


def test_times_travel_as_whole_seconds() -> None:
    """``DtmTransOptions``."""
    options = Options(timeout_to_fail=40, retry_interval=11, request_timeout=5)
    sent = grpc_request(Msg(DtmClient("localhost:36790"), "g", options).request())
    assert sent.TransOptions == DtmTransOptions(
        TimeoutToFail=40, RetryInterval=11, RequestTimeout=5
    )


def test_a_payload_that_cannot_be_sent_is_refused_by_its_step() -> None:
    """A dict is what users of the JSON client try first."""
    msg = Msg(DtmClient("localhost:36790"), "g")
    with pytest.raises(TypeError, match="busi/TransIn' is dict"):
        msg.add("busi/TransIn", {"amount": 30})


def test_a_negative_delay_is_refused() -> None:
    """The message names the value."""
    with pytest.raises(ValueError, match="-1"):
        Msg(DtmClient("localhost:36790"), "g").delay(-1)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (GrpcCode.ABORTED, "no FAILURE", Failure),
        (GrpcCode.FAILED_PRECONDITION, "ONGOING", Ongoing),
        (GrpcCode.ABORTED, "ONGOING", Ongoing),
        (GrpcCode.UNAVAILABLE, "branch is down", DtmUnavailable),
        (GrpcCode.INTERNAL, "no TransGlobal", DtmUnavailable),
    ],
)
async def test_an_answer_becomes_the_exception_of_its_class(
    client: DtmClient,
    coordinator: Coordinator,
    status: GrpcCode,
    text: str,
    kind: type[Exception],
) -> None:
    """dtm-protocol.md §1.3: two codes are definite, all others are not."""
    coordinator.refusals["Submit"] = RpcFailed(status, text)
    with pytest.raises(kind, match=text) as raised:
        await Msg(client, "g").submit()
    if isinstance(raised.value, DtmUnavailable):
        assert raised.value.status is status
        assert "same gid" in raised.value.message


@pytest.mark.usefixtures("engine")
async def test_a_coordinator_that_is_not_there_leaves_the_result_unknown() -> None:
    """Nothing listens at port 1."""
    async with DtmClient("127.0.0.1:1", timeout=2) as client:
        with pytest.raises(DtmUnavailable, match=r"NewGid at 127\.0\.0\.1:1"):
            await client.new_gid()


async def _do(msg: Msg, url: str, error: Exception | None) -> list[BranchBarrier]:
    seen: list[BranchBarrier] = []

    async def local(barrier: BranchBarrier) -> None:
        seen.append(barrier)
        if error is not None:
            raise error

    async with AsyncExitStack() as stack:
        if error is not None:
            stack.enter_context(pytest.raises(type(error), check=lambda raised: raised is error))
        await msg.do_and_submit(url, local)
    return seen


async def test_do_and_submit_prepares_runs_and_submits(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """dtm-protocol.md §13.3, step 2."""
    seen = await _do(Msg(client, "g"), coordinator.query_url, None)
    assert seen == [BranchBarrier("msg", "g", "00", "msg")]
    assert coordinator.asked == ["prepare", "submit"]
    assert {request.QueryPrepared for request in coordinator.requests} == {coordinator.query_url}


async def test_do_and_submit_runs_nothing_when_prepare_fails(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """Step 1."""
    coordinator.refusals["Prepare"] = RpcFailed(GrpcCode.ABORTED, "no")
    ran: list[BranchBarrier] = []

    async def local(barrier: BranchBarrier) -> None:
        ran.append(barrier)

    with pytest.raises(Failure):
        await Msg(client, "g").do_and_submit(coordinator.query_url, local)
    assert ran == []


async def test_do_and_submit_aborts_on_failure_and_ignores_its_answer(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """Step 3."""
    coordinator.refusals["Abort"] = RpcFailed(GrpcCode.INTERNAL, "storage")
    await _do(Msg(client, "g"), coordinator.query_url, Failure("no money"))
    assert coordinator.asked == ["prepare", "abort"]


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (None, ["submit"]),
        (RpcFailed(GrpcCode.ABORTED, "FAILURE"), ["abort"]),
        (RpcFailed(GrpcCode.FAILED_PRECONDITION, "ONGOING"), []),
        (RpcFailed(GrpcCode.UNAVAILABLE, "database"), []),
    ],
)
async def test_do_and_submit_asks_whether_an_unclear_failure_committed(
    client: DtmClient, coordinator: Coordinator, answer: RpcFailed | None, then: list[str]
) -> None:
    """Step 4; the error of the local transaction is raised in every case."""
    if answer is not None:
        coordinator.refusals["query"] = answer
    msg = Msg(client, "g", Options(branch_headers={"Token": "t"}))
    await _do(msg, coordinator.query_url, LookupError("connection lost at commit"))
    assert coordinator.asked == ["prepare", "query", *then]
    sent = dict(coordinator.query_metadata)
    assert {key: sent[key] for key in sent if key.startswith("dtm-")} == {
        "dtm-gid": "g",
        "dtm-trans_type": "msg",
        "dtm-branch_id": "00",
        "dtm-op": "msg",
        "dtm-dtm": coordinator.address,
    }
    assert sent["token"] == "t"


async def test_do_and_submit_raises_the_local_error_although_the_query_url_is_bad(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """Then the coordinator decides."""
    await _do(Msg(client, "g"), "nowhere", LookupError("lost"))
    assert coordinator.asked == ["prepare"]


def test_a_barrier_is_read_from_metadata() -> None:
    """dtm-protocol.md §7.3."""
    metadata = [
        ("dtm-gid", "g"),
        ("dtm-trans_type", "saga"),
        ("dtm-branch_id", "01"),
        ("dtm-op", "action"),
    ]
    assert barrier_from_grpc(metadata) == BranchBarrier("saga", "g", "01", "action")


def test_a_barrier_names_the_ids_that_are_missing() -> None:
    """Empty ones count as missing."""
    with pytest.raises(BarrierError, match="dtm-branch_id, dtm-op missing") as raised:
        barrier_from_grpc([("dtm-gid", "g"), ("dtm-trans_type", "msg"), ("dtm-op", "")])
    assert raised.value.code == 400


async def test_a_concurrent_saga_has_go_s_bytes(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """§2.2 and §13.2: concurrency travels in the custom data, there is no option for it."""
    saga = Saga(client, "g").concurrent().add_branch_order(1, [0])
    saga.add("a:1/busi.Busi/Out", "a:1/busi.Busi/OutBack", b"\x08\x1e")
    saga.add("a:1/busi.Busi/In")
    await saga.submit()
    (request,) = coordinator.requests
    assert request == DtmRequest(
        Gid="g",
        TransType="saga",
        TransOptions=DtmTransOptions(),
        CustomedData='{"concurrent":true,"orders":{"1":[0]}}',
        BinPayloads=[b"\x08\x1e", b""],
        Steps=(
            '[{"action":"a:1/busi.Busi/Out","compensate":"a:1/busi.Busi/OutBack"},'
            '{"action":"a:1/busi.Busi/In","compensate":""}]'
        ),
    )


def test_orders_are_those_of_earlier_steps_that_are_there() -> None:
    """The message names step and range."""
    client = DtmClient("localhost:36790")
    with pytest.raises(InvalidCall, match=r"predecessors of step 1: \[1\] are not all from 0 to 0"):
        Saga(client, "g").add_branch_order(1, [1])
    with pytest.raises(InvalidCall, match="order of step 3: there are 1 steps"):
        Saga(client, "g").add("a:1/S/M").concurrent().add_branch_order(3, [0]).request()


async def test_a_tcc_registers_and_ends_in_go_s_bytes(
    client: DtmClient, coordinator: Coordinator
) -> None:
    """§13.4: URLs in ``Data``, the payload beside them; the abort says why."""
    url = f"{coordinator.address}/busi.Busi/"
    coordinator.refusals["query"] = RpcFailed(GrpcCode.ABORTED, "no money")
    with pytest.raises(Failure):
        async with tcc(client, "g") as t:
            await t.call_branch(b"", f"{url}QueryPrepared", f"{url}Ok", f"{url}Undo")
    assert coordinator.asked == ["prepare", "registerbranch", "query", "abort"]
    assert coordinator.registrations == [
        DtmBranchRequest(
            Gid="g",
            TransType="tcc",
            BranchID="01",
            Data={"confirm": f"{url}Ok", "cancel": f"{url}Undo"},
        )
    ]
    prepare, abort = coordinator.requests
    empty = DtmRequest(Gid="g", TransType="tcc", TransOptions=DtmTransOptions(), Steps="null")
    assert prepare == empty
    empty.RollbackReason = "no money"
    assert abort == empty


@pytest.mark.parametrize(
    ("gid", "words"),
    [("x" * 129, "129 characters"), ("a\nb", "not printable"), (7, "is int")],
)
def test_a_gid_that_cannot_be_kept_is_refused(gid: str, words: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidCall, match=f"gid: .*{words}"):
        Msg(DtmClient("localhost:36790"), gid)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(timeout_to_fail=-1), "timeout_to_fail: -1 is negative"),
        (Options(retry_interval=1.5), "retry_interval: 1.5 is not a whole number"),  # type: ignore[arg-type]
        (Options(branch_headers={"a": 1}), "'a'.*: int cannot be a header"),  # type: ignore[dict-item]
    ],
)
def test_options_that_cannot_travel_are_refused(options: Options, words: str) -> None:
    """The message names the option."""
    with pytest.raises(InvalidCall, match=words):
        Msg(DtmClient("localhost:36790"), "g", options)


async def test_grpc_alone_cannot_be_queried(client: DtmClient) -> None:
    """The message says which address is missing."""
    with pytest.raises(InvalidCall, match=r"DtmClient.*http="):
        await client.query("g")


@pytest.mark.parametrize("server", ["http://", "http://h:x/api", "nowhere:"])
def test_an_address_that_cannot_be_understood_is_refused(server: str) -> None:
    """When the client is made, not when it is used."""
    with pytest.raises(ValueError, match=r"http://host:port|nowhere"):
        DtmClient(server)


def test_a_branch_that_http_cannot_call_is_refused() -> None:
    """§7.1: a transaction of protocol http has HTTP branches only."""
    client = DtmClient("http://localhost:36789/api/dtmsvr")
    with pytest.raises(InvalidCall, match="action of step 1: 'a:1/S/M' does not start with http"):
        Saga(client, "g").add("a:1/S/M")


def test_a_branch_has_99_children_and_ids_of_20_characters() -> None:
    """dtm-protocol.md §6.2."""
    ids = BranchIds("01" * 9)
    assert [ids.next() for _ in range(99)][-1] == "01" * 9 + "99"
    with pytest.raises(InvalidCall, match="branch id is larger than 99"):
        ids.next()
    with pytest.raises(InvalidCall, match="total branch id is longer than 20"):
        BranchIds("01" * 10).next()
