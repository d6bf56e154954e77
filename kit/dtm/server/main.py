"""The ``coordinator`` command: flags, wiring, exit codes.

Source: dtm-labs/dtm dtmsvr/entry/main.go.
"""

import gc
import os
import socket
import sys
import time
import uuid
from contextlib import AsyncExitStack
from functools import partial

from kit import __version__, log
from kit.app import App, Flags, follow_level, run_command
from kit.app.command import UsageError
from kit.clock import SkippingClock
from kit.config import Config, EnvSource, FileSource
from kit.dtm.core import Alert, Branch, Policy, Transaction
from kit.dtm.driver import Driver
from kit.dtm.driver.direct import DirectDriver
from kit.dtm.driver.kratos import KratosDriver, parse_registry_target
from kit.dtm.server.alerts import AlertSender
from kit.dtm.server.caller import BranchCaller
from kit.dtm.server.config import Settings, TargetsSettings, without_effect
from kit.dtm.server.coordinator import Coordinator
from kit.dtm.server.metrics import Metrics
from kit.dtm.server.stores import check_durability, make_store
from kit.dtm.server.targets import Targets
from kit.dtm.store import Store
from kit.dtm.wire import QUERY_BRANCH_ID, Result
from kit.log.files import open_outputs
from kit.registry.consul import ConsulRegistry
from kit.registry.etcd import EtcdRegistry
from kit.transport.grpc import GrpcClient

PROG = "coordinator"
STOP_TIMEOUT_S = 10.0

logger = log.get_logger()


def main() -> None:
    """Run the coordinator until a signal; never returns."""
    _yield_rarely()
    sys.exit(run_command(PROG, _main(sys.argv[1:])))


async def _main(argv: list[str]) -> int:
    flags = Flags(
        PROG,
        "Coordinates distributed transactions: a drop-in for dtm.",
        __version__,
    )
    flags.add("c", metavar="FILE", default="", help="configuration file (yaml, json, toml)")
    flags.add("v", action="version", version=f"dtm version: v{__version__}", help="dtm's -version")
    flags.add("d", action="store_true", help="log level debug")
    flags.add(
        "r",
        action="store_true",
        help="first delete every transaction and topic of the store, then start",
    )
    flags.add(
        "dev",
        action="store_true",
        help="for tests: POST /api/dev/clock skips time, POST /api/dev/round runs a round",
    )
    options = flags.parse_args(argv)
    sources = [EnvSource()]
    config = Config(*sources, FileSource(options.c)) if options.c else Config(*sources)
    await config.load()
    settings = config.scan(Settings)
    _set_zone(settings)
    log.configure(
        level="debug" if options.d else settings.log_level,
        form=settings.log.format,
        buffered=True,
        stream=open_outputs(settings.log.outputs, settings.log.rotation),
    )
    if unused := without_effect(settings):
        logger.warning("configuration without effect here: %s", ", ".join(unused))
    if not options.d:
        follow_level(config, "LogLevel")
    async with config.watching():
        await serve(settings, reset=options.r, dev=options.dev)
    return 0


async def serve(settings: Settings, *, reset: bool = False, dev: bool = False) -> None:
    """Run a coordinator as ``settings`` say, until a signal.

    Args:
        settings: of the configuration.
        reset: delete what the store holds before anything else.
        dev: a clock that can be moved ahead over HTTP.

    Raises:
        OSError: a port is taken.
        StoreUnavailable: the store cannot be opened.
        UsageError: a setting is of no use, or the store is not durable and has to be.
    """
    service = settings.micro_service
    clock = SkippingClock() if dev else None
    if dev:
        if settings.listen not in ("127.0.0.1", "::1", "localhost"):
            raise UsageError(
                f"-dev: Listen is {settings.listen}, and whoever reaches it could move the clock; "
                "write Listen: 127.0.0.1"
            )
        logger.warning("--dev: whoever reaches the HTTP port can move the clock")
    async with AsyncExitStack() as stack:
        store: Store = await stack.enter_async_context(make_store(settings.store, clock))
        check_durability(store, require=settings.store.require_durable)
        registry: EtcdRegistry | ConsulRegistry | None = None
        target = parse_registry_target(service.target)
        if target is not None:
            registry = await stack.enter_async_context(_registry(target.scheme, service.target))
        driver: Driver = DirectDriver() if service.driver == "default" else KratosDriver()

        def connect(address: str) -> GrpcClient:
            return GrpcClient(address, discovery=registry, engine=settings.grpc_engine)

        metrics = Metrics()
        caller = BranchCaller(
            driver,
            connect,
            targets=_targets(settings.targets),
            legacy_body_result=settings.legacy_body_result,
            per_target=settings.targets.concurrency,
            docker=bool(os.environ.get("IS_DOCKER")),
            observe=partial(_observe_branch, metrics),
        )
        await stack.enter_async_context(caller)
        alerts = None
        if settings.alert_web_hook:
            alerts = await stack.enter_async_context(_alert_sender(settings.alert_web_hook))
        coordinator = Coordinator(
            store,
            caller,
            grpc_address=f"{settings.listen}:{settings.grpc_port}",
            http_address=f"{settings.listen}:{settings.http_port}",
            policy=Policy(
                retry_interval=settings.retry_interval,
                retry_max_interval=settings.retry_max_interval,
                timeout_to_fail=settings.timeout_to_fail,
                alert_retry_limit=settings.alert_retry_limit,
            ),
            request_timeout=settings.request_timeout,
            poll_s=settings.trans_cron_interval,
            keep_s=settings.store.finished_data_expire,
            archive=settings.store.archive_path,
            coalesce=not settings.update_branch_sync,
            grpc_engine=settings.grpc_engine,
            on_alert=partial(_alert, alerts),
            metrics=metrics,
            check_target=caller.targets.check,
            clock=clock,
        )
        if reset:
            await coordinator.listen()  # a second one on these ports must not empty anything
            await store.clear()
            logger.warning("-r: the store is empty now", driver=settings.store.driver)
        app = App(
            id=str(uuid.uuid1()),
            name=target.name if target else PROG,
            metadata=None,
            endpoints=service.end_points,
            servers=[coordinator],
            registrar=registry,
            stop_timeout=STOP_TIMEOUT_S,
        )
        logger.info("starting dtm coordinator", version=__version__, host=socket.gethostname())
        _calm_garbage_collector()
        await app.run()


def _registry(scheme: str, target: str) -> EtcdRegistry | ConsulRegistry:
    try:
        return ConsulRegistry(target) if scheme == "consul" else EtcdRegistry(target)
    except ValueError as error:
        raise UsageError(f"MicroService.Target: {error}") from None


def _alert(sender: AlertSender | None, tx: Transaction, alert: Alert) -> None:
    if sender is not None:
        sender.send(tx.gid, tx.status, alert)


def _alert_sender(url: str) -> AlertSender:
    try:
        return AlertSender(url)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _targets(settings: TargetsSettings) -> Targets:
    try:
        return Targets(
            schemes=settings.schemes,
            allow_hosts=settings.allow_hosts,
            allow_networks=settings.allow_networks,
            deny_networks=settings.deny_networks,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _observe_branch(
    metrics: Metrics, tx: Transaction, branch: Branch, result: Result, _: float
) -> None:
    """Count a branch call; those that ask the sender are none, as in dtm."""
    if branch.branch_id != QUERY_BRANCH_ID:
        metrics.observe_branch(tx.trans_type, branch.branch_id, branch.op, result is Result.SUCCESS)


def _set_zone(settings: Settings) -> None:
    """Show local times in the zone of the configuration, in logs and in answers."""
    if settings.time_zone_offset:
        os.environ["TZ"] = posix_zone(float(settings.time_zone_offset))
        time.tzset()


def posix_zone(hours: float) -> str:
    """What ``TZ`` has to say for a zone so many hours east of Greenwich; POSIX counts west.

    >>> posix_zone(8), posix_zone(-3.5)
    ('<UTC+8>-08:00', '<UTC-3.5>+03:30')
    """
    minutes = round(abs(hours) * 60)
    west = "-" if hours > 0 else "+"
    return f"<UTC{hours:+g}>{west}{minutes // 60:02d}:{minutes % 60:02d}"


def _yield_rarely() -> None:
    """Schedule as batch work: a thread that becomes ready does not push the event loop aside.

    grpcio wakes a thread of its own for each of the four or five events of a call; on a busy
    machine each of them would preempt the loop (docs/adr/0008-batch-scheduling.md).
    """
    if hasattr(os, "SCHED_BATCH"):
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError as error:
            logger.debug("batch scheduling is not allowed here", reason=str(error))


def _calm_garbage_collector() -> None:
    """Collect rarely: what was made at the start stays, and a transaction leaves no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


if __name__ == "__main__":
    main()
