"""The coordinator's settings: dtm's own keys and defaults, read strictly.

Variables of the environment come first and the file wins, as in dtm. Unlike dtm an unknown key is
an error, because a misspelt one would be a silent default. Keys of dtm that have no effect here yet
are accepted, so that a file written for dtm can be read, and :func:`without_effect` names them.

Source: dtm-labs/dtm dtmsvr/config/config.go.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_pascal

from kit.dtm.driver.kratos import parse_registry_target
from kit.log.files import Rotation

GRPC_ENGINE: Literal["grpcio", "lean"] = "lean"
"""What a coordinator speaks gRPC through when it is not told: ADR 14."""

Seconds = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


_UNUSED: dict[str, JsonValue] = {"unused": True}


def _unused(default: Any) -> Any:
    """A key of dtm that is read and has no effect."""
    return Field(default, json_schema_extra=_UNUSED)


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, frozen=True)


class StoreSettings(_Section):
    """Where transactions live."""

    driver: Literal["sqlite", "memory", "postgres", "mysql", "redis"] = "sqlite"
    path: str = "./coordinator.db"
    host: str = ""
    port: Port = 0
    user: str = ""
    password: SecretStr = SecretStr("")
    db: str = "dtm"
    schema_: str = Field("public", alias="Schema")
    redis_prefix: str = "{a}"
    require_durable: bool = False
    finished_data_expire: Annotated[int, Field(gt=0)] = 7 * 86_400
    archive_path: str = ""
    max_open_conns: int = _unused(500)
    max_idle_conns: int = _unused(500)
    conn_max_life_time: int = _unused(5)
    data_expire: int = _unused(604_800)

    @field_validator("driver", mode="before")
    @classmethod
    def _known(cls, driver: object) -> object:
        if driver in ("boltdb", "sqlserver"):
            raise ValueError(
                f"{driver} is a store of dtm that is not kept here; use sqlite (a file, without a "
                "server), postgres, mysql or redis"
            )
        return driver

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.require_durable and self.driver == "memory":
            raise ValueError(
                "Driver memory loses everything at exit and RequireDurable is true; "
                "use Driver: sqlite"
            )
        # dtm's own words, its spaces included
        if self.driver in ("postgres", "mysql"):
            for missing, text in (
                (not self.host, "Db host not valid "),
                (not self.port, "Db port not valid "),
                (not self.user, "Db user not valid "),
                (self.driver == "postgres" and not self.schema_, "Postgres schema not valid"),
            ):
                if missing:
                    raise ValueError(text)
        if self.driver == "redis":
            if not self.host:
                raise ValueError("Redis host not valid")
            if not self.port and "," not in self.host:
                raise ValueError("Redis port not valid")
        return self


class MicroServiceSettings(_Section):
    """How services are found, and where the coordinator announces itself."""

    driver: Literal["default", "dtm-driver-kratos"] = "default"
    target: str = ""
    end_point: str = ""

    @property
    def end_points(self) -> tuple[str, ...]:
        """``EndPoint`` as a list."""
        return tuple(part.strip() for part in self.end_point.split(",") if part.strip())

    @model_validator(mode="after")
    def _complete(self) -> Self:
        registry = parse_registry_target(self.target)
        if registry and self.driver == "default":
            raise ValueError("Target is set but Driver is default; use dtm-driver-kratos")
        if registry and not self.end_points:
            raise ValueError(
                "Target is set but EndPoint is empty; write for example grpc://localhost:36790"
            )
        return self


class LogSettings(_Section):
    """How lines are written, and where to; the rotation of files has lumberjack's options."""

    format: Literal["text", "json"] = "text"
    outputs: str = "stderr"
    rotation_enable: Annotated[int, Field(ge=0, le=1)] = 0
    rotation_config_json: str = Field("{}", alias="RotationConfigJSON")

    @property
    def rotation(self) -> Rotation | None:
        """When log files make way; ``None`` lets them grow."""
        if not self.rotation_enable:
            return None
        given = json.loads(self.rotation_config_json)
        return Rotation(
            max_size=given.get("maxsize") or Rotation().max_size,
            max_age=given.get("maxage", 0),
            max_backups=given.get("maxbackups", 0),
            compress=given.get("compress", False),
        )

    @field_validator("rotation_config_json")
    @classmethod
    def _lumberjack(cls, text: str) -> str:
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
        known = {"maxsize": int, "maxage": int, "maxbackups": int, "compress": bool}
        if not isinstance(given, dict) or any(
            type(value) is not known.get(key, type(value)) for key, value in given.items()
        ):
            raise ValueError(
                'not options of lumberjack; write for example {"maxsize":100,"maxbackups":3}'
            )
        return text


class HttpMicroServiceSettings(_Section):
    """Of dtm; without effect there as well."""

    driver: str = _unused("default")
    registry_type: str = _unused("")
    registry_address: str = _unused("")
    registry_options: str = _unused("{}")
    target: str = _unused("")
    end_point: str = _unused("")


class TargetsSettings(_Section):
    """Which branches may be called. Empty lists mean: whatever the coordinator's defaults allow.

    Link-local and metadata addresses are refused unless ``AllowNetworks`` names them.
    """

    schemes: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    allow_networks: tuple[str, ...] = ()
    deny_networks: tuple[str, ...] = ()
    concurrency: Annotated[int, Field(gt=0)] = 100


class Settings(_Section):
    """Everything that ``-c`` may say."""

    listen: str = "0.0.0.0"  # noqa: S104  (dtm's default; the shipped file says 127.0.0.1)
    http_port: Port = 36789
    grpc_port: Port = 36790
    store: StoreSettings = StoreSettings()
    micro_service: MicroServiceSettings = MicroServiceSettings()
    targets: TargetsSettings = TargetsSettings()
    trans_cron_interval: Annotated[int, Field(gt=0)] = 3
    timeout_to_fail: Seconds = 35
    retry_interval: Seconds = 10
    retry_max_interval: Seconds = 300
    request_timeout: Annotated[int, Field(gt=0)] = 3
    update_branch_sync: int | None = None
    alert_retry_limit: Annotated[int, Field(ge=0)] = 3
    alert_web_hook: str = ""
    legacy_body_result: bool = True
    grpc_engine: Literal["grpcio", "lean"] = GRPC_ENGINE
    time_zone_offset: str = ""
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log: LogSettings = LogSettings()
    json_rpc_port: Port = _unused(36791)
    http_micro_service: HttpMicroServiceSettings = HttpMicroServiceSettings()
    update_branch_async_goroutine_num: int = _unused(1)
    config_update_interval: int = _unused(3)
    admin_base_path: str = _unused("")
    grpc_service_config: str = _unused("")

    @field_validator("time_zone_offset")
    @classmethod
    def _zone(cls, text: str) -> str:
        if text and not -24 < _hours(text) < 24:
            raise ValueError(f"{text} hours are no time zone; write for example +8")
        return text

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.retry_interval < 10:
            raise ValueError("RetryInterval should not be less than 10")
        if self.timeout_to_fail < self.retry_interval:
            raise ValueError("TimeoutToFail should not be less than RetryInterval")
        if self.alert_web_hook and not self.alert_web_hook.startswith(("http://", "https://")):
            raise ValueError("AlertWebHook does not start with http:// or https://")
        if self.retry_max_interval < self.retry_interval:
            raise ValueError("RetryMaxInterval should not be less than RetryInterval")
        return self


def _hours(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of hours; write for example +8") from None


_STORE_KEYS = {
    "memory": frozenset[str](),
    "sqlite": frozenset({"path"}),
    "postgres": frozenset({"host", "port", "user", "password", "db", "schema_"}),
    "mysql": frozenset({"host", "port", "user", "password", "db"}),
    "redis": frozenset({"host", "port", "user", "password", "redis_prefix"}),
}
"""What belongs to one kind of store, by driver."""
_ANY_STORE_KEYS = frozenset[str]().union(*_STORE_KEYS.values())


def without_effect(section: BaseModel, path: str = "") -> list[str]:
    """The keys that were given and change nothing, as ``Store.Host`` of a store in a file."""
    found: list[str] = []
    elsewhere = frozenset[str]()
    if isinstance(section, StoreSettings):
        elsewhere = _ANY_STORE_KEYS - _STORE_KEYS[section.driver]
    for name, field in type(section).model_fields.items():
        key, value = f"{path}{field.alias}", getattr(section, name)
        idle = field.json_schema_extra == _UNUSED or name in elsewhere
        if isinstance(value, BaseModel):
            found += without_effect(value, f"{key}.")
        elif idle and value != field.default:
            found.append(key)
    return found
