"""How the figures are shown: a table for the terminal and docs/benchmarks.md."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

_PACKAGES = ("grpcio", "protobuf", "apsw", "uvloop")


@dataclass(frozen=True, slots=True)
class Row:
    """At one number of clients: rates a second, waits in ms, the coordinator's CPU time in µs."""

    clients: int
    echo_median: float
    echo_best: float
    msg_median: float
    msg_best: float
    ratio_median: float
    ratio_best: float
    echo_ms: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


_HEADS = (
    "clients",
    "echo/s median",
    "best",
    "tx/s median",
    "best",
    "tx / echo median",
    "best",
    "p50 ms",
    "p99 ms",
    "coordinator CPU µs/tx",
)


def table(rows: Sequence[Row]) -> str:
    """Markdown that reads in a terminal as well."""
    cells = [_HEADS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * (width - 1) + ":" for width in widths) + " |")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.clients}",
        f"{row.echo_median:,.0f}",
        f"{row.echo_best:,.0f}",
        f"{row.msg_median:,.0f}",
        f"{row.msg_best:,.0f}",
        f"{row.ratio_median:.2f}",
        f"{row.ratio_best:.2f}",
        f"{row.p50_ms:.1f}",
        f"{row.p99_ms:.1f}",
        f"{row.cpu_us:,.0f}",
    )


ALONE_WRITES = 3
ALONE_CALLS = 3
ALONE_MORE = 1.2
"""What one client may wait for a transaction: so many durable writes, so many calls, and 20 %."""


def verdict(rows: Sequence[Row], syncs: float, clients: int, reach: float) -> str:
    """The other yardstick, and whether the figures to reach were reached."""
    sync_ms = 1e3 / syncs
    said = [f"fdatasync alone: {syncs:,.0f} a second, {sync_ms:.2f} ms each."]
    for row in rows:
        if row.clients == clients:
            said.append(
                f"To reach at {clients} clients: {reach} x echo; measured {row.ratio_median:.2f} "
                f"({_word(row.ratio_median >= reach)})."
            )
        if row.clients == 1:
            most = ALONE_MORE * (ALONE_WRITES * sync_ms + ALONE_CALLS * row.echo_ms)
            said.append(
                f"To reach with 1 client: {ALONE_WRITES} x {sync_ms:.2f} ms of fdatasync + "
                f"{ALONE_CALLS} x {row.echo_ms:.2f} ms of echo + 20 % = {most:.1f} ms; measured "
                f"{row.p50_ms:.1f} ms ({_word(row.p50_ms <= most)}); "
                "fdatasync is the mean, the others are medians."
            )
    return "\n\n".join(said)


def _word(reached: bool) -> str:
    return "reached" if reached else "missed"


def machine(busy: float) -> str:
    """What it ran on, in a line; ``busy`` is the load average before the run."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _present())
    return (
        f"{os.cpu_count()} x {models[0] if models else platform.machine()}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{packages}, SQLite {apsw.sqlite_lib_version()}; "
        f"load average before: {busy:.1f}{_warning(busy)}"
    )


def _warning(busy: float) -> str:
    """What a reader has to know of a machine that others were using."""
    if busy < (os.cpu_count() or 1) / 4:
        return ""
    return (
        " (**not idle: rates are too low and ratios uncertain; run it again on a quiet machine**)"
    )


def _present() -> list[str]:
    known = {dist.name for dist in importlib.metadata.distributions()}
    return [name for name in _PACKAGES if name in known]


def page(
    rows: Sequence[Row],
    conclusion: str,
    others: Mapping[str, str],
    *,
    command: str,
    measured: str,
    busy: float,
) -> str:
    """docs/benchmarks.md; ``others`` has what each of the other benchmarks printed."""
    return _PAGE.format(
        date=datetime.now(UTC).date(),
        machine=machine(busy),
        table=table(rows),
        conclusion=conclusion,
        command=command,
        measured=measured,
        **{name: f"```text\n{text}\n```" for name, text in others.items()},
    )


_PAGE = """\
# Benchmarks

Written by `make bench` ({command}) on {date}; a run rewrites this page.
Machine: {machine}. All processes share it, over loopback.

## A transaction

{table}

{conclusion}

A transaction is a msg with two branches and WaitResult, submitted over gRPC: the client's call, two
calls to branches, and two commits that are on the disk before anybody is told (SQLite, WAL,
`synchronous=FULL`). It costs three calls, so one third of the echo rate is what is left for it even
when everything but the calls is free. The coordinator runs as a process of its own with its default
settings and its log in a file. Gids are such as NewGid gives.

- *echo* is a bare grpc.aio server without any of this project's code, which gives 64 bytes back.
  The same load generator process drives both, with the same number of clients that each call again
  once answered.
- {measured} for each number of clients; echo and transactions take turns, and a ratio compares a
  round with the echo of its own turn. *median* is over the rounds, *best* the fastest of them; p50,
  p99 and CPU are medians of the rounds.
- *CPU* is user and system time of the coordinator process by `/proc/PID/stat`.
- After each round the branch sink is asked how many calls it had: fewer than two for each
  answered transaction would be an error.
- *fdatasync alone* appends 4 KiB and waits for the disk: one client can have no more commits than
  that, many clients share them.

### Beside another engine

{durable}

`dbos` is a library for durable workflows. Its workflow has two steps, each of which calls the same
sink as a branch of the msg does. Rates of both are medians of turns, *msg / dbos* of the turns'
ratios. Compared is what a user gets who wants two services called, each call remembered on the
same disk. Not compared are equal promises and equal work: a workflow of dbos starts inside the
process that runs it, without the call that submits a msg; dbos writes when it starts, behind each
step and at the end, a msg twice, because its branches bear being called again after a crash; steps
of dbos give results that later ones can use, branches of a msg do not. SQLite is in WAL mode with
`synchronous=FULL` for both; everything else is the default of either.

### Where the time goes

In grpcio, for the most part. One call served and two made with bare grpc.aio are what a msg cannot
do without: *server* and twice *client* of the pair *bare to bare* below, at 32 clients 750 to
900 µs of CPU. A coordinator that stores nothing needs little more, and four calls served and two
made are most of a tcc. It is one process, and one core is what it has.

What the next factor takes is another engine below gRPC. With `GrpcEngine: lean` the same msg, on
the same evening (`python -m tests.bench.modes --modes msg --engine lean`):

| store      | grpcio tx/echo | CPU µs | lean tx/echo | CPU µs |
| ---------- | -------------: | -----: | -----------: | -----: |
| none       |           0.26 |    924 |         0.48 |    392 |
| SQLite     |           0.17 |  1,283 |         0.33 |    538 |
| PostgreSQL |           0.16 |  1,043 |         0.30 |    504 |
| MariaDB    |           0.14 |  1,340 |         0.24 |    655 |
| Redis      |           0.19 |  1,083 |         0.30 |    505 |

Looked at on 2026-11-24 with 32 clients, two cores that had more to do; CPU of the coordinator in
µs/tx, medians of five runs, of which 100 to 300 are chance:

| store      |   msg |   tcc |
| ---------- | ----: | ----: |
| none       | 1,070 | 2,440 |
| SQLite     | 1,170 | 2,210 |
| PostgreSQL | 1,060 | 2,290 |
| MariaDB    | 1,210 | 3,210 |
| Redis      | 1,370 | 2,510 |

And with cProfile (`--profile FILE`):

- **PostgreSQL.** A tcc used to read its transaction three times between its writes. The engine now
  remembers what is prepared, and a save with the right fence confirms it: 2.7 ms became 2.2 ms
  (medians of five runs of each in turns). On SQLite, where a read is cheap, nothing changed.
- **MariaDB.** A batch of changes is two round trips, one that locks and reads the rows and one that
  writes them; the 5 writes of a tcc take about 8 of them, with 75 µs for each.
- **Redis.** Commits are so quick that hardly two requests ever share a script: a tcc is 5 round
  trips and 11 JSON texts.
- **Saga.** Four rows instead of two, and the rules decode the custom data about seven times for
  two steps.
- **Claims.** 100 due transactions are 3 ms of CPU in SQLite: a third to find their branches, a
  third to make objects of the rows, the rest to write the leases. Objects took half more before
  the options, nearly always the same text, were decoded once for all.
- **A million unfinished ones** add 40 µs to a transaction with a random gid on SQLite, and 1.5 ms
  to the 3 ms that its two commits take at 1,000 a second: random gids meet pages that no other
  transaction does, and a checkpoint has to bring each of them home. Four times the cache changed
  nothing; four times the log made the pauses rarer and as much longer. What helps is the order of
  time, which gids of NewGid have: beside 100,000 unfinished ones a transaction of the store alone
  writes 4 KiB in 2 calls instead of 20 in 8, reads 0.5 KiB instead of 12, and takes 70 µs of CPU
  instead of 110.

The next factor is another transport under the seam of `kit/transport/grpc/engine.py`. With one that
costs a fifth, the stores come next: one round trip for a batch on MariaDB, with the fence as a
condition of the UPDATE; several requests a script on Redis.

## Every store and every mode

{modes}

The same load against each store, as durable as it can be, on a server of its own on this machine:
SQLite `synchronous=FULL`, PostgreSQL with its defaults, MariaDB
`innodb_flush_log_at_trx_commit=1`, Redis `appendfsync always`. A msg and a saga are one call of the
client and two of branches; a tcc is four and two, so half the rate of a saga is what it can have.

## Unfinished transactions

{growth}

A store holds that many transactions that are due in an hour, each store on a server of its own as
above; their gids are random. Its coordinator takes turns with one on an empty store: *of empty* is
the median of the ratios when gids are such as NewGid gives, *random* when clients make them at
random. *claim* takes 100 due transactions, by a direct call of the store: the median of 30. Then
up to 100,000 of them are made due and the coordinator is started anew: *1st retry* is from the
start of the process to the first branch call, *retries/s* what it brings forward in the 3 seconds
after it. *peak* is the most memory that the coordinator had in either run.

## Targets that hang

{hanging}

Two coordinators take turns; one has five transactions for each of 20 targets in hand besides, new
ones every turn, which ask to be tried again after a second. Ten targets take a call and never
answer, ten accept the connection and say nothing. A turn is long enough for their calls to end
after 3 seconds and for the first retries. Who is not measured is stopped meanwhile, and has a
second to catch up before its turn. The figure is the median of the turns' ratios, with the least
and the greatest; the CPU time is all of the coordinator's, divided by the healthy transactions.

What clients can feel is lock-step: transactions that are due at once, after an outage, a stop of
the process, or an operator's reset. Claimed in hundreds and brought forward without a pause they
made every request wait for the lot. While clients ask, a claim takes 10, and each is followed by
2 ms for others. With 400 retries due in every second and a half, 8 clients, and CPU time of the
coordinator as the clock because the machine was busy, that took their p99 from 1.9 of the quiet
one's to 1.4; the rest is the work itself, about 0.7 ms of CPU a retry. The hundred of a turn,
spread by their back-off, are hardly felt: 0.99 to 1.26 in three runs without that, 0.95 to 1.07
with it.

## A unary call through the kit

Client and server of the kit with their default middleware against bare grpc.aio, 64 bytes:

{kit}

## A submit through the client

`Msg.submit` over gRPC against a bare stub that sends the same message, to a server that answers at
once:

{client}

## A barrier

One `UPDATE` in its own transaction, without the barrier and with it. It costs one statement more;
SQLite, whose statements stay in the process, gets a savepoint around it as well. Redis does check,
barrier and adjustment in one script:

{barrier}

## The lean engine

{lean}

An echo of 64 bytes at the seam, four pairs of metadata and a deadline, two processes; each side is
measured beside the lean engine on the other, which waits for nobody.

## The store alone

Create a transaction with two branches, then save it finished; a depth is that many callers:

{store}
"""
