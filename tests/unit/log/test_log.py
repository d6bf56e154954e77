"""Lines byte for byte, in both forms."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from structlog.typing import EventDict

import kit.compat
import kit.log
from kit.log import Level
from kit.log.output import Form, Output

Lines = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local zone that is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


def test_the_default_line_is_that_of_kratos(capsys: pytest.CaptureFixture[str]) -> None:
    """stderr, INFO, no fields: design.md §2, byte for byte."""
    kit.log.get_logger().info("[gRPC] server listening on: [::]:9000")
    kit.log.get_logger().debug("not shown")
    captured = capsys.readouterr()
    assert captured.err == "INFO msg=[gRPC] server listening on: [::]:9000\n"
    assert captured.out == ""


def test_fields_come_before_the_message_in_their_order(lines: Lines) -> None:
    """``LEVEL k1=v1 k2=v2 msg=...``: configured, bound, of the task, of the call."""
    read = lines(fields={"service.name": "trans"})
    log = kit.log.get_logger(gid="g1").bind(branch="01")
    with kit.log.context(peer="p1"):
        log.warning("try %d of %s", 2, "many", latency=0.5, error=None)
    assert read() == [
        "WARN service.name=trans gid=g1 branch=01 peer=p1 latency=0.5 error=<nil> msg=try 2 of many"
    ]


def test_a_line_without_message_has_only_fields(lines: Lines) -> None:
    """The logging middleware of kratos v2 writes no ``msg``."""
    read = lines()
    kit.log.get_logger().error(kind="server", code=404, reason="")
    assert read() == ["ERROR kind=server code=404 reason="]


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("debug", "DEBUG"),
        ("info", "INFO"),
        ("warn", "WARN"),
        ("warning", "WARN"),
        ("error", "ERROR"),
        ("fatal", "FATAL"),
        ("critical", "FATAL"),
    ],
)
def test_each_level_has_its_word(lines: Lines, method: str, word: str) -> None:
    """kratos' words, standard library's names too."""
    read = lines(level="debug")
    getattr(kit.log.get_logger(), method)("x")
    assert read() == [f"{word} msg=x"]


@pytest.mark.parametrize("threshold", list(Level))
def test_a_level_lets_through_itself_and_what_is_graver(lines: Lines, threshold: Level) -> None:
    """For each pair of threshold and level."""
    read = lines(level=threshold)
    log = kit.log.get_logger()
    for level in Level:
        log.log(level, "x")
        getattr(log, level.name.lower())("x")
        assert log.enabled(level) == (level >= threshold)
    assert read() == [f"{level.name} msg=x" for level in Level for _ in "12" if level >= threshold]


def test_the_level_changes_while_loggers_exist(lines: Lines) -> None:
    """For a logger made before, and for records of the standard library."""
    read = lines()
    log = kit.log.get_logger()
    log.debug("1")
    logging.getLogger("lib").debug("1")
    kit.log.set_level("debug")
    assert kit.log.get_level() is Level.DEBUG
    log.debug("2")
    logging.getLogger("lib").debug("2")
    kit.log.set_level(Level.ERROR)
    log.warning("3")
    logging.getLogger("lib").warning("3")
    assert read() == ["DEBUG msg=2", "DEBUG logger=lib msg=2"]


def test_an_unknown_level_or_form_names_the_choices() -> None:
    """kratos reads an unknown level as INFO; a typing error should not go unnoticed."""
    with pytest.raises(ValueError, match="'verbose' is unknown; use debug, info, warn, error or"):
        kit.log.set_level("verbose")
    with pytest.raises(ValueError, match="'xml' is unknown; use text, slog or json"):
        kit.log.configure(form="xml")


def test_reconfiguring_reaches_loggers_that_exist(lines: Lines) -> None:
    """The composition root configures after modules made their loggers."""
    log = kit.log.get_logger(a=1)
    first = lines()
    log.info("one")
    second = lines(form="json", timestamps=False, level="warn")
    log.info("two")
    log.warning("three")
    assert first() == ["INFO a=1 msg=one"]
    assert second() == ['{"level":"WARN","a":1,"msg":"three"}']


def test_a_value_cannot_forge_a_line(lines: Lines) -> None:
    """Neither in a field nor in the message nor in the name of a field."""
    read = lines()
    kit.log.get_logger().info("a\nINFO msg=b", **{"user": "x\r\ny", "k\nINFO msg=z": 1})
    assert read() == ["INFO user=x\\r\\ny k\\nINFO msg=z=1 msg=a\\nINFO msg=b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.none()), st.text())
def test_whatever_is_logged_stays_one_line(
    lines: Lines, fields: dict[str, object], message: str
) -> None:
    """In both forms; JSON can be read back."""
    fields.pop("exc_info", None)
    for form in Form:
        read = lines(form=form)
        kit.log.get_logger().info(message.replace("%", ""), **fields)
        (line,) = read()
        line.encode()
        if form is Form.JSON:
            assert json.loads(line)["msg"] == message.replace("%", "")


def test_json_has_typed_values_and_a_time(lines: Lines, in_shanghai: None) -> None:
    """For machines: numbers stay numbers, the order is that of the text form."""
    read = lines(form="json", fields={"service.name": "trans"})
    kit.log.get_logger().info("done", branches=2, ok=True, cause=None, left=[1], who="Ann é")
    (line,) = read()
    record = json.loads(line)
    assert list(record) == [
        "level", "ts", "service.name", "branches", "ok", "cause", "left", "who", "msg"
    ]  # fmt: skip
    stamp = record.pop("ts")
    assert time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
    assert (stamp[19], stamp[23:]) == (".", "+08:00")
    assert record == {
        "level": "INFO", "service.name": "trans", "branches": 2, "ok": True, "cause": None,
        "left": [1], "who": "Ann é", "msg": "done",
    }  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), {("a",): 1}, {1, 2}, object], ids=str)
def test_json_takes_values_that_json_does_not_know(lines: Lines, value: object) -> None:
    """As text rather than not at all."""
    read = lines(form="json")
    kit.log.get_logger().info("x", value=value)
    assert json.loads(read()[0])["value"] == kit.log.go_text(value)


@pytest.mark.parametrize("form", list(Form))
def test_an_endless_value_is_cut(lines: Lines, form: Form) -> None:
    """A line has a limit, and JSON is still JSON."""
    read = lines(form=form)
    kit.log.get_logger().info("x", body="y" * 5_000_000)
    (line,) = read()
    assert len(line) < 70_000
    assert "characters more)" in line
    if form is Form.JSON:
        assert json.loads(line)["body"].startswith("yyy")


@pytest.mark.parametrize("form", list(Form))
def test_secrets_are_masked(lines: Lines, form: Form) -> None:
    """By the name of their key, own names added, also inside values; nothing else is."""
    read = lines(form=form, masks=["PIN"], timestamps=False)
    kit.log.get_logger(password="hunter2").info(
        "login", user="ann", pin=1234, headers={"authorization": "Bearer t0p", "accept": "*/*"}
    )
    (line,) = read()
    assert not any(secret in line for secret in ("hunter2", "1234", "t0p"))
    if form is Form.TEXT:
        assert line == (
            "INFO password=*** user=ann pin=*** headers=map[accept:*/* authorization:***] msg=login"
        )


def test_a_current_span_adds_its_ids_and_no_span_adds_nothing(lines: Lines) -> None:
    """kratos-layout's ``trace.id`` and ``span.id``, before the fields of the call."""
    read = lines()
    log = kit.log.get_logger()
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0x12, is_remote=False))
    with trace.use_span(span):
        log.info("in", n=1)
    log.info("out")
    assert read() == [f"INFO trace.id={0xABC:032x} span.id={0x12:016x} n=1 msg=in", "INFO msg=out"]


async def test_context_fields_stay_with_their_task(lines: Lines) -> None:
    """Two tasks that interleave do not see each other's fields; an inner block ends."""
    read = lines()
    log = kit.log.get_logger()
    turn = asyncio.Barrier(2)

    async def handle(gid: str) -> None:
        with kit.log.context(gid=gid):
            await turn.wait()
            with kit.log.context(branch="01"):
                log.info("a")
            await turn.wait()
            log.info("b")

    await asyncio.gather(handle("g1"), handle("g2"))
    log.info("c")
    assert sorted(read()) == sorted(
        [f"INFO gid={gid} branch=01 msg=a" for gid in ("g1", "g2")]
        + [f"INFO gid={gid} msg=b" for gid in ("g1", "g2")]
        + ["INFO msg=c"]
    )


def test_the_stack_stands_indented_below_its_line(lines: Lines) -> None:
    """So that no line of it, not even a forged one in a message, begins like a log line."""
    read = lines()
    try:
        raise ValueError("no\nERROR msg=forged\x1b[0m")
    except ValueError as error:
        kit.log.get_logger().exception("failed")
        kit.log.get_logger().info("later", exc_info=error)
    written = read()
    assert written[0] == "ERROR msg=failed"
    assert written[1] == "    Traceback (most recent call last):"
    later = written.index("INFO msg=later")
    assert written[later - 2 : later] == ["    ValueError: no", "    ERROR msg=forged\\x1b[0m"]
    assert written[1:later] == written[later + 1 :]
    assert all(line.startswith("    ") for line in written[1:later])


def test_the_stack_is_a_field_in_json(lines: Lines) -> None:
    """One object a line, stack included."""
    read = lines(form="json")
    try:
        raise ValueError("no")
    except ValueError:
        kit.log.get_logger().exception("failed")
    (line,) = read()
    assert json.loads(line)["stack"].startswith("Traceback (most recent call last):\n")
    assert json.loads(line)["stack"].endswith("ValueError: no")


def test_exc_info_outside_of_an_exception_is_nothing(lines: Lines) -> None:
    """There is no stack to show."""
    read = lines()
    kit.log.get_logger().exception("x")
    kit.log.get_logger().info("y", exc_info=None)
    kit.log.get_logger().info("z", exc_info=False)
    assert read() == ["ERROR msg=x", "INFO msg=y", "INFO msg=z"]


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text today")


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda log: log.info("%d cents", "many"), "'%d cents': TypeError: %d format: a"),
        (lambda log: log.info("%s %s", 1), "'%s %s': TypeError: not enough arguments"),
        (lambda log: log.info("x", value=_Unprintable()), "'x': RuntimeError: no text today"),
    ],
    ids=["type", "count", "value"],
)
def test_a_line_that_cannot_be_made_says_so_and_does_not_raise(
    lines: Lines, call: Callable[[kit.log.Logger], None], cause: str
) -> None:
    """Logging never stops the work it tells about."""
    read = lines()
    call(kit.log.get_logger())
    (line,) = read()
    assert line.startswith(f"ERROR msg=a log line could not be made of {cause}")


def test_a_percent_sign_without_arguments_is_just_text(lines: Lines) -> None:
    """A message that holds a value already is not formatted again."""
    read = lines()
    kit.log.get_logger().info("100%d done")
    assert read() == ["INFO msg=100%d done"]


def test_a_processor_sees_each_event_and_may_drop_it(lines: Lines) -> None:
    """structlog's processors; secrets are masked after them."""

    def drop_probes(_logger: object, method: str, event: EventDict) -> EventDict:
        if event.get("operation") == "/grpc.health.v1.Health/Check":
            raise structlog.DropEvent
        return {"method": method, "token": "t-1", **event}

    read = lines(processors=[drop_probes])
    log = kit.log.get_logger()
    log.info("a", operation="/grpc.health.v1.Health/Check")
    log.warning("b")
    assert read() == ["WARN method=warn token=*** msg=b"]


def test_loggers_of_structlog_itself_write_the_same_form(lines: Lines) -> None:
    """A library that uses structlog needs no adapter."""
    read = lines()
    structlog.get_logger().bind(a=1).info("hello %s", "x")
    assert read() == ["INFO a=1 msg=hello x"]


def test_the_caller_is_folder_file_and_line(lines: Lines) -> None:
    """kratos 2.9's form, and the real caller where kratos names its own helper."""
    read = lines(caller=True)
    line = sys._getframe().f_lineno + 1
    kit.log.get_logger(a=1).info("x")
    kit.log.get_logger().log(Level.WARN, "y")
    logging.getLogger("lib").warning("z")
    assert read() == [
        f"INFO caller=log/test_log.py:{line} a=1 msg=x",
        f"WARN caller=log/test_log.py:{line + 1} msg=y",
        f"WARN caller=test_log.py:{line + 2} logger=lib msg=z",
    ]


def test_text_lines_have_the_time_when_asked(lines: Lines, in_shanghai: None) -> None:
    """kratos-layout's ``ts``: RFC 3339, seconds, local zone; first of all fields."""
    read = lines(timestamps=True, caller=True)
    kit.log.get_logger().info("x")
    (line,) = read()
    _, stamp, caller, _ = line.split(" ")
    assert time.strptime(stamp, "ts=%Y-%m-%dT%H:%M:%S+08:00")
    assert caller.startswith("caller=")


def test_a_plain_line_is_that_of_gos_log(lines: Lines, in_shanghai: None) -> None:
    """``log.Printf`` of the transfer sample: local time, no level, whatever the level."""
    read = lines(level="fatal")
    before = int(time.time())
    kit.log.plain("transfer out %d cents from %d", 30, 1)
    kit.log.plain("50% done\n")
    kit.log.plain("a\n2022/01/01 00:00:00 forged")
    first, second, third = read()
    assert first[19:] == " transfer out 30 cents from 1"
    assert second[19:] == " 50% done"
    assert third[19:] == " a\\n2022/01/01 00:00:00 forged"
    written = time.mktime(time.strptime(first[:19], "%Y/%m/%d %H:%M:%S"))
    assert before <= written <= time.time()


def test_a_plain_line_at_a_known_instant(in_shanghai: None, capsys: pytest.CaptureFixture) -> None:
    """The line of the README, byte for byte, and the next second anew."""
    instants = iter([1648604136.9, 1648604137.0])
    output = Output(now=lambda: next(instants))
    output.write_plain("transfer out 30 cents from 1")
    output.write_plain("transfer in 30 cents to 2")
    assert capsys.readouterr().err == (
        "2022/03/30 09:35:36 transfer out 30 cents from 1\n"
        "2022/03/30 09:35:37 transfer in 30 cents to 2\n"
    )


def test_plain_lines_in_json_are_json(lines: Lines) -> None:
    """A stream of JSON has nothing else in it."""
    read = lines(form="json")
    kit.log.plain("transfer in %d cents to %d", 30, 2)
    record = json.loads(read()[0])
    assert (record["level"], record["msg"]) == ("INFO", "transfer in 30 cents to 2")


def test_records_of_the_standard_library_take_the_same_form(lines: Lines) -> None:
    """grpc and asyncio log that way; the name of the logger is a field."""
    read = lines()
    library = logging.getLogger("grpc._server")
    library.warning("port %d taken", 9000)
    library.info("noted")
    library.debug("not shown")
    library.critical("a\nb")
    assert read() == [
        "WARN logger=grpc._server msg=port 9000 taken",
        "INFO logger=grpc._server msg=noted",
        "FATAL logger=grpc._server msg=a\\nb",
    ]


def test_a_record_carries_its_stack(lines: Lines) -> None:
    """``logging.exception`` of a library."""
    read = lines()
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("lib").exception("failed")
    written = read()
    assert written[0] == "ERROR logger=lib msg=failed"
    assert written[-1] == "    OSError: gone"


def test_a_record_whose_arguments_do_not_fit_is_written_anyway(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library's slip is not ours to fail on."""
    read = lines()
    record = logging.LogRecord("lib", logging.INFO, __file__, 1, "%d", ("x",), None)
    kit.log._records.handle(record)
    assert read()[0].startswith("INFO logger=lib msg=%d (TypeError: %d format")
    assert capsys.readouterr().err == ""


def test_configuring_twice_takes_records_along_once(lines: Lines) -> None:
    """And not at all when asked not to."""
    lines()
    read = lines()
    logging.getLogger("lib").warning("once")
    assert read() == ["WARN logger=lib msg=once"]
    read = lines(records=False)
    logging.getLogger("lib").warning("never")
    assert read() == []


class TestSlog:
    """The form of kratos v3: Go's log/slog, TextHandler."""

    def test_a_line_is_that_of_gos_text_handler(
        self, lines: Lines, in_shanghai: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = lines(form="slog", fields={"service.name": "trans"})
        monkeypatch.setattr(kit.log._output, "_now", lambda: 1_767_225_600.25)
        kit.log.get_logger().info("[gRPC] server listening", addr="[::]:9000")
        [line] = read()
        assert line == (
            'time=2026-01-01T08:00:00.250+08:00 level=INFO msg="[gRPC] server listening" '
            "service.name=trans addr=[::]:9000"
        )

    def test_values_are_quoted_where_they_have_to_be(self, lines: Lines) -> None:
        """So that no value can be taken for another key, or for a line."""
        read = lines(form="slog", timestamps=False)
        kit.log.get_logger().error("a\nlevel=INFO", empty="", pair="x=1", path="C:\\t")
        assert read() == [r'level=ERROR msg="a\nlevel=INFO" empty="" pair="x=1" path=C:\t']

    def test_levels_have_slogs_names_and_a_stack_stays_on_the_line(self, lines: Lines) -> None:
        read = lines(form="slog", timestamps=False)
        log = kit.log.get_logger()
        log.warning("slow")
        log.fatal("the end", exc_info=ValueError("why"), password="secret")
        assert read() == [
            "level=WARN msg=slow",
            'level=ERROR+4 msg="the end" password=*** stack="ValueError: why"',
        ]

    def test_business_lines_are_messages(self, lines: Lines) -> None:
        read = lines(form="slog", timestamps=False)
        kit.log.plain("transfer out %d cents from %d", 30, 1)
        [line] = read()
        assert line.endswith('level=INFO msg="transfer out 30 cents from 1"')

    def test_it_is_the_default_of_a_process_that_follows_v3(self, lines: Lines) -> None:
        kit.compat.use("v3")
        try:
            read = lines(timestamps=False)
            kit.log.get_logger().info("hi")
            assert read() == ["level=INFO msg=hi"]
        finally:
            kit.compat.use("v2")
