"""Which store the settings mean. Its driver is imported only when it is the one."""

from kit import log
from kit.app.command import UsageError
from kit.clock import Clock
from kit.dtm.server.config import StoreSettings
from kit.dtm.store import Store

logger = log.get_logger()


def make_store(settings: StoreSettings, clock: Clock | None = None) -> Store:
    """The store, not open yet.

    Args:
        settings: of the configuration.
        clock: what leases and due times are measured with; ``None`` is the store's own choice, the
            database's clock where there is one.

    Raises:
        UsageError: a package is missing, or a setting is of no use.
    """
    try:
        return _make(settings, clock)
    except ImportError as error:
        raise UsageError(
            f"Store.Driver: {settings.driver} needs the package {error.name}; "
            f"install kit[{settings.driver}]"
        ) from None
    except ValueError as error:
        raise UsageError(f"Store: {error}") from None


def check_durability(store: Store, *, require: bool) -> None:
    """Warn of what an open store could lose.

    Raises:
        UsageError: there is something, and ``require`` forbids it.
    """
    for weakness in store.weaknesses:
        if require:
            raise UsageError(f"Store.RequireDurable is true: {weakness}")
        logger.warning("an acknowledged transaction could be lost: %s", weakness)


def _make(settings: StoreSettings, clock: Clock | None) -> Store:
    password = settings.password.get_secret_value()
    match settings.driver:
        case "memory":
            from kit.dtm.store.memory import MemoryStore

            return MemoryStore(clock)
        case "sqlite":
            from kit.dtm.store.sqlite import SqliteStore

            return SqliteStore(settings.path, clock)
        case "postgres":
            from kit.dtm.store.postgres import PostgresStore

            return PostgresStore(
                host=settings.host,
                port=settings.port,
                user=settings.user,
                password=password,
                database=settings.db,
                schema=settings.schema_,
                clock=clock,
            )
        case "mysql":
            from kit.dtm.store.mysql import MysqlStore

            return MysqlStore(
                settings.host, settings.port, settings.user, password, settings.db, clock=clock
            )
        case "redis":
            from kit.dtm.store.redis.store import RedisStore

            return RedisStore(
                settings.host,
                settings.port or 6379,
                clock,
                user=settings.user,
                password=password,
                prefix=settings.redis_prefix,
            )
