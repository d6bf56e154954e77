"""The synchronous facade: plain threads, Flask, and a database whose driver is not awaited."""

import asyncio
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from flask import Flask, Response, request
from werkzeug.serving import make_server

from kit.dtm.barrier import BranchBarrier
from kit.dtm.barrier.table import create_table
from kit.dtm.client import InvalidCall, Options, UnknownTransaction, sync
from kit.dtm.errors import Failure
from kit.testing import Coordinator
from tests.conformance.client.business import Business
from tests.conformance.client.conftest import address

T = TypeVar("T")
WAIT = Options(wait_result=True)
NO = Failure("no money")


async def in_thread(fn: Callable[[], T]) -> T:
    """What ``fn`` gives in a thread without a loop, while ours serves."""
    return await asyncio.to_thread(fn)


@pytest.fixture(params=["grpc", "http", "json-rpc"])
async def client(
    dtm: Coordinator, business: Business, request: pytest.FixtureRequest
) -> AsyncIterator[sync.DtmClient]:
    """Over each API; HTTP branches can be called from all of them."""
    business.scheme = "http"
    client = sync.DtmClient(address(dtm, request.param), http=dtm.http_url)
    yield client
    await in_thread(client.close)
    await in_thread(client.close)


async def test_every_kind_of_transaction_from_a_thread(
    client: sync.DtmClient, business: Business
) -> None:
    """The same names as in the awaited client, without await."""
    business.script("in", NO)

    def work() -> None:
        msg = sync.Msg(client, "sync-1", WAIT).delay(0).add(business.url("out"), {"a": 1})
        msg.submit()
        assert client.wait(msg.gid).succeeded
        assert [state.status for state in client.watch("sync-1")] == ["succeed"]
        saga = sync.Saga(client, options=WAIT)
        saga.add(business.url("in"), business.url("in-undo"), {"a": 2})
        with pytest.raises(Failure, match="no money"):
            saga.submit()
        assert client.query(saga.gid).status == "failed"
        with sync.tcc(client, options=WAIT) as t:
            reply = t.call_branch({"a": 3}, business.url("try"), business.url("confirm"))
            assert reply.data == b"OK"
        with sync.xa(client, options=WAIT) as x:
            x.call_branch({"a": 4}, business.url("xa"))
        with pytest.raises(UnknownTransaction):
            client.query("nobody")

    await in_thread(work)
    assert business.names() == ["out", "in", "in-undo", "try", "confirm", "xa"]


async def test_an_error_in_a_tcc_block_cancels(client: sync.DtmClient, business: Business) -> None:
    """Ctrl-C as well as any other."""

    def work() -> str:
        with (  # noqa: PT012
            pytest.raises(KeyboardInterrupt),
            sync.tcc(client, options=WAIT) as t,
        ):
            t.call_branch({"a": 3}, business.url("try"), "", business.url("cancel"))
            raise KeyboardInterrupt
        return t.gid

    gid = await in_thread(work)
    assert business.names() == ["try", "cancel"]
    assert (await in_thread(lambda: client.query(gid))).status == "failed"


async def test_do_and_submit_runs_in_the_calling_thread(
    client: sync.DtmClient, business: Business
) -> None:
    """It may use the client itself, and its errors are raised."""

    def work() -> None:
        threads: list[int] = []

        def local(barrier: BranchBarrier) -> None:
            threads.append(threading.get_ident())
            assert client.query(barrier.gid).status == "prepared"

        msg = sync.Msg(client, options=WAIT).add(business.url("out"), {"a": 1})
        msg.do_and_submit(business.url("query"), local)
        assert threads == [threading.get_ident()]

        def refuse(_: BranchBarrier) -> None:
            raise NO

        refused = sync.Msg(client).add(business.url("in"))
        with pytest.raises(Failure, check=lambda raised: raised is NO):
            refused.do_and_submit(business.url("query"), refuse)
        assert client.query(refused.gid).status == "failed"

        def interrupted(_: BranchBarrier) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sync.Msg(client).add(business.url("in")).do_and_submit("http://x/", interrupted)

    await in_thread(work)
    assert business.names() == ["out"]


async def test_do_and_submit_db_commits_with_the_barrier(
    client: sync.DtmClient, business: Business, tmp_path: Path
) -> None:
    """§13.3, DoAndSubmitDB: the row of the business and that of the barrier, or neither."""

    def work() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(tmp_path / "bank.db", isolation_level=None)) as connection:
            create_table(connection)
            connection.execute("CREATE TABLE account (cents INTEGER)")
            msg = sync.Msg(client, "sync-db", WAIT).add(business.url("out"), {"a": 1})
            msg.do_and_submit_db(
                business.url("query"),
                connection,
                lambda: connection.execute("INSERT INTO account VALUES (30)"),
            )
            sql = "SELECT cents, gid, op FROM account, dtm_barrier"
            return connection.execute(sql).fetchall()

    assert await in_thread(work) == [(30, "sync-db", "msg")]
    assert business.names() == ["out"]


async def test_many_threads_share_a_client(client: sync.DtmClient, business: Business) -> None:
    """As those of a threaded server."""

    def work(number: int) -> str:
        msg = sync.Msg(client, f"thread-{number}", WAIT)
        msg.add(business.url("out"), {"number": number}).submit()
        return msg.gid

    gids = await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(20)))
    assert sorted(call.ids["gid"] for call in business.heard) == sorted(gids)


async def test_a_forked_process_connects_anew(dtm: Coordinator) -> None:
    """As the workers of a server that loaded the application before it forked."""
    client = sync.DtmClient(dtm.http_url)

    def work() -> int:
        client.new_gid()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # no assertion may leave here: there is a test runner in this copy
            signal.alarm(60)  # a thread of the parent may have held a lock
            try:
                os.write(writing, client.new_gid().encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            return len(pipe.read())

    assert await in_thread(work) > 10
    await in_thread(client.close)


async def test_a_loop_is_not_blocked_unawares(client: sync.DtmClient) -> None:
    """The error says what to use instead."""
    with pytest.raises(InvalidCall, match=r"use the classes of kit\.dtm\.client"):
        client.new_gid()


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """``app`` on a free port, each request in a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("api", ["grpc", "http"])
async def test_a_flask_application_has_workflows(
    dtm: Coordinator, business: Business, api: str
) -> None:
    """The coordinator calls back the route, and each step is done once, in the request's thread."""
    business.scheme = "http"
    app = Flask(__name__)
    done: Counter[str] = Counter()
    crashes: list[Exception] = [LookupError("the process dies here")]
    fails = [NO]
    client = sync.DtmClient(address(dtm, api), http=dtm.http_url)
    with served(app) as url:
        workflows = sync.Workflows(client, f"{url}/workflow")

        @app.route("/workflow", methods=["GET", "POST"])
        def workflow() -> Response:
            result = workflows.execute_by_query(request.args, request.get_data())
            return Response(result.body, result.status, content_type="application/json")

        @workflows.register("transfer")
        def transfer(wf: sync.Workflow, data: bytes) -> bytes:
            def undo(phase: sync.Phase) -> None:
                done[f"undo {threading.get_ident() == thread}"] += 1
                phase.post(business.url("out-undo"))

            def local(barrier: BranchBarrier) -> bytes:
                assert threading.get_ident() == thread
                done["local"] += 1
                return barrier.branch_id.encode()

            thread = threading.get_ident()
            branch = wf.new_branch().on_rollback(undo)
            branch.post(business.url("out"), {"data": data.decode()})
            given = (
                wf.new_branch().on_finish(lambda _, back: done.update([f"end {back}"])).do(local)
            )
            if crashes:
                raise crashes.pop()
            if data == b"fail" and fails:
                raise fails[0]
            return given

        def begin() -> None:
            with pytest.raises(LookupError):
                workflows.execute("transfer", "flask-1", b"go")

        await in_thread(begin)
        await dtm.advance(30)
        assert (await in_thread(lambda: client.wait("flask-1"))).result == b"02"
        assert done == {"local": 1, "end False": 1}
        assert business.names() == ["out"]

        def fail() -> None:
            with pytest.raises(Failure, match="no money"):
                workflows.execute("transfer", "flask-2", b"fail")

        await in_thread(fail)
        assert done == {"local": 2, "end False": 1, "end True": 1, "undo True": 1}
        with pytest.raises(InvalidCall, match="'transfer' exists already"):
            workflows.register("transfer")
        await in_thread(client.close)
