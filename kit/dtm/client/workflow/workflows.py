"""The workflows of a process: registered by name, executed, and called back by the coordinator.

Source: dtm-labs/dtm client/workflow/factory.go, server.go, rpc.go.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from aiohttp import web

from kit import log
from kit.dtm.barrier import barrier_from_grpc
from kit.dtm.client.checks import check_gid, check_options, check_url
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import InvalidCall, UnknownWorkflow
from kit.dtm.client.exchange import JSON
from kit.dtm.client.http import bytes_of
from kit.dtm.client.messages import Operation, TransRequest, go_json
from kit.dtm.client.payloads import HTTP_SCHEMES, Payload, check_text, data_bytes
from kit.dtm.client.tracing import trace_headers
from kit.dtm.client.workflow.calls import definite
from kit.dtm.client.workflow.flow import Workflow
from kit.dtm.client.workflow.progress import Progress
from kit.dtm.core.model import Options
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.pb.dtm_pb2 import WorkflowData
from kit.dtm.wire import WORKFLOW_EXECUTE, BranchStatus, Op, Protocol, Status, TransType
from kit.errors import Error
from kit.transport.grpc import GrpcServer, ServerCall

_log = log.get_logger()

Code: TypeAlias = Callable[[Workflow, bytes], Awaitable[Payload]]
"""What a workflow is: takes its data as bytes; what it returns is its result, see ``execute``."""

F = TypeVar("F", bound=Code)


@dataclass(frozen=True, slots=True)
class HttpResult:
    """What the coordinator's callback over HTTP is to be answered; the body is JSON."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Registered:
    code: Code
    options: Options
    compensate_error_branch: bool
    labels: bool


class Workflows:
    """Workflows by name, on one coordinator.

    ::

        workflows = Workflows(client, "localhost:9000")
        workflows.serve_on(grpc_server)          # which listens there

        @workflows.register("transfer")
        async def transfer(wf: Workflow, data: bytes) -> None:
            ...

        await workflows.execute("transfer", "order-7", {"amount": 30})

    Args:
        client: over gRPC or HTTP.
        callback: where the coordinator finds these workflows: the target at which
            :meth:`serve_on`'s server is, which a ``client`` over gRPC can give, or the URL whose
            route calls :meth:`execute_by_query`.
        options: what is asked of the coordinator for every workflow. A callback has to answer
            within ``request_timeout``, 3 s by default.

    Raises:
        InvalidCall: ``client`` speaks JSON-RPC, or cannot be called back at ``callback``.
    """

    def __init__(self, client: DtmClient, callback: str, *, options: Options | None = None) -> None:
        if client.protocol is Protocol.JSON_RPC:
            raise InvalidCall(
                f"client: dtm's JSON-RPC API at {client.server} has no workflows; give DtmClient "
                "the gRPC address of the coordinator, or http://…/api/dtmsvr"
            )
        check_url("callback", callback, client.protocol)
        over_http = callback.startswith(HTTP_SCHEMES)
        if not over_http and not callback.endswith(WORKFLOW_EXECUTE):
            callback = f"{callback.rstrip('/')}{WORKFLOW_EXECUTE}"
        self._client = client
        self._callback = callback
        self._options = check_options(options or Options())
        self._registered: dict[str, _Registered] = {}
        self._running: set[str] = set()

    def register(
        self,
        name: str,
        *,
        options: Options | None = None,
        compensate_error_branch: bool = False,
        labels: bool = False,
    ) -> Callable[[F], F]:
        """A decorator that makes a function the workflow ``name``.

        Args:
            name: the same in every process that may resume it.
            options: laid over those of all workflows.
            compensate_error_branch: a branch that said no is rolled back as well.
            labels: what a step gave is recorded with the path that was called, or the name of the
                function that was done: changed code is then noticed at the first step that is
                another. Go's client does not know them; leave it on, or off, while workflows run.

        Raises:
            InvalidCall: the name is taken or empty.
        """
        if not name or not isinstance(name, str):
            raise InvalidCall(f"name: {name!r} is no name; write @workflows.register('transfer')")
        if name in self._registered:
            raise InvalidCall(f"name: a workflow '{name}' exists already; choose another name")
        laid = self._options.overlaid(check_options(options or Options()))

        def keep(code: F) -> F:
            self._registered[name] = _Registered(code, laid, compensate_error_branch, labels)
            return code

        return keep

    async def execute(self, name: str, gid: str, data: Payload = None) -> bytes:
        """Run the workflow ``name``, or resume the one that has ``gid``; give its result.

        Steps that are recorded are not done again. One that has ended is not run at all.

        Args:
            name: it is registered under.
            gid: any text that is unique, such as the number of an order.
            data: the same whenever it is resumed; a message is encoded, all else is JSON.

        Returns:
            What the code returned, as bytes. dtm's gRPC API does not say it of a workflow that had
            ended before; then it is empty.

        Raises:
            Failure: it failed, now or before, and was rolled back; the message is the reason.
            Ongoing: a step is not done yet, or this process is running it already; the coordinator
                calls back.
            UnknownWorkflow: nothing is registered under ``name``.
            WorkflowChanged: what is recorded does not fit the code.
            DtmUnavailable: the coordinator or a branch did not answer. As after any other error the
                coordinator calls back, or the caller executes it again.
        """
        return await self._execute(name, check_gid(gid), data_bytes(data, "data"))

    async def execute_by_query(self, query: Mapping[str, str], body: bytes) -> HttpResult:
        """Execute the workflow that a callback over HTTP names; for a route of any framework.

        Args:
            query: of the request: ``op`` is the name, ``gid`` the transaction.
            body: of the request, the data.

        Source: dtm-labs/dtm client/workflow/workflow.go (ExecuteByQS), client/dtmcli/utils.go
        (Result2HttpJSON).
        """
        try:
            await self._resume(query.get("op", ""), query.get("gid", ""), body)
        except Exception as exc:  # noqa: BLE001 - every error is the answer's
            return _refusal(query.get("gid", ""), exc)
        return HttpResult(200, b'{"dtm_result":"SUCCESS"}')

    async def aiohttp_handler(self, request: web.Request) -> web.Response:
        """:meth:`execute_by_query` as a route of aiohttp, for any method."""
        result = await self.execute_by_query(request.query, await request.read())
        return web.Response(status=result.status, body=result.body, content_type=JSON)

    def serve_on(self, server: GrpcServer) -> None:
        """Serve ``workflow.Workflow``, which the coordinator calls back.

        Raises:
            InvalidCall: the coordinator was told to call back over HTTP.
        """
        if self._callback.startswith(HTTP_SCHEMES):
            raise InvalidCall(
                f"serve_on: the coordinator calls back over HTTP; route {self._callback} to "
                "execute_by_query or aiohttp_handler"
            )
        server.register_unary(WORKFLOW_EXECUTE, self._serve)

    async def _serve(self, request: bytes, call: ServerCall) -> bytes:
        ids = barrier_from_grpc(call.metadata)
        await self._resume(ids.op, ids.gid, WorkflowData.FromString(request).Data)
        return b""

    async def _resume(self, name: str, gid: str, data: bytes) -> None:
        """Execute for the coordinator, which keeps no errors: those for people are logged."""
        try:
            await self._execute(name, check_gid(gid), data)
        except (Failure, Ongoing):
            raise
        except Error as exc:
            _log.warning("[dtm] workflow %s gid %s: %s", name, gid, exc.message)
            raise

    async def _execute(self, name: str, gid: str, data: bytes) -> bytes:
        registered = self._registered.get(name)
        if registered is None:
            raise UnknownWorkflow(name)
        if gid in self._running:
            raise Ongoing(f"workflow '{name}' gid {gid} is running in this process")
        self._running.add(gid)
        try:
            return await self._run(registered, name, gid, data)
        finally:
            self._running.discard(gid)

    async def _run(self, registered: _Registered, name: str, gid: str, data: bytes) -> bytes:
        request = self._request(registered.options, name, gid, data)
        state = await self._client.prepare_workflow(request)
        match state.status:
            case Status.SUCCEED:
                return bytes_of({"result": state.result}, "result")
            case Status.FAILED:
                raise Failure(state.rollback_reason)
            case _:
                pass
        flow = Workflow(
            self._client,
            name,
            gid,
            Progress(name, gid, state.steps),
            request.options,
            compensate_error_branch=registered.compensate_error_branch,
            labels=registered.labels,
        )
        result = b""
        failure: Failure | None = None
        try:
            result = data_bytes(await registered.code(flow, data), f"result of workflow '{name}'")
        except Exception as exc:
            meant = definite(exc)
            if meant is not exc and not isinstance(meant, Failure):
                raise meant from exc
            if not isinstance(meant, Failure):
                raise
            failure = meant
        await flow.end(Op.COMMIT if failure is None else Op.ROLLBACK)
        await self._client.send(Operation.SUBMIT, _ended(request, result, failure))
        if failure is not None:
            raise failure
        return result

    def _request(self, options: Options, name: str, gid: str, data: bytes) -> TransRequest:
        if self._client.protocol is Protocol.HTTP:
            check_text(data, f"data of workflow '{name}'")
        if trace := trace_headers():
            options = replace(options, branch_headers={**trace, **options.branch_headers})
        encoded = base64.b64encode(data).decode() if data else None
        return TransRequest(
            gid,
            TransType.WORKFLOW,
            options,
            query_prepared=self._callback,
            custom_data=go_json({"name": name, "data": encoded}),
        )


def _ended(request: TransRequest, result: bytes, failure: Failure | None) -> TransRequest:
    """The Submit that ends a workflow."""
    status = BranchStatus.SUCCEED if failure is None else BranchStatus.FAILED
    extra = {
        "status": str(status),
        "rollback_reason": "" if failure is None else failure.message,
        "result": base64.b64encode(result).decode(),
    }
    return replace(request, req_extra=extra, bare=True)


def _refusal(gid: str, exc: Exception) -> HttpResult:
    status = exc.code if isinstance(exc, Failure | Ongoing) else 500
    text = exc.message if isinstance(exc, Error) else "internal error"
    if not isinstance(exc, Error):
        _log.error("[dtm] workflow gid %s failed", gid, exc_info=exc)
    return HttpResult(status, go_json({"error": text}).encode())
