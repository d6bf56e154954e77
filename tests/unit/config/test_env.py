"""Environment variables override keys by name, with the types of the model."""

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from kit.config import Config, ConfigError, Duration, EnvSource, KeyValue
from tests.unit.config.helpers import ListSource, loaded, variable, yaml


class Grpc(BaseModel):
    addr: str = "0.0.0.0:9000"
    timeout: Duration = 1.0
    read_timeout: Duration | None = None
    debug: bool = False
    workers: int = 1
    targets: list[str] = []
    labels: dict[str, str] = {}


class Server(BaseModel):
    grpc: Grpc = Grpc()


class Settings(BaseModel):
    server: Server = Server()
    name: str = ""


async def test_prefix_and_one_underscore_are_stripped() -> None:
    """Spec §17.1; a name with dots is a path as it stands."""
    environ = {"TRANS_A": "1", "TRANS__B": "2", "TRANSX": "3", "APP_server.C": "4", "PATH": "5"}
    items = await EnvSource("TRANS", "APP_", environ=environ).load()
    assert items == [
        KeyValue("server.C", b"4", "", "env APP_server.C"),
        KeyValue("X", b"3", "env", "env TRANSX"),
        KeyValue("A", b"1", "env", "env TRANS_A"),
        KeyValue("_B", b"2", "env", "env TRANS__B"),
    ]


async def test_without_prefixes_all_variables_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """dtm's own configuration has no prefix; the environment is read at each load."""
    source = EnvSource()
    monkeypatch.setenv("KIT_TEST_LATE", "x")
    assert KeyValue("KIT_TEST_LATE", b"x", "env", "env KIT_TEST_LATE") in await source.load()


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("SERVER_GRPC_ADDR", ":1", lambda grpc: grpc.addr == ":1"),
        ("SERVER_GRPC_ADDR", "8", lambda grpc: grpc.addr == "8"),
        ("SERVER_GRPC_TIMEOUT", "1m", lambda grpc: grpc.timeout == 60.0),
        ("SERVER_GRPC_READ_TIMEOUT", "200ms", lambda grpc: grpc.read_timeout == 0.2),
        ("SERVER_GRPC_DEBUG", "true", lambda grpc: grpc.debug is True),
        ("SERVER_GRPC_DEBUG", "1", lambda grpc: grpc.debug is True),
        ("SERVER_GRPC_WORKERS", "8", lambda grpc: grpc.workers == 8),
        ("SERVER_GRPC_TARGETS", "a:1, b:2", lambda grpc: grpc.targets == ["a:1", "b:2"]),
        ("SERVER_GRPC_TARGETS", '["a,b"]', lambda grpc: grpc.targets == ["a,b"]),
        ("SERVER_GRPC_TARGETS", "", lambda grpc: grpc.targets == []),
        ("SERVER_GRPC_LABELS", '{"zone": "b"}', lambda grpc: grpc.labels == {"zone": "b"}),
    ],
)
@pytest.mark.parametrize("written", [True, False], ids=["in a file", "in the model only"])
async def test_a_variable_sets_the_key_it_names(
    name: str, text: str, read: object, written: bool
) -> None:
    """With the type the model wants, whether a file has the key or only the model knows it."""
    base = yaml(
        "server:\n  grpc: {addr: x, timeout: 2s, read_timeout: 2s, debug: false,"
        " workers: 2, targets: [x], labels: {a: b}}"
    )
    items = [base, variable(name, text)] if written else [variable(name, text)]
    settings = (await loaded(*items)).scan(Settings)
    assert read(settings.server.grpc)  # type: ignore[operator]


async def test_a_variable_names_keys_of_a_scanned_part() -> None:
    """``scan(Server, "server")``: the name still begins at the top."""
    config = await loaded(yaml("server:\n"), variable("SERVER_GRPC_WORKERS", "3"))
    assert config.scan(Server | None, "server") is not None  # type: ignore[arg-type]
    assert config.scan(Server, "server").grpc.workers == 3


async def test_later_sources_win_over_variables() -> None:
    """dtm's order: default, environment, file."""
    name = variable("NAME", "variable")
    assert (await loaded(name, yaml("name: file"))).scan(Settings).name == "file"
    assert (await loaded(yaml("name: file"), name)).scan(Settings).name == "variable"


async def test_a_variable_can_be_read_without_a_model() -> None:
    """By the path it names, whether or not a file has that key."""
    config = await loaded(
        yaml("a:\n  b: 1"), variable("A_B", "2"), variable("SERVER_GRPC_WORKERS", "3")
    )
    assert config.value("a.b").as_int() == 2
    assert config.value("server.grpc.workers").as_int() == 3
    assert config.value("server.grpc.workers").origin == "env TRANS_SERVER_GRPC_WORKERS"


async def test_a_variable_does_not_replace_a_whole_mapping() -> None:
    """``SERVER=...`` may be anybody's; Kubernetes sets such names for its services."""
    config = await loaded(
        yaml("server: {grpc: {workers: 2}}\nTRANS: {a: 1}"),
        variable("SERVER", "tcp://10.0.0.1"),
        variable("TRANS", "x"),
    )
    assert config.value("server").raw == {"grpc": {"workers": 2}}
    assert config.value("TRANS").raw == {"a": 1}


async def test_variables_that_name_no_key_are_no_error() -> None:
    """An environment has many; unknown keys of files stay errors."""
    config = await loaded(yaml("name: x"), variable("PATH", "/bin"), variable("SERVER_PORT", "1"))
    assert config.scan(Settings).name == "x"
    config = await loaded(yaml("path: x"), variable("NAME", "x"))
    with pytest.raises(ConfigError, match="path: unknown key"):
        config.scan(Settings)


async def test_a_wrong_variable_is_named_in_the_error() -> None:
    """With prefix, path and value."""
    config = await loaded(
        variable("SERVER_GRPC_WORKERS", "many"), variable("SERVER_GRPC_DEBUG", "")
    )
    with pytest.raises(ConfigError) as caught:
        config.scan(Settings)
    assert str(caught.value).splitlines() == [
        (
            "env TRANS_SERVER_GRPC_DEBUG: server.grpc.debug: input should be a valid boolean, "
            'unable to interpret input (got "")'
        ),
        (
            "env TRANS_SERVER_GRPC_WORKERS: server.grpc.workers: input should be a valid integer, "
            'unable to parse string as an integer (got "many")'
        ),
    ]


async def test_a_value_where_a_mapping_should_be_is_not_hidden_by_a_variable() -> None:
    """The file's mistake is reported, not built over."""
    config = await loaded(yaml("server: 5"), variable("SERVER_GRPC_WORKERS", "3"))
    with pytest.raises(ConfigError, match=r"config.yaml:1: server: must be a mapping \(got 5\)"):
        config.scan(Settings)


async def test_dtms_names_are_found_in_camel_case_models() -> None:
    """dtmsvr/config: ``MicroService.EndPoint`` is ``MICRO_SERVICE_END_POINT``."""

    class Dtm(BaseModel):
        model_config = ConfigDict(alias_generator=to_pascal)

    class MicroService(Dtm):
        driver: str = "default"
        end_point: str = ""

    class Root(Dtm):
        micro_service: MicroService = MicroService()
        http_port: int = 36789
        gid: str = Field("", validation_alias=AliasChoices("GID", "TransactionId"))

    config = await loaded(
        yaml("MicroService:\n  Driver: kratos"),
        variable("MICRO_SERVICE_DRIVER", "default"),
        variable("MICRO_SERVICE_END_POINT", "grpc://localhost:36790"),
        variable("HTTP_PORT", "1"),
        variable("TRANSACTION_ID", "g1"),
    )
    root = config.scan(Root)
    assert root.micro_service == MicroService.model_validate(
        {"Driver": "default", "EndPoint": "grpc://localhost:36790"}
    )
    assert (root.http_port, root.gid) == (1, "g1")


async def test_the_longer_of_two_keys_is_meant() -> None:
    """``READ_TIMEOUT`` is ``read_timeout`` and not ``read: {timeout}``, when both exist."""
    config = await loaded(
        yaml("read: {timeout: 1s, size: 1}\nread_timeout: 1s"),
        variable("READ_TIMEOUT", "5s"),
        variable("READ_SIZE", "5"),
    )
    assert config.value("read_timeout").raw == "5s"
    assert config.value("read").raw == {"timeout": "1s", "size": "5"}


async def test_a_variable_that_is_not_utf8_harms_nobody() -> None:
    """Any byte may stand in an environment."""
    source = EnvSource("", environ={"BROKEN": "caf\udce9", "NAME": "x"})
    config = Config(source, ListSource(yaml("a: 1")))
    await config.load()
    assert config.value("a").raw == 1
