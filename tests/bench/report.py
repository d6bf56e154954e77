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
    light_median: float


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
                f"({_word(row.ratio_median >= reach)}). Called by the client that brings the "
                f"transactions, the same echo server gives {row.light_median:,.0f} a second."
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
`synchronous=FULL`). It costs three calls; over grpcio one third of the echo rate would be left for
it if everything but the calls were free. The coordinator runs as a process of its own with its
default settings and its log in a file. Gids are such as NewGid gives.

- *echo* is bare grpc.aio at both ends, without any of this project's code: a server that gives 64
  bytes back, and the load generator, whose clients each call again once answered.
- Transactions come from the same process and as many clients, and their branches are answered by
  one more. Both share the cores with the coordinator, so both speak through the lean engine, as it
  does. The lighter client makes the echo server faster
  as well, by putting many calls into one packet; the line above says by how much.
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

With `GrpcEngine: grpcio` in grpcio, for the most part. One call served and two made with bare
grpc.aio are what a msg cannot do without: *server* and twice *client* of the pair *bare to bare*
below. It is one process, and one core is what it has:

{grpcio_modes}

On the lean engine, the default, a call costs a tenth of that, and what is left is Python between
transport and store. Calls leave in fours: when all of a turn left in one write, load, coordinator
and branches took turns and one of the two cores was idle (SQLite 3,366 a second, 4,649 in fours;
Redis 2,763 and 3,968).

CPU of the coordinator in µs a msg at 32 clients before and after the work of 2026-11-28. Two
versions took turns, four or five each, on two cores with a load average of 3 to 8: only the two
columns of an engine compare.

| store      | grpcio before | after | lean before | after |
| ---------- | ------------: | ----: | ----------: | ----: |
| none       |           630 |   488 |         185 |   124 |
| SQLite     |           710 |   629 |         241 |   192 |
| PostgreSQL |           700 |   602 |         200 |   159 |
| MariaDB    |           840 |   713 |         222 |   179 |
| Redis      |           810 |   663 |         290 |   242 |

With SQLite's file in memory, where no disk has to be waited for, 603 became 471 and 218 became 155:
0.26 and 0.54 of an echo rate of 8,500 to 9,000 a second. How near a store with a disk comes to that
is up to the disk: a msg waits for two commits, and for the one before each of them.

Between the bytes of its request and those of its answer a msg over SQLite is 530 calls of
functions, 850 before. What made the difference, by its share of that path:

- **Values** (a quarter). Events, commands and transactions were frozen dataclasses, which set each
  field by a call, and copies of them. They are frozen for the type checker now
  (`kit/value.py`), and a copy is one merge of dictionaries.
- **Targets** (7 %). Each branch URL was taken apart and held against the networks at every submit;
  what has passed is remembered.
- **Metrics** (5 %). Eight counters with locks, where everything is counted on one loop.
- **Calls** (5 %). Metadata was checked by a call a pair, and grpcio was awaited twice more for
  metadata of an answer that nobody looks at.
- **MariaDB.** A batch of changes was two round trips, one that locks and reads the rows and one
  that writes them. It is one now: rows are locked by the conditions of leases and fences, and
  what writes them is only run when that was all of them.
- **Redis.** Each record was written by a JSON encoder that sets itself up anew.

- **MariaDB, once more.** Of a table whose statistics said that it was empty the server read every
  row for a batch of changes: 274 to 447 µs of its CPU a transaction. Indexes are named now: 121 to
  131, and 3,121 transactions a second of the store alone at 32 callers in place of 1,648.

What was tried and left out:

- One statement for all rows of a batch on SQLite (`UPDATE … FROM (VALUES …)` with RETURNING) takes
  half as much CPU again as one statement a row.
- SQLite's statements on the event loop, commits alone in the thread: the thread then never waits
  for the interpreter between two statements. Five turns at 32 clients: 4,441 a second without,
  4,419 with it; one client 1,045 and 940. What the loop no longer waits for it does itself.
- Two pipelines to Redis at once: no difference beyond the noise.
- Cython over all of core, coordinator, stores and transport, without a change to the code: 150 to
  130 µs a msg in memory. A compiler in everybody's build for 15 %.

Where the rest is, without transport and store: a third to decide and to carry out, a fifth to read
and check the request, a fifth to call branches (targets, limits, breakers, nodes), the rest tasks,
locks, metrics and the log, which is 4 µs a transaction. The log at info level is in all figures.
The store is 40 to 60 µs of them: on SQLite 14 for each of the two writes and 13 for the commit, on
PostgreSQL a third of it is asyncpg looking at what kind of thing each value is.

The next factor: no single thing above 5 % is left in this path. SQLite's thread is woken for each
commit, and the smaller its batches the more of these there are: 40 µs between a file in memory and
one on a busy disk. One process is one core, so several of them on a shared store are what scales,
or another language for `Engine` and what it calls. And the interpreter: the figures here are of one
that was built without `--enable-optimizations`; Debian's, built with it, took 127 µs instead of 151
for a msg in memory, and images and installers usually bring one like that.

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
