"""``trans -conf configs/config.yaml``: the transfer service."""

import socket
from contextlib import AsyncExitStack

from api.trans.v1.trans_pb2_grpc import add_TransServicer_to_server
from apps.trans.biz import Accounts
from apps.trans.config import Registry, Settings
from apps.trans.coordinator import Coordinators
from apps.trans.data import DatabaseLedger, open_database
from apps.trans.service import TransService
from kit import App, __version__, log, run_command
from kit.app import Flags, follow_level
from kit.compat import use as use_compat
from kit.config import Config, EnvSource, FileSource
from kit.errors import ServiceUnavailable
from kit.middleware.recovery import recovery
from kit.registry.consul import ConsulRegistry
from kit.registry.etcd import EtcdRegistry
from kit.transport.grpc import GrpcServer

NAME = "trans"
STOP_TIMEOUT_S = 10.0

_log = log.get_logger()


def main() -> int:
    """Serve until SIGTERM, SIGQUIT or SIGINT; gives the exit status."""
    flags = Flags(NAME, "Serves api.trans.v1.Trans over gRPC.", __version__)
    flags.add(
        "conf",
        default="configs/config.yaml",
        metavar="FILE|FOLDER",
        help="the configuration, %(default)s by default; variables TRANS_… come on top",
    )
    return run_command(NAME, _serve(flags.parse_args().conf))


async def _serve(conf: str) -> None:
    config = Config(FileSource(conf), EnvSource("TRANS_"))
    await config.load()
    settings = config.scan(Settings)
    use_compat(settings.compat)
    log.configure(level=settings.log.level, form=settings.log.format)
    follow_level(config)
    listener = settings.server.grpc
    server = GrpcServer(
        network=listener.network,
        address=listener.addr,
        timeout=listener.timeout,
        engine=listener.engine,
        middleware=[recovery()],
    )
    async with AsyncExitStack() as stack:
        source = settings.data.database
        database = open_database(source.driver, source.source.get_secret_value())
        ledger = DatabaseLedger(database, settings.data.opening_balance)
        try:
            await stack.enter_async_context(database)
            await ledger.create_tables()
        except Exception as exc:  # each driver has its own
            raise ServiceUnavailable(
                "DATABASE",
                f"data.database: {source.driver} at {source.place}: {exc}; does it exist, is it "
                "running, and do user and password fit?",
            ) from exc
        registrar = _registry(settings.registry)
        if registrar is None:
            _log.info("[app] no registry.etcd configured; reachable by address only")
        else:
            await stack.enter_async_context(registrar)
        coordinators = await stack.enter_async_context(Coordinators(registrar, listener.engine))
        service = TransService(Accounts(ledger), coordinators)
        add_TransServicer_to_server(service, server.services)
        app = App(
            id=socket.gethostname(),  # the template's choice: one instance a host
            name=NAME,
            version=__version__,
            metadata={},
            servers=[server],
            registrar=registrar,
            stop_timeout=STOP_TIMEOUT_S,
        )
        await stack.enter_async_context(config.watching())
        await app.run()


def _registry(settings: Registry) -> EtcdRegistry | ConsulRegistry | None:
    if settings.consul:
        return ConsulRegistry(settings.consul.options())
    return EtcdRegistry(settings.etcd.options()) if settings.etcd else None
