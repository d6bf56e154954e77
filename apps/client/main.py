"""``client``: moves money from one account to another through the coordinator."""

import argparse
import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack

from apps.client.modes import MODES, Transfer
from kit import __version__, log, run_command
from kit.app import Flags
from kit.dtm.client import DtmClient, DtmUnavailable, Refused
from kit.dtm.errors import DtmError, Failure
from kit.dtm.wire import Status, TransType
from kit.duration import format_duration, parse_duration
from kit.registry.consul import ConsulRegistry
from kit.registry.etcd import EtcdRegistry
from kit.transport.grpc import Target, parse_target
from kit.transport.grpc.engines import DEFAULT, engine_name

NAME = "client"
NOT_YET = "wait result not return success"
"""What a coordinator says of a transaction that was accepted and has not ended."""
_BEFORE = re.compile(r"current status '(\w+)', cannot ")
"""What it says of a gid that it has, whose transaction has this status."""
MAX_INT64 = 2**63 - 1


def main() -> int:
    """Submit one transfer and say what became of it; gives the exit status."""
    given = _flags().parse_args()
    log.configure(level="error")  # the two lines printed are the answer
    return run_command(NAME, _transfer(given))


def _flags() -> Flags:
    flags = Flags(NAME, "Transfers money as one global transaction.", __version__)
    number = _checked(_number)
    flags.add(
        "dtm",
        type=_checked(_coordinator),
        default="discovery://localhost:2379/dtmservice",
        metavar="TARGET",
        help="the coordinator, %(default)s by default; localhost:36790 needs no etcd",
    )
    flags.add(
        "busi",
        type=_checked(_target),
        default="discovery://localhost:2379/trans",
        metavar="TARGET",
        help="the transfer service as the coordinator shall call it, %(default)s by default",
    )
    flags.add("amount", type=number, default=30, metavar="CENTS", help="%(default)s by default")
    flags.add("from", type=number, default=1, metavar="USER", help="%(default)s by default")
    flags.add("to", type=number, default=2, metavar="USER", help="%(default)s by default")
    flags.add(
        "mode",
        type=_checked(_mode),
        default=TransType.MSG,
        metavar="MODE",
        help="the kind of global transaction: msg (default), saga, tcc, xa or workflow",
    )
    flags.add(
        "gid",
        default="",
        metavar="TEXT",
        help="a transaction that was begun before: asks for it again, resumes a workflow",
    )
    flags.add(
        "timeout",
        type=_checked(_timeout),
        default=10.0,
        metavar="DURATION",
        help="how long to wait for the outcome, 10s by default",
    )
    flags.add(
        "engine",
        type=_checked(engine_name),
        default=DEFAULT,
        metavar="NAME",
        help="what speaks HTTP/2: grpcio (default) or lean",
    )
    return flags


async def _transfer(given: argparse.Namespace) -> int:
    deadline = asyncio.get_running_loop().time() + given.timeout
    async with AsyncExitStack() as stack:
        target = parse_target(given.dtm)
        registries: dict[tuple[str, ...], EtcdRegistry | ConsulRegistry] = {}
        for named in (target, parse_target(given.busi)):
            if named.service and named.registry and named.registry not in registries:
                registry = _registry(named.registry)
                registries[named.registry] = await stack.enter_async_context(registry)
        only = next(iter(registries.values())) if len(registries) == 1 else None
        client = DtmClient(
            given.dtm,
            discovery=only,
            discovery_factory=lambda hosts: registries[tuple(hosts)],
            timeout=given.timeout,
            engine=given.engine,
        )
        await stack.enter_async_context(client)
        try:
            gid = given.gid or await client.new_gid()
        except DtmUnavailable as exc:
            raise DtmUnavailable(f"{exc.message}; {_way_out(target)}") from exc
        _tell(f"gid: {gid}")
        sides = getattr(given, "from"), given.to
        transfer = Transfer(gid, given.busi, given.amount, *sides, given.engine)
        try:
            async with asyncio.timeout_at(deadline):
                await MODES[given.mode](client, transfer)
        except TimeoutError:
            why = f"no answer from {given.dtm} in {format_duration(given.timeout)}"
        except Refused as exc:
            _tell(f"result: refused: {exc.message}")
            return 1
        except Failure as exc:
            if (before := _BEFORE.match(exc.message)) and before[1] == Status.SUCCEED:
                _tell("result: succeed")  # the first time; a repeat is refused
                return 0
            over = before[1] == Status.FAILED if before else _is_no(given.mode, exc.message)
            if over:
                _tell(f"result: failed: {exc.message}")
                return 1
            why = exc.message
        except DtmError as exc:
            why = exc.message
        else:
            _tell("result: succeed")
            return 0
    _tell(f"result: not finished: {why}")
    does = "keeps trying" if given.mode is TransType.MSG else "confirms or undoes"
    _tell(f"the coordinator {does} what it accepted, gid {gid}")
    return 1


def _is_no(mode: TransType, message: str) -> bool:
    """Whether a Failure is an end: a message is never rolled back, and a saga may have to wait."""
    return mode is not TransType.MSG and NOT_YET not in message


def _way_out(target: Target) -> str:
    if target.service:
        servers = ",".join(target.registry)
        if not servers.startswith("consul://"):
            servers = f"etcd at {servers}"
        return f"are {servers} and {target.service} running? -dtm localhost:36790 needs neither"
    return "is the coordinator running?"


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (what the command is for)


def _checked(read: Callable[[str], object]) -> Callable[[str], object]:
    """``read`` as argparse wants it, so that its message reaches the user."""

    def check(text: str) -> object:
        try:
            return read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return check


def _number(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if not 0 < value <= MAX_INT64:
        raise ValueError(f"{text!r} is not a whole number from 1 to {MAX_INT64}")
    return value


def _registry(servers: tuple[str, ...]) -> EtcdRegistry | ConsulRegistry:
    if servers[0].startswith("consul://"):
        return ConsulRegistry(",".join(servers))
    return EtcdRegistry(servers)


def _target(text: str) -> str:
    parse_target(text.rstrip("/"))
    return text.rstrip("/")


def _coordinator(text: str) -> str:
    target = parse_target(_target(text))
    if target.service and not target.registry:
        raise ValueError(
            f"{text!r} does not say where the registry is; write discovery://localhost:2379/{target.service}"
        )
    return target.text


def _mode(text: str) -> TransType:
    try:
        return TransType(text)
    except ValueError:
        raise ValueError(f"{text!r} is no mode; use one of {', '.join(MODES)}") from None


def _timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not more than 0")
    return seconds
