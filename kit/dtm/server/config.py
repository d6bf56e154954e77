"""The coordinator's settings: dtm's own keys and defaults, read strictly.

Variables of the environment come first and the file wins, as in dtm. Unlike dtm an unknown key is
an error, because a misspelt one would be a silent default.

Source: dtm-labs/dtm dtmsvr/config/config.go.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_pascal

from kit.dtm.driver.kratos import parse_registry_target

Seconds = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, frozen=True)


class StoreSettings(_Section):
    """Where transactions live."""

    driver: Literal["sqlite", "memory"] = "sqlite"
    path: str = "./coordinator.db"
    require_durable: bool = False
    finished_data_expire: Annotated[int, Field(gt=0)] = 7 * 86_400


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

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.retry_interval < 10:
            raise ValueError("RetryInterval should not be less than 10")
        if self.timeout_to_fail < self.retry_interval:
            raise ValueError("TimeoutToFail should not be less than RetryInterval")
        if self.retry_max_interval < self.retry_interval:
            raise ValueError("RetryMaxInterval should not be less than RetryInterval")
        return self
