"""The process: its configuration and its flags.

Source: dtm-labs/dtm dtmsvr/config, dtmsvr/entry/main.go.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from kit.ports import free_port
from tests.conformance.dtm.clients import unique
from tests.conformance.dtm.coordinators import Coordinators, accepted, msg, ours, seconds_of
from tests.processes import COORDINATOR

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(autouse=True)
def only_ours() -> None:
    ours()


def environment(folder: Path) -> dict[str, str]:
    """Of a coordinator that reads no file."""
    return {
        "HTTP_PORT": str(free_port()),
        "GRPC_PORT": str(free_port()),
        "LISTEN": "127.0.0.1",
        "STORE_DRIVER": "sqlite",
        "STORE_PATH": str(folder / "coordinator.db"),
        "TRANS_CRON_INTERVAL": "1",
        "TIMEOUT_TO_FAIL": "20",
        "MICRO_SERVICE_DRIVER": "dtm-driver-kratos",
    }


async def test_row_61_environment_alone_configures(deployed: Coordinators) -> None:
    """Without ``-c`` no file is read."""
    given = environment(deployed.folder())
    process = await deployed.run.start("coordinator", COORDINATOR, "--dev", env=given)
    ports = {"HttpPort": int(given["HTTP_PORT"]), "GrpcPort": int(given["GRPC_PORT"])}
    await process.listens(*ports.values())
    tm = await deployed.connected("sqlite", ports, process)
    gid = unique("env")
    accepted(await tm.http.prepare(msg(tm.http, gid, query="query")))
    await tm.past(gid, 21)  # TIMEOUT_TO_FAIL was read
    await tm.until(gid, "succeed")
    await process.stop()


async def test_row_61_file_wins_over_the_environment(deployed: Coordinators) -> None:
    tm = await deployed.start(
        env={"HTTP_PORT": str(free_port()), "RETRY_INTERVAL": "3", "TIMEOUT_TO_FAIL": "4"},
        RetryInterval=12,
        TimeoutToFail=40,
    )
    gid = unique("file")
    accepted(await tm.http.prepare(msg(tm.http, gid)))
    assert (await tm.tx(gid))["next_cron_interval"] == 12
    assert tm.process is not None
    await tm.process.stop()


async def test_row_61_keys_of_dtm_that_change_nothing_are_accepted(
    deployed: Coordinators,
) -> None:
    """A file written for dtm starts."""
    tm = await deployed.start(
        JsonRpcPort=36791,
        ConfigUpdateInterval=3,
        UpdateBranchAsyncGoroutineNum=1,
        HttpMicroService={"Driver": "default"},
        GrpcServiceConfig='{"loadBalancingConfig":[{"round_robin":{}}]}',
        LogLevel="info",
        AlertRetryLimit=3,
    )
    assert (await tm.http.send("GET", "/api/ping")).body == {"msg": "pong"}
    assert tm.process is not None
    await tm.process.stop()


@pytest.mark.parametrize(("offset", "zone"), [("+8", "+08:00"), ("-3", "-03:00")])
async def test_row_61_times_are_shown_in_the_zone_of_the_configuration(
    deployed: Coordinators, offset: str, zone: str
) -> None:
    tm = await deployed.start(TimeZoneOffset=offset)
    gid = unique("zone")
    accepted(await tm.http.prepare(msg(tm.http, gid)))
    tx = await tm.tx(gid)
    assert tx["create_time"].endswith(zone)
    assert abs(seconds_of(tx["create_time"]) - await tm.now()) < 60
    assert tm.process is not None
    await tm.process.stop()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"RetryInterval": 9}, "RetryInterval should not be less than 10"),
        ({"TimeoutToFail": 9}, "TimeoutToFail should not be less than RetryInterval"),
        ({"Store": {"Driver": "mysql", "Port": 1, "User": "u"}}, "Db host not valid"),
        ({"Store": {"Driver": "postgres", "Host": "h", "User": "u"}}, "Db port not valid"),
        ({"Store": {"Driver": "mysql", "Host": "h", "Port": 1}}, "Db user not valid"),
        (
            {"Store": {"Driver": "postgres", "Host": "h", "Port": 1, "User": "u", "Schema": ""}},
            "Postgres schema not valid",
        ),
        ({"Store": {"Driver": "redis", "Port": 1}}, "Redis host not valid"),
        ({"Store": {"Driver": "redis", "Host": "h"}}, "Redis port not valid"),
        ({"Store": {"Driver": "boltdb"}}, "boltdb"),
        ({"MicroService": {"Driver": "dtm-driver-none"}}, "dtm-driver-none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_row_61_settings_that_cannot_work_end_the_process_with_their_words(
    deployed: Coordinators, settings: dict[str, Any], said: str
) -> None:
    process = await deployed.launch(settings, deployed.folder())
    assert await process.ended() == 2
    assert said in process.output
    assert "Traceback" not in process.output


async def test_row_61_passwords_are_not_printed(deployed: Coordinators) -> None:
    """Unlike dtm, which prints its configuration."""
    settings = {
        "Store": {
            "Driver": "redis",
            "Host": "127.0.0.1",
            "Port": free_port(),
            "Password": "hunter2-secret",
        },
        "LogLevel": "debug",
        "RetryInterval": 9,
    }
    process = await deployed.launch(settings, deployed.folder())
    await process.ended()
    assert "hunter2" not in process.output


async def said_by(deployed: Coordinators, *args: str) -> tuple[int, str]:
    process = await deployed.run.start("coordinator", COORDINATOR, *args)
    return await process.ended(), process.output


@pytest.mark.parametrize("flag", ["-v", "--v"])
async def test_row_62_v_prints_the_version(deployed: Coordinators, flag: str) -> None:
    code, said = await said_by(deployed, flag)
    assert code == 0
    assert re.fullmatch(r"dtm version: v\S+\n", said)


async def test_row_62_h_prints_the_usage(deployed: Coordinators) -> None:
    code, said = await said_by(deployed, "-h")
    assert code == 0
    for flag in ("-c", "-d", "-r", "-v", "-h"):
        assert flag in said


async def test_row_62_positional_argument_is_refused_with_the_way_to_the_usage(
    deployed: Coordinators,
) -> None:
    """dtm prints all of it; one line names the argument and the flag to ask with."""
    code, said = await said_by(deployed, "config.yaml")
    assert code == 2
    assert "config.yaml" in said
    assert "-h" in said


async def test_row_62_d_logs_more(deployed: Coordinators) -> None:
    # What is logged at that level is mostly of grpcio.
    tm = await deployed.start(flags=("--dev", "-d"), GrpcEngine="grpcio")
    accepted(await tm.http.submit(msg(tm.http, unique("debug"), wait_result=True)))
    assert tm.process is not None
    await tm.process.stop()
    assert "DEBUG" in tm.process.output


async def test_row_62_r_empties_the_store_first(deployed: Coordinators, store: str) -> None:
    folder, apart = deployed.folder(), deployed.apart(store)
    gid = unique("reset")
    first = await deployed.start(store, folder=folder, Store=apart)
    accepted(await first.http.prepare(msg(first.http, gid)))
    accepted(await first.http.get("subscribe", topic=gid, url=first.http.url("a"), remark=""))
    assert first.process is not None
    await first.process.stop()
    second = await deployed.start(store, folder=folder, Store=apart, flags=("--dev", "-r"))
    assert await second.query(gid) == {"branches": [], "transaction": None}
    assert (await second.http.get("queryKV", cat="topics", key=gid)).body["kv"] == []
    accepted(await second.http.submit(msg(second.http, gid, wait_result=True)))
    assert second.process is not None
    await second.process.stop()
