"""Models out of trees, and every problem with its file, line, path and value."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from kit.config import Config, ConfigError, Duration
from kit.errors import BadRequest, Error
from tests.unit.config.helpers import loaded, yaml


class Listener(BaseModel):
    network: Literal["tcp", "unix"] = "tcp"
    addr: str
    timeout: Duration = 1.0


class Server(BaseModel):
    http: Listener
    grpc: Listener


class Driver(StrEnum):
    ETCD = "etcd"
    MEMORY = "memory"


class Registry(BaseModel):
    driver: Driver = Driver.MEMORY
    password: str = ""
    pin: SecretStr = SecretStr("")
    ttl: Annotated[int, Field(ge=1)] = 15

    @field_validator("password")
    @classmethod
    def _long(cls, value: str) -> str:
        if 0 < len(value) < 8:
            raise ValueError(f"{value} is too short")
        return value

    @model_validator(mode="after")
    def _authenticated(self) -> "Registry":
        if self.driver is Driver.ETCD and not self.password:
            raise ValueError("etcd needs a password")
        return self


class Bootstrap(BaseModel):
    server: Server
    registry: Registry = Registry()
    targets: list[Listener] = []
    by_name: dict[str, Listener] = {}
    limit: int | Duration | None = None
    since: date | None = None
    ratios: list[float] = []


GOOD = """\
server:
  http:
    addr: 0.0.0.0:8000
    timeout: 1s
  grpc:
    addr: 0.0.0.0:9000
    timeout: 200ms
"""


async def problems(config: Config, kind: type = Bootstrap, path: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.scan(kind, path)
    return [line.removeprefix("configs/config.yaml:") for line in str(caught.value).splitlines()]


async def test_the_template_configuration_becomes_a_model() -> None:
    """kratos-layout's configs/config.yaml; durations are seconds."""
    settings = (await loaded(yaml(GOOD))).scan(Bootstrap)
    assert settings == Bootstrap(
        server=Server(
            http=Listener(addr="0.0.0.0:8000", timeout=1.0),
            grpc=Listener(addr="0.0.0.0:9000", timeout=0.2),
        )
    )


async def test_one_part_becomes_a_model() -> None:
    """Problems have the whole path nevertheless."""
    config = await loaded(yaml(GOOD + "registry:\n  ttl: 0\n"))
    assert config.scan(Listener, "server.grpc").timeout == 0.2
    assert config.value("server.http").scan(Listener).timeout == 1.0
    assert await problems(config, Registry, "registry") == [
        "9: registry.ttl: input should be greater than or equal to 1 (got 0)"
    ]


async def test_a_part_that_is_not_there_is_the_models_defaults() -> None:
    """A section that nobody wrote."""
    config = await loaded(yaml(GOOD))
    assert config.scan(Registry, "registry") == Registry()
    assert await problems(config, Listener, "admin") == ["1: admin.addr: required, but not set"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server:\n  http:\n    addr: 5\n  grpc: {addr: x}", [
            "3: server.http.addr: input should be a valid string (got 5)",
        ]),
        ("server:\n  http: {addr: x}\n  grpc:\n    timeout: 1s", [
            "3: server.grpc.addr: required, but not set",
        ]),
        ("{}", ["1: server: required, but not set"]),
        (GOOD + "servr: 1", ["8: servr: unknown key, did you mean server?"]),
        (GOOD + "x: 1", [
            "8: x: unknown key; known are server, registry, targets, by_name, limit, since, ratios",
        ]),
        (GOOD + "registry: {TTL: 5}", ["8: registry.TTL: unknown key, did you mean ttl?"]),
        (GOOD + "registry:\n  driver: consul", [
            "9: registry.driver: input should be 'etcd' or 'memory' (got \"consul\")",
        ]),
        (GOOD + "registry: true", ["8: registry: must be a mapping (got true)"]),
        (GOOD + "registry:", ["8: registry: must be a mapping (got null)"]),
        (GOOD + "registry:\n  driver: etcd", ["8: registry: etcd needs a password"]),
        (GOOD + "targets: {addr: x}", ['8: targets: must be a list (got {"addr": "x"})']),
        (GOOD + "targets:\n- addr: x\n- adr: y", [
            "10: targets.1.addr: required, but not set",
            "10: targets.1.adr: unknown key, did you mean addr?",
        ]),
        (GOOD + "by_name:\n  a:\n    addr: 1", [
            "10: by_name.a.addr: input should be a valid string (got 1)",
        ]),
        (GOOD + "ratios: [1, {},\n  2, []]", [
            "8: ratios.1: input should be a valid number (got {})",
            "9: ratios.3: input should be a valid number (got [])",
        ]),
        (GOOD + "since: true", ["8: since: input should be a valid date (got true)"]),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_said_with_line_path_and_value(
    text: str, expected: list[str]
) -> None:
    """One line a problem."""
    assert await problems(await loaded(yaml(text))) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "a duration needs a unit, for example 500ms, 1.5s or 1h2m (got 1)"),
        ("5", "a duration needs a unit, for example 500ms, 1.5s or 1h2m (got 5)"),
        ("0.5", "a duration needs a unit, for example 500ms, 1.5s or 1h2m (got 0.5)"),
        ("true", "input should be a valid number (got true)"),
        ("-1s", 'input should be greater than or equal to 0 (got "-1s")'),
        ("1 hour", "'1 hour' is not a duration; write for example 500ms, 1.5s or 1h2m"),
        ("'5'", "'5' is not a duration; write for example 500ms, 1.5s or 1h2m (got \"5\")"),
        ("null", "input should be a valid number (got null)"),
        ("[1s]", 'input should be a valid number (got ["1s"])'),
        ("9" * 400 + "s", "input should be a finite number"),
    ],
)
async def test_a_wrong_duration_is_refused(text: str, said: str) -> None:
    """Without a unit, negative, endless, or no duration at all."""
    config = await loaded(yaml(f"addr: x\ntimeout: {text}"))
    (line,) = await problems(config, Listener)
    assert line.startswith(f"2: timeout: {said}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("0.2s", 0.2), ("1m", 60.0), ("100ms", 0.1), ("1h2m", 3720.0), ("0", 0.0)],
)
async def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    """Go's forms, where kratos (protobuf JSON) only takes seconds."""
    config = await loaded(yaml(f"addr: x\ntimeout: {text}"))
    timeout = config.scan(Listener).timeout
    assert timeout == seconds
    assert type(timeout) is float
    assert config.value("timeout").as_duration() == seconds


async def test_all_problems_of_all_files_come_at_once_and_in_order() -> None:
    """Nobody has to start five times to find five mistakes."""
    config = await loaded(
        yaml("server:\n  grpc:\n    addr: 1\n    timout: 1s\n", "a.yaml"),
        yaml("limit: x\nregistry:\n  ttl: 0\n", "b.yaml"),
    )
    with pytest.raises(ConfigError) as caught:
        config.scan(Bootstrap)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["configs/a.yaml:1", "server.http"],
        ["configs/a.yaml:3", "server.grpc.addr"],
        ["configs/a.yaml:4", "server.grpc.timout"],
        ["configs/b.yaml:1", "limit"],
        ["configs/b.yaml:1", "limit"],
        ["configs/b.yaml:3", "registry.ttl"],
    ]


async def test_the_error_is_one_of_the_kits_and_has_its_parts() -> None:
    """400 CONFIG; programs read ``problems``, people the text."""
    config = await loaded(yaml("addr: 5"))
    with pytest.raises(ConfigError) as caught:
        config.scan(Listener)
    error = caught.value
    assert isinstance(error, Error)
    assert (error.code, error.reason) == (400, "CONFIG")
    assert BadRequest.matches(error)
    (problem,) = error.problems
    assert (problem.origin, problem.path) == ("configs/config.yaml:1", "addr")
    assert (problem.message, problem.value) == ("input should be a valid string", "5")
    assert error.__cause__ is None  # pydantic's own text would show the input


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2",
        "password: [hunter2]",
        "password: {hunter2: hunter2}",
        "pin: [hunter2]",
        "pin: 12345678\npassword: hunter2",
        "driver: etcd://root:hunter2@etcd:2379",
        "ttl: {token: hunter2, n: 1}",
        "passwrod: hunter2",
        "{driver: etcd, pin: hunter2}",
    ],
)
async def test_no_secret_is_in_a_message(text: str) -> None:
    """By key, by type, in URLs, inside mappings, under misspelt keys, in a validator's own text."""
    config = await loaded(yaml(text))
    with pytest.raises(ConfigError) as caught:
        config.scan(Registry)
    assert "hunter2" not in str(caught.value)
    assert "12345678" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.problems)


async def test_a_long_or_forged_value_is_shown_short_and_on_one_line() -> None:
    """A message is for reading."""
    config = await loaded(yaml('addr: x\ntimeout: "a\\nERROR msg=b' + "x" * 1000 + '"'))
    (line,) = await problems(config, Listener)
    assert "\\nERROR" in line
    shown = line.partition("(got ")[2]
    assert len(shown) < 100


async def test_a_model_may_decide_on_unknown_keys_itself() -> None:
    """kratos ignores them everywhere, dtm's configuration needs it."""

    class Lenient(BaseModel):
        model_config = ConfigDict(extra="ignore")
        a: int
        below: Listener

    config = await loaded(yaml("a: 1\nb: 2\nbelow: {addr: x, c: 3}"))
    assert config.scan(Lenient) == Lenient(a=1, below=Listener(addr="x"))


async def test_placeholders_take_the_type_of_the_model() -> None:
    """``${RETRIES:8}`` is a number where one is wanted, a list with commas where one is."""

    class Types(BaseModel):
        n: int
        f: float
        b: bool
        d: Duration
        s: str
        hosts: tuple[str, ...]

    config = await loaded(
        yaml("n: ${N:8}\nf: ${F:0.5}\nb: ${B:yes}\nd: ${D:1s}\ns: ${S:8}\nhosts: ${H:a,b}")
    )
    assert config.scan(Types) == Types(
        n=8, f=0.5, b=True, d=1.0, s="8", hosts=("a", "b")
    )  # fmt: skip


async def test_text_that_was_written_as_text_is_no_list() -> None:
    """In a file there is a way to write a list."""
    config = await loaded(yaml(GOOD + "ratios: 1,2"))
    assert await problems(config) == ['8: ratios: must be a list (got "1,2")']


async def test_any_type_that_pydantic_knows_can_be_read() -> None:
    """Dataclasses and plain types, too."""

    @dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 0

    config = await loaded(yaml("p: {x: 1}\nl: [1, 2]\ns: 1"))
    assert config.scan(Point, "p") == Point(1)
    assert config.value("l").scan(list[int]) == [1, 2]
    assert config.value("s").as_float() == 1.0
    assert await problems(await loaded(yaml("p:\n  yy: 2")), Point, "p") == [
        "1: p.x: required, but not set",
        "2: p.yy: unknown key, did you mean y?",
    ]


@pytest.mark.parametrize(
    ("text", "read", "value"),
    [
        ("true", "as_bool", True),
        ("'off'", "as_bool", False),
        ("8", "as_int", 8),
        ("'8'", "as_int", 8),
        ("0.5", "as_float", 0.5),
        ("hello", "as_str", "hello"),
        ("1m", "as_duration", 60.0),
    ],
)
async def test_a_single_value_is_read_as_a_type(text: str, read: str, value: object) -> None:
    """kratos' Value; a wrong one is told as anywhere."""
    found = (await loaded(yaml(f"a:\n  b: {text}"))).value("a.b")
    assert getattr(found, read)() == value
    assert found.origin == "configs/config.yaml:2"
    wrong = (await loaded(yaml("a:\n  b: {c: 1}"))).value("a.b")
    with pytest.raises(ConfigError, match=r"^configs/config.yaml:2: a.b: input should be .* \(got"):
        getattr(wrong, read)()


async def test_a_key_that_is_not_there_is_not_found() -> None:
    """kratos: ``key not found``."""
    config = await loaded(yaml("a: {b: null}"))
    with pytest.raises(ConfigError, match=r"^a\.c: key not found$"):
        config.value("a.c")
    assert config.find("a.b.c") is None
    assert config.value("a.b").raw is None
