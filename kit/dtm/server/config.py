"""The coordinator's settings: dtm's own keys and defaults, read strictly.

Variables of the environment come first and the file wins, as in dtm. Unlike dtm an unknown key is
an error, because a misspelt one would be a silent default. Keys of dtm that have no effect here yet
are accepted, so that a file written for dtm can be read, and :func:`without_effect` names them.

Source: dtm-labs/dtm dtmsvr/config/config.go.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.alias_generators import to_pascal

from kit.dtm.driver.kratos import parse_registry_target

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

    driver: Literal["sqlite", "memory"] = "sqlite"
    path: str = "./coordinator.db"
    require_durable: bool = False
    finished_data_expire: Annotated[int, Field(gt=0)] = 7 * 86_400
    host: str = _unused("")
    port: Port = _unused(0)
    user: str = _unused("")
    password: str = _unused("")
    db: str = _unused("dtm")
    schema_: str = Field("public", alias="Schema", json_schema_extra=_UNUSED)
    max_open_conns: int = _unused(500)
    max_idle_conns: int = _unused(500)
    conn_max_life_time: int = _unused(5)
    data_expire: int = _unused(604_800)
    redis_prefix: str = _unused("{a}")

    @model_validator(mode="after")
    def _durable(self) -> Self:
        if self.require_durable and self.driver == "memory":
            raise ValueError(
                "Driver memory loses everything at exit and RequireDurable is true; "
                "use Driver: sqlite"
            )
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
    """How lines are written."""

    format: Literal["text", "json"] = "text"
    outputs: str = _unused("stderr")
    rotation_enable: int = _unused(0)
    rotation_config_json: str = Field("{}", alias="RotationConfigJSON", json_schema_extra=_UNUSED)


class HttpMicroServiceSettings(_Section):
    """Of dtm; without effect there as well."""

    driver: str = _unused("default")
    registry_type: str = _unused("")
    registry_address: str = _unused("")
    registry_options: str = _unused("{}")
    target: str = _unused("")
    end_point: str = _unused("")


class Settings(_Section):
    """Everything that ``-c`` may say."""

    listen: str = "0.0.0.0"  # noqa: S104  (dtm's default; the shipped file says 127.0.0.1)
    grpc_port: Port = 36790
    store: StoreSettings = StoreSettings()
    micro_service: MicroServiceSettings = MicroServiceSettings()
    trans_cron_interval: Annotated[int, Field(gt=0)] = 3
    timeout_to_fail: Seconds = 35
    retry_interval: Seconds = 10
    retry_max_interval: Seconds = 300
    request_timeout: Annotated[int, Field(gt=0)] = 3
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log: LogSettings = LogSettings()
    http_port: Port = _unused(36789)
    json_rpc_port: Port = _unused(36791)
    http_micro_service: HttpMicroServiceSettings = HttpMicroServiceSettings()
    update_branch_sync: int = _unused(1)
    update_branch_async_goroutine_num: int = _unused(1)
    time_zone_offset: str = _unused("")
    config_update_interval: int = _unused(3)
    alert_retry_limit: int = _unused(3)
    alert_web_hook: str = _unused("")
    admin_base_path: str = _unused("")
    grpc_service_config: str = _unused("")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.retry_interval < 10:
            raise ValueError("RetryInterval should not be less than 10")
        if self.timeout_to_fail < self.retry_interval:
            raise ValueError("TimeoutToFail should not be less than RetryInterval")
        if self.retry_max_interval < self.retry_interval:
            raise ValueError("RetryMaxInterval should not be less than RetryInterval")
        return self


def without_effect(section: BaseModel, path: str = "") -> list[str]:
    """The keys that were given and change nothing, as ``Store.Host``."""
    found: list[str] = []
    for name, field in type(section).model_fields.items():
        key, value = f"{path}{field.alias}", getattr(section, name)
        if isinstance(value, BaseModel):
            found += without_effect(value, f"{key}.")
        elif field.json_schema_extra == _UNUSED and value != field.default:
            found.append(key)
    return found
