"""Transactions of every mode, their clients, and the business they are about.

A client goes on until it is done, or until its coordinator does not answer; what it was told is
written into a :class:`~tests.faults.histories.History`, as is every call that a branch gets.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio

from tests.conformance.dtm.business import FAILURE, SUCCESS, Answer, Business, Heard
from tests.conformance.dtm.clients import ERROR, PAYLOAD, GrpcApi, Reply, Tx, text64
from tests.faults.histories import ANY, FAILED, SUCCEED, Asked, History, Stored, Told

MODES = (
    "msg",
    "saga",
    "saga-rollback",
    "saga-fickle",
    "tcc",
    "tcc-cancel",
    "xa",
    "xa-rollback",
    "workflow",
)
"""Each with the way it ends; a fickle saga's last step says FAILURE first and SUCCESS later, so its
end is open until the FAILURE is stored, and settled from then on.
"""

_ENDS = {"": SUCCEED, "fickle": ANY}

STEPS = ("01", "02")
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
_CANCELLED = grpc.StatusCode.CANCELLED.value[0]
_DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_NO_ANSWER = (_UNAVAILABLE, _CANCELLED, _DEADLINE)


class Participants(Business):
    """The business: ``refuse`` says FAILURE, ``fickle`` once, ``Execute`` resumes a workflow.

    Attributes:
        history: of the run.
        resume: takes a workflow up again for its client.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self.resume: Callable[[str], Awaitable[None]] | None = None

    async def answer(self, call: Heard) -> Answer:
        """Write the call down as answered before the answer leaves: who is killed then knows it."""
        if call.name == "Execute":
            await super().answer(call)
            if self.resume is not None:
                await self.resume(call.gid)
            return SUCCESS
        if call.name == "query":
            return await super().answer(call)
        scripted = (call.gid, call.name) in self._scripts
        answer = await super().answer(call)
        if call.name == "refuse" and not scripted:
            answer = FAILURE
        if call.name == "fickle" and len(self.calls(call.gid, "fickle")) == 1:
            answer = FAILURE
        self.did(call.gid, call.branch_id, call.op, success=answer.status == 200)
        return answer

    def did(self, gid: str, branch_id: str, op: str, *, success: bool = True) -> None:
        """A branch did something."""
        self.history.asked.append(Asked(gid, branch_id, op, success))


class Gone(Exception):
    """The coordinator does not answer."""


class Refused(Exception):
    """The coordinator says no to what is right."""


class Client:
    """Runs transactions against one coordinator; the workflow side of a business as well."""

    def __init__(self, api: GrpcApi, business: Participants) -> None:
        self.api = api
        self.business = business
        self.history = business.history

    async def run(self, gid: str, mode: str, *, leave: bool = False) -> bool:
        """One transaction; whether it got to its end.

        Args:
            leave: a workflow, or a msg: its client dies in the middle and never comes back.
        """
        name, _, way = mode.partition("-")
        told = Told(gid, name, _ENDS.get(way, FAILED))
        self.history.told[gid] = told
        return await self._carry(told, leave=leave)

    async def _carry(self, told: Told, *, leave: bool) -> bool:
        try:
            await getattr(self, f"_{told.mode}")(told, leave=leave)
        except Gone:
            return False
        except Refused as refusal:
            told.refused = str(refusal)
        return True

    async def resume(self, gid: str) -> None:
        """Go on with a workflow that its coordinator calls back about."""
        await self._carry(self.history.told[gid], leave=False)

    async def _heard(self, asking: Awaitable[Reply], *accepted: str) -> Reply:
        reply = await asking
        if reply.word == ERROR and reply.code in _NO_ANSWER:
            raise Gone
        if reply.word != "SUCCESS" and not any(text in reply.text for text in accepted):
            raise Refused(reply)
        return reply

    async def _decide(self, told: Told, asking: Awaitable[Reply]) -> None:
        told.decided = True
        await self._heard(asking)
        told.acknowledged = told.stored = True

    async def _prepare(self, told: Told, tx: Tx) -> None:
        await self._heard(self.api.prepare(tx))
        told.stored = True

    async def _msg(self, told: Told, *, leave: bool) -> None:
        """Submitted; or prepared, and its sender says that it means it when it is asked."""
        url = self.business.grpc
        tx = Tx(told.gid, "msg", [{"action": url("a")}, {"action": url("b")}])
        if leave:
            tx = Tx(told.gid, "msg", tx.steps, query_prepared=url("query"))
            await self._prepare(told, tx)
            told.acknowledged = True  # the answer to the query is the decision
            told.rows |= {(step, "action") for step in STEPS}
            return
        await self._decide(told, self.api.submit(tx))
        told.rows |= {(step, "action") for step in STEPS}

    async def _saga(self, told: Told, *, leave: bool) -> None:
        url, last = self.business.grpc, {FAILED: "refuse", ANY: "fickle"}.get(told.end, "b")
        steps = [
            {"action": url("a"), "compensate": url("undo")},
            {"action": url(last), "compensate": url("undo")},
        ]
        await self._decide(told, self.api.submit(Tx(told.gid, "saga", steps)))
        told.rows |= {(step, op) for step in STEPS for op in ("action", "compensate")}

    async def _tcc(self, told: Told, *, leave: bool) -> None:
        await self._two_phases(told, "confirm", "cancel", lambda op: {op: self.business.grpc(op)})

    async def _xa(self, told: Told, *, leave: bool) -> None:
        await self._two_phases(
            told, "commit", "rollback", lambda _: {"url": self.business.grpc("xa")}
        )

    async def _two_phases(
        self, told: Told, fulfil: str, undo: str, fields: Callable[[str], dict[str, str]]
    ) -> None:
        tx = Tx(told.gid, told.mode)
        await self._prepare(told, tx)
        for step in STEPS:
            both = {**fields(fulfil), **fields(undo)}
            await self._heard(self.api.register(told.gid, told.mode, step, PAYLOAD, **both))
            told.rows |= {(step, fulfil), (step, undo)}
        deciding = self.api.abort if told.end == FAILED else self.api.submit
        await self._decide(told, deciding(tx))

    async def _workflow(self, told: Told, *, leave: bool) -> None:
        custom = json.dumps({"name": "flow", "data": text64(b"data")})
        tx = Tx(
            told.gid,
            "workflow",
            query_prepared=f"{self.business.grpc_address}/workflow.Workflow/Execute",
            custom_data=custom,
            options={"retry_interval": 1},
        )
        reply = await self._heard(self.api.prepare_workflow(tx))
        told.stored = True
        if reply.body.Transaction.Status != "prepared":
            return
        known = {p.BranchID for p in reply.body.Progresses}
        for step in STEPS:
            if step in known:
                continue
            self.business.did(told.gid, step, "action")
            await self._heard(
                self.api.register(
                    told.gid, "workflow", step, b"done", op="action", status="succeed"
                ),
                "UniqueKeyConflict",
                "no trans with gid",  # ended by the other one that drives it: rows tell whether
            )
            if leave:
                told.rows.add((step, "action"))
                return
        end = Tx(told.gid, "workflow", req_extra={"status": told.end})
        told.decided = True
        await self._heard(self.api.submit(end), "NotFound")
        told.acknowledged = True


async def stored_in(
    query: Callable[[str], Awaitable[Any]], gids: Sequence[str]
) -> dict[str, Stored]:
    """What ``query`` of a coordinator tells about ``gids``, without those that are not stored."""
    found: dict[str, Stored] = {}
    for gid, answer in zip(gids, await asyncio.gather(*map(query, gids)), strict=True):
        if answer["transaction"] is not None:
            rows = tuple(((b["branch_id"], b["op"]), b["status"]) for b in answer["branches"])
            found[gid] = Stored(answer["transaction"]["status"], rows)
    return found
