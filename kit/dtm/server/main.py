"""The ``coordinator`` command: flags, wiring, exit codes.

Source: dtm-labs/dtm dtmsvr/entry/main.go.
"""

import gc
import os
import socket
import sys
import uuid
from contextlib import AsyncExitStack

from kit import __version__, log
from kit.app import App, Flags, run_command
from kit.config import Config, EnvSource, FileSource
from kit.dtm.core import Policy
from kit.dtm.driver import Driver
from kit.dtm.driver.direct import DirectDriver
from kit.dtm.driver.kratos import KratosDriver, parse_registry_target
from kit.dtm.server.config import Settings, StoreSettings, without_effect
from kit.dtm.server.coordinator import Coordinator
from kit.dtm.store import Store
from kit.dtm.store.memory import MemoryStore
from kit.dtm.store.sqlite import SqliteStore
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
    options = flags.parse_args(argv)
    sources = [EnvSource()]
    config = Config(*sources, FileSource(options.c)) if options.c else Config(*sources)
    await config.load()
    settings = config.scan(Settings)
    log.configure(
        level="debug" if options.d else settings.log_level,
        form=settings.log.format,
        buffered=True,
    )
    if unused := without_effect(settings):
        logger.warning("configuration without effect yet: %s", ", ".join(unused))
    await serve(settings)
    return 0


async def serve(settings: Settings) -> None:
    """Run a coordinator as ``settings`` say, until a signal.

    Raises:
        OSError: the port is taken.
        StoreUnavailable: the store cannot be opened.
    """
    service = settings.micro_service
    async with AsyncExitStack() as stack:
        store: Store = await stack.enter_async_context(_store(settings.store))
        registry = None
        target = parse_registry_target(service.target)
        if target is not None:
            registry = await stack.enter_async_context(EtcdRegistry(service.target))
        driver: Driver = DirectDriver() if service.driver == "default" else KratosDriver()

        def connect(address: str) -> GrpcClient:
            return GrpcClient(address, discovery=registry)

        coordinator = Coordinator(
            store,
            driver,
            connect,
            address=f"{settings.listen}:{settings.grpc_port}",
            policy=Policy(
                retry_interval=settings.retry_interval,
                retry_max_interval=settings.retry_max_interval,
                timeout_to_fail=settings.timeout_to_fail,
            ),
            request_timeout=settings.request_timeout,
            poll_s=settings.trans_cron_interval,
            keep_s=settings.store.finished_data_expire,
        )
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


def _store(settings: StoreSettings) -> Store:
    if settings.driver == "sqlite":
        return SqliteStore(settings.path)
    logger.warning("Store.Driver memory: every transaction is lost when this process ends")
    return MemoryStore()


if __name__ == "__main__":
    main()
