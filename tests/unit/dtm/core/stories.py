"""Stories as text: one event a line, and what the core does about it indented below.

::

    submit saga steps=Out,In             prepare, submit, abort, register: type, flags, key=value
    register tcc branch=01               stop why, wake, crash, +10 (seconds go by)
    answer 01 confirm UNKNOWN no route   branch, op (left out: the only one asked), result, text
"""

import json
from collections.abc import Callable
from dataclasses import replace

from kit.dtm.core import (
    Aborted,
    Alert,
    Answer,
    Answered,
    Branch,
    BranchKey,
    Call,
    Command,
    Event,
    Options,
    Policy,
    Prepared,
    Registered,
    Reply,
    Request,
    Save,
    Stopped,
    Submitted,
    Transaction,
    Wake,
    Woken,
    step,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType

START_MS = 1_000_000_000
_REGISTERED = {TransType.TCC: (Op.CANCEL, Op.CONFIRM), TransType.XA: (Op.ROLLBACK, Op.COMMIT)}


class Story:
    """Replays the lines of a file."""

    def __init__(self) -> None:
        self.tx: Transaction | None = None
        self.now = START_MS

    def line(self, line: str) -> list[str]:
        """What the core does about one line."""
        word, *rest = line.split()
        if word.startswith("+"):
            self.now += round(float(word[1:].rstrip("s")) * 1000)
            return []
        if word == "crash":
            assert self.tx is not None
            self.tx = replace(self.tx, round=None)
            return []
        self.tx, commands = step(self.tx, self.event(word, rest), Policy())
        lines = [self.shown(command) for command in commands] or ["nothing"]
        ended = [c.tx for c in commands if isinstance(c, Save) and c.tx.status.terminal]
        lines += [
            f"rows {rows(tx)}" for tx in ended if tx.branches and tx.trans_type is not TransType.MSG
        ]
        return [f"    {text}" for text in lines]

    def event(self, word: str, rest: list[str]) -> Event:
        """The event that a line spells."""
        if word == "wake":
            return Woken(self.now)
        if word == "answer":
            return self.answer(rest)
        if word == "stop":
            return Stopped(self.now, "g1", " ".join(rest))
        flags = [part for part in rest if "=" not in part]
        given = dict(part.split("=", 1) for part in rest if "=" in part)
        trans_type = next((TransType(f) for f in flags if f in set(TransType)), TransType.MSG)
        custom: dict[str, object] = {k: int(given[k]) for k in ("delay",) if k in given}
        if trans_type is TransType.SAGA and "concurrent" in flags:
            custom["concurrent"] = True
        if "orders" in given:
            custom["orders"] = json.loads(given["orders"])
        if "name" in given:
            custom |= {"name": given["name"], "data": "aGk="}
        request = Request(
            "g1",
            trans_type,
            branches=self.branches(trans_type, given),
            query_prepared=given.get("query", ""),
            custom_data=json.dumps(custom) if custom else "",
            options=Options(
                wait_result="wait" in flags,
                concurrent=trans_type is TransType.MSG and "concurrent" in flags,
                retry_interval=int(given.get("retry", 0)),
                timeout_to_fail=int(given.get("timeout", 0)),
                retry_limit=int(given.get("limit", 0)),
            ),
            rollback_reason=given.get("reason", ""),
            final_status=Status(given["status"]) if "status" in given else None,
            result=given.get("result", ""),
        )
        kinds: dict[str, Callable[[int, Request], Event]] = {
            "prepare": Prepared,
            "submit": Submitted,
            "abort": Aborted,
            "register": Registered,
        }
        return kinds[word](self.now, request)

    def answer(self, rest: list[str]) -> Answered:
        """An answer of the branch that is asked; the op is written when it is not plain."""
        branch, *rest = rest
        if rest[0] in set(Result):
            asked = self.tx.round.calling if self.tx and self.tx.round else frozenset()
            ops = [op for branch_id, op in asked if branch_id == branch] or ["action"]
        else:
            ops, rest = [rest[0]], rest[1:]
        key: BranchKey = (branch, ops[0])
        return Answered(self.now, key, Result(rest[0]), " ".join(rest[1:]))

    def branches(self, trans_type: TransType, given: dict[str, str]) -> tuple[Branch, ...]:
        """The rows of steps, or those of a registration."""
        if branch_id := given.get("branch"):
            if trans_type in _REGISTERED:
                return tuple(
                    Branch(branch_id, op, "" if "empty" in given else f"host/S/{op.value}")
                    for op in _REGISTERED[trans_type]
                )
            done = BranchStatus(given.get("done", "succeed"))
            return (Branch(branch_id, given.get("op", "action"), "", b"r", done),)
        names = filter(None, given.get("steps", "").split(","))
        if trans_type is not TransType.SAGA:
            return tuple(
                Branch(f"{n:02d}", Op.ACTION, f"host/S/{name}") for n, name in enumerate(names, 1)
            )
        found: list[Branch] = []
        for n, name in enumerate(names, 1):  # a name with ! has no action, with ~ nothing to undo
            plain = name.strip("!~")
            undo = "" if "~" in name else f"host/S/{plain}Revert"
            found += [
                Branch(f"{n:02d}", Op.COMPENSATE, undo),
                Branch(f"{n:02d}", Op.ACTION, "" if "!" in name else f"host/S/{plain}"),
            ]
        return tuple(found)

    def shown(self, command: Command) -> str:
        """A command in a line."""
        match command:
            case Save(tx, changed, deferred, release, force, append):
                marks = " deferred" * deferred + " release" * release
                marks += " force" * force + " append" * append
                names = " ".join(self.row(b) for b in changed)
                reason = f" reason={tx.rollback_reason}" if tx.rollback_reason else ""
                result = f" result={tx.result}" if tx.result else ""
                return f"save {tx.status.value} [{names}]{marks}{reason}{result}"
            case Call(branch):
                payload = f" {branch.payload.decode()}" if branch.payload else ""
                return f"call {branch.branch_id} {branch.op} {branch.url}{payload}"
            case Reply(outcome, text) | Answer(outcome, text):
                word = type(command).__name__.lower()
                return f"{word} {outcome.value} {text!r}" if text else f"{word} {outcome.value}"
            case Wake(at):
                return f"wake in {(at - self.now) / 1000:g}s"
            case Alert(branch, error, retries):
                return f"alert {branch} {error!r} after {retries} doublings"

    def row(self, branch: Branch) -> str:
        """A row in a word; the operation only where there is more than one."""
        assert self.tx is not None
        if self.tx.trans_type is TransType.MSG:
            return f"{branch.branch_id}:{branch.status.value}"
        return f"{branch.branch_id}.{branch.op}:{branch.status.value}"


def rows(tx: Transaction) -> str:
    """Status of every row, in order: P prepared, S succeed, F failed."""
    return " ".join(b.status.value[0].upper() for b in tx.branches)


def replay(text: str) -> str:
    """``text`` with the indented lines as they are now."""
    story, out = Story(), []
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        out.append(line)
        if line.strip() and not line.startswith("#"):
            out += story.line(line)
    return "\n".join(out) + "\n"
