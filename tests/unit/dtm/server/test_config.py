"""The coordinator's settings: dtm's keys, read strictly."""

from pathlib import Path

import pytest

from kit.config import Config, ConfigError, EnvSource, FileSource
from kit.dtm.server.config import Settings, without_effect


async def read(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    config = Config(EnvSource(environ=env or {}), FileSource(str(path)), environ=env or {})
    await config.load()
    return config.scan(Settings)


async def test_dtms_defaults_hold_without_a_word(tmp_path: Path) -> None:
    """Intervals, timeouts and ports of dtm."""
    settings = await read(tmp_path, "{}")
    assert settings.grpc_port == 36790
    assert (settings.retry_interval, settings.timeout_to_fail) == (10, 35)
    assert (settings.request_timeout, settings.trans_cron_interval) == (3, 3)
    assert settings.retry_max_interval == 300


async def test_a_file_written_for_dtm_is_read_and_idle_keys_are_named(tmp_path: Path) -> None:
    """Nothing that dtm knows is refused; what does nothing here is told."""
    text = """
Store:
  Driver: sqlite
  MaxOpenConns: 100
  Schema: other
HttpPort: 8080
JsonRpcPort: 8081
AlertWebHook: http://localhost/hook
Log: {Outputs: stdout, RotationConfigJSON: "{}"}
"""
    settings = await read(tmp_path, text)
    assert without_effect(settings) == ["Store.Schema", "Store.MaxOpenConns", "JsonRpcPort"]


async def test_dtms_variables_are_read_and_the_file_wins(tmp_path: Path) -> None:
    """MICRO_SERVICE_END_POINT is MicroService.EndPoint, as in dtm."""
    env = {"REQUEST_TIMEOUT": "7", "RETRY_INTERVAL": "20", "MICRO_SERVICE_END_POINT": "grpc://h:1"}
    settings = await read(tmp_path, "RetryInterval: 15", env)
    assert (settings.request_timeout, settings.retry_interval) == (7, 15)
    assert settings.micro_service.end_points == ("grpc://h:1",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RetryInterval: 9", "RetryInterval should not be less than 10"),
        ("TimeoutToFail: 9", "TimeoutToFail should not be less than RetryInterval"),
        ("RetryMaxInterval: 9", "RetryMaxInterval should not be less than RetryInterval"),
        ("GrpcPort: 70000", "GrpcPort"),
        ("RequestTimeout: -1", "RequestTimeout"),
        ("RequestTimout: 1", "did you mean RequestTimeout"),
        ("Store: {Driver: boltdb}", "boltdb is a store of dtm that is not kept here; use sqlite"),
        ("Store: {Driver: floppy}", "Store.Driver"),
        ("Store: {Driver: postgres, Port: 1, User: u}", "Db host not valid "),
        ("Store: {Driver: mysql, Host: h, User: u}", "Db port not valid "),
        ("Store: {Driver: mysql, Host: h, Port: 1}", "Db user not valid "),
        ("Store: {Driver: postgres, Host: h, Port: 1, User: u, Schema: ''}", "Postgres schema not"),
        ("Store: {Driver: redis, Port: 1}", "Redis host not valid"),
        ("Store: {Driver: redis, Host: h}", "Redis port not valid"),
        ("AlertWebHook: localhost/hook", "AlertWebHook does not start with http"),
        ("TimeZoneOffset: east", "'east' is not a number of hours"),
        ("TimeZoneOffset: '+30'", "no time zone"),
        ("Log: {RotationConfigJSON: '{'}", "not JSON"),
        ('Log: {RotationConfigJSON: \'{"maxsize":"1"}\'}', "not options of lumberjack"),
        ("Store: {Driver: memory, RequireDurable: true}", "loses everything"),
        (
            "MicroService: {Target: 'discovery://h:1/n', EndPoint: 'grpc://h:1'}",
            "Driver is default",
        ),
        ("MicroService: {Driver: dtm-driver-kratos, Target: 'zk://h:1/n'}", "unknown scheme: zk"),
        ("MicroService: {Driver: dtm-driver-kratos, Target: 'etcd://h:1/n'}", "EndPoint is empty"),
        (
            "MicroService: {Driver: dtm-driver-kratos, Target: 'etcd://h:1'}",
            "lacks hosts or a name",
        ),
    ],
)
async def test_a_setting_that_cannot_be_meant_is_named(
    tmp_path: Path, text: str, said: str
) -> None:
    """File, line, key and the way out."""
    with pytest.raises(ConfigError) as caught:
        await read(tmp_path, text)
    assert said in str(caught.value)
    assert "c.yaml:1" in str(caught.value)


async def test_a_cluster_of_redis_needs_no_port(tmp_path: Path) -> None:
    """Each of its hosts brings one."""
    settings = await read(tmp_path, "Store: {Driver: redis, Host: 'h1:1,h2:2'}")
    assert settings.store.host == "h1:1,h2:2"


async def test_a_password_is_not_shown(tmp_path: Path) -> None:
    """Neither by repr nor in an error."""
    settings = await read(tmp_path, "Store: {Driver: redis, Host: h, Port: 1, Password: hunter2}")
    assert "hunter2" not in repr(settings)
    assert settings.store.password.get_secret_value() == "hunter2"


async def test_rotation_has_lumberjacks_options(tmp_path: Path) -> None:
    """Switched on by RotationEnable alone."""
    options = 'RotationConfigJSON: \'{"maxsize":7,"maxbackups":2,"compress":true}\''
    settings = await read(tmp_path, f"Log: {{RotationEnable: 1, {options}}}")
    rotation = settings.log.rotation
    assert rotation is not None
    assert (rotation.max_size, rotation.max_backups, rotation.compress) == (7, 2, True)
    assert (await read(tmp_path, f"Log: {{{options}}}")).log.rotation is None
