"""Stories as text: events in, commands out, one file a story in ``tests/unit/dtm/transcripts``.

``pytest --rewrite`` writes what the core does now into the files; the difference is reviewed.
"""

import json
from pathlib import Path

import pytest

from kit.dtm.core import (
    Aborted,
    Answer,
    Answered,
    Branch,
    Call,
    Command,
    Event,
    Options,
    Policy,
    Prepared,
    Reply,
    Request,
    Save,
    Submitted,
    Transaction,
    Wake,
    Woken,
    step,
)
from kit.dtm.wire import Op, Result, TransType

FOLDER = Path(__file__).parent.parent / "transcripts"
START_MS = 1_000_000_000


class Story:
    """Replays the lines of a file."""

    def __init__(self) -> None:
        self.tx: Transaction | None = None
        self.now = START_MS

    def line(self, line: str) -> list[str]:
        word, *rest = line.split()
        if word.startswith("+"):
            self.now += round(float(word[1:].rstrip("s")) * 1000)
            return []
        if word == "crash":
            from dataclasses import replace

            assert self.tx is not None
            self.tx = replace(self.tx, round=None)
            return []
        self.tx, commands = step(self.tx, self.event(word, rest), Policy())
        lines = [self.shown(command) for command in commands] or ["nothing"]
        return [f"    {text}" for text in lines]

    def event(self, word: str, rest: list[str]) -> Event:
        if word == "wake":
            return Woken(self.now)
        if word == "answer":
            branch, result = rest[:2]
            op = Op.MSG if branch == "00" else Op.ACTION
            return Answered(self.now, (branch, op), Result(result), " ".join(rest[2:]))
        flags = {part for part in rest if "=" not in part}
        given = dict(part.split("=", 1) for part in rest if "=" in part)
        custom = {key: int(given[key]) for key in ("delay",) if key in given}
        request = Request(
            "g1",
            TransType.MSG,
            branches=tuple(
                Branch(f"{n:02d}", Op.ACTION, f"host/S/{name}")
                for n, name in enumerate(filter(None, given.get("steps", "").split(",")), 1)
            ),
            query_prepared=given.get("query", ""),
            custom_data=json.dumps(custom) if custom else "",
            options=Options(
                wait_result="wait" in flags,
                concurrent="concurrent" in flags,
                retry_interval=int(given.get("retry", 0)),
                timeout_to_fail=int(given.get("timeout", 0)),
            ),
        )
        return {"prepare": Prepared, "submit": Submitted, "abort": Aborted}[word](self.now, request)

    def shown(self, command: Command) -> str:
        match command:
            case Save(tx, rows, deferred, release):
                marks = " deferred" * deferred + " release" * release
                changed = " ".join(f"{b.branch_id}:{b.status.value}" for b in rows)
                reason = f" reason={tx.rollback_reason}" if tx.rollback_reason else ""
                return f"save {tx.status.value} [{changed}]{marks}{reason}"
            case Call(branch):
                return f"call {branch.branch_id} {branch.op} {branch.url}"
            case Reply(outcome, text) | Answer(outcome, text):
                word = type(command).__name__.lower()
                return f"{word} {outcome.value} {text!r}" if text else f"{word} {outcome.value}"
            case Wake(at):
                return f"wake in {(at - self.now) / 1000:g}s"


def replay(text: str) -> str:
    story, out = Story(), []
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        out.append(line)
        if line.strip() and not line.startswith("#"):
            out += story.line(line)
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_the_core_acts_as_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    """Each story is the same as when its transcript was reviewed."""
    text = path.read_text()
    if request.config.getoption("--rewrite"):
        path.write_text(replay(text))
        return
    assert replay(text) == text


def test_there_are_stories() -> None:
    """An empty folder would let the test above pass without saying anything."""
    assert len(list(FOLDER.glob("msg_*.txt"))) >= 8
