"""``kit run`` with real services: what starts them again, what they say, how they end."""

import asyncio
import contextlib
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tests.conformance.tools.conftest import KIT, Tools
from tests.conformance.tools.services import config, several, single

WITHIN = 60.0


def all_of(terminal: int) -> bytes:
    """What was written to the other end of a terminal that everybody has closed there."""
    said = b""
    with contextlib.suppress(OSError):  # EIO: that was all
        while chunk := os.read(terminal, 65_536):
            said += chunk
    os.close(terminal)
    return said


async def test_a_service_is_started_again_when_its_code_or_configuration_changes(
    tools: Tools, tmp_path: Path
) -> None:
    """Once for each change; a file that is neither changes nothing; Ctrl-C drains and exits 0."""
    folder = single(tmp_path / "hello")
    kit = await tools.kit(folder, "run", "-reload", "--", "-loud")
    await kit.says(r"^   kit │ hello is python -m main -conf configs -loud$", within=WITHIN)
    await kit.says(r"^ hello │ one first loud$", within=WITHIN)
    await kit.says(r"server listening on", within=WITHIN)
    (folder / "hello.db").write_text("data")
    beside = folder / ".greeting"
    beside.write_text('TEXT = "another"\n')  # of another length, or its .pyc could still hold
    beside.rename(folder / "greeting.py")
    await kit.says(r"^   kit │ greeting.py changed: hello starts again$", within=WITHIN)
    await kit.says(r"^ hello │ another first loud$", within=WITHIN)
    await kit.says(r"server listening on", times=2, within=WITHIN)
    beside = folder / "configs" / ".new"
    beside.write_text(config("second"))
    beside.rename(folder / "configs" / "config.yaml")  # as editors do
    await kit.says(r"^   kit │ configs/config.yaml changed: hello starts again$", within=WITHIN)
    await kit.says(r"^ hello │ another second loud$", within=WITHIN)
    await kit.says(r"server listening on", times=3, within=WITHIN)
    assert await kit.stop(signal.SIGINT) == 0
    assert kit.output.count("drained") == 3
    assert kit.output.count("starts again") == 2
    assert "\x1b" not in kit.output


async def test_a_service_that_ends_is_named_and_waits_for_the_next_change(
    tools: Tools, tmp_path: Path
) -> None:
    """With its exit status, and with the signal that killed it."""
    folder = single(tmp_path / "hello")
    (folder / "greeting.py").write_text("raise SystemExit(7)\n")
    kit = await tools.kit(folder, "run")
    await kit.says(r"^   kit │ hello ended: exit status 7$", within=WITHIN)
    (folder / "greeting.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    await kit.says(r"^   kit │ hello ended: killed by SIGKILL$", within=WITHIN)
    (folder / "greeting.py").write_text('TEXT = "mended"\n')
    await kit.says(r"^ hello │ mended first calm$", within=WITHIN)
    await kit.says(r"server listening on", within=WITHIN)
    assert await kit.stop(signal.SIGTERM) == 0
    assert "drained" in kit.output


async def test_services_side_by_side_are_restarted_for_what_concerns_them(
    tools: Tools, tmp_path: Path
) -> None:
    """A change of one's own folder or configuration concerns one, shared code all."""
    folder = several(tmp_path / "shop", "orders", "stock")
    kit = await tools.kit(folder, "run", "orders", "stock")
    await kit.says(r"^ +orders │ orders of all orders calm$", within=WITHIN)
    await kit.says(r"^ +stock │ stock of all stock calm$", within=WITHIN)
    await kit.says(r"server listening on", times=2, within=WITHIN)
    (folder / "apps" / "stock" / "greeting.py").write_text('TEXT = "stock alone"\n')
    await kit.says(r"kit │ apps/stock/greeting.py changed: stock starts again", within=WITHIN)
    await kit.says(r"^ +stock │ stock alone stock calm$", within=WITHIN)
    (folder / "configs" / "orders.yaml").write_text(config("other"))
    await kit.says(r"kit │ configs/orders.yaml changed: orders starts again", within=WITHIN)
    await kit.says(r"^ +orders │ orders of all other calm$", within=WITHIN)
    (folder / "shared.py").write_text('WHO = "both"\n')
    await kit.says(r"kit │ shared.py changed: orders, stock starts again", within=WITHIN)
    await kit.says(r"^ +orders │ orders of both other calm$", within=WITHIN)
    await kit.says(r"server listening on", times=6, within=WITHIN)
    assert await kit.stop(signal.SIGINT) == 0


async def test_a_changed_proto_is_generated_before_the_service_starts_again(
    tools: Tools, tmp_path: Path
) -> None:
    """A broken one is named with its line, and the service goes on."""
    folder = single(tmp_path / "hello")
    proto = folder / "api" / "hello.proto"
    proto.parent.mkdir()
    (proto.parent / "__init__.py").touch()
    text = 'syntax = "proto3";\npackage hello;\nmessage Hello { string NAME = 1; }\n'
    proto.write_text(text.replace("NAME", "first"))
    generate = [sys.executable, "-m", "grpc_tools.protoc", "-Iapi", "--python_out=api"]
    made = await asyncio.create_subprocess_exec(*generate, "api/hello.proto", cwd=folder)
    assert await made.wait() == 0
    (folder / "greeting.py").write_text(
        "from api.hello_pb2 import Hello\nTEXT = Hello.DESCRIPTOR.fields[0].name\n"
    )
    kit = await tools.kit(folder, "run", "--generate", " ".join(generate))
    await kit.says(r"^ hello │ first first calm$", within=WITHIN)
    await kit.says(r"server listening on", within=WITHIN)
    proto.write_text(text.replace("NAME", "= nonsense"))
    await kit.says(r"^ proto │ api/hello.proto:3:\d+:", within=WITHIN)
    await kit.says(r"proto │ no code was made; the services go on", within=WITHIN)
    assert "starts again" not in kit.output
    # Another size too: Python takes a file of the same second and size for what it has compiled.
    whole = proto.with_name(".new")
    whole.write_text(text.replace("NAME", "second_name"))
    whole.replace(proto)  # as editors save: nobody sees half of it
    await kit.says(r"^ hello │ second_name first calm$", within=WITHIN)
    await kit.says(r"server listening on", times=2, within=WITHIN)
    assert await kit.stop(signal.SIGINT) == 0
    assert kit.output.count("starts again") == 1


async def test_without_reload_it_ends_with_the_services(tools: Tools, tmp_path: Path) -> None:
    """Exit status 1 when one of them failed."""
    folder = single(tmp_path / "hello")
    (folder / "greeting.py").write_text("raise SystemExit(7)\n")
    status, said = await tools.said(folder, "run", "--no-reload")
    assert (status, said.splitlines()[-1]) == (1, "   kit │ hello ended: exit status 7")


async def test_a_second_ctrl_c_ends_a_service_that_does_not_drain(
    tools: Tools, tmp_path: Path
) -> None:
    """It is killed at once, not after the ten seconds it has."""
    folder = single(tmp_path / "hello")
    (folder / "main.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
        "print('here', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    kit = await tools.kit(folder, "run")
    await kit.says(r"hello │ here", within=WITHIN)
    kit.handle.send_signal(signal.SIGINT)
    await kit.says(r"hello │ no", within=WITHIN)
    assert await kit.stop(signal.SIGINT) == 0


async def test_it_ends_when_nobody_reads_its_lines_any_more(tools: Tools, tmp_path: Path) -> None:
    """As in ``kit run | head``; the service is stopped, and nothing is complained about."""
    tools.folder = single(tmp_path / "hello")
    pipe = f"{KIT} run | head -1; echo status ${{PIPESTATUS[0]}}"
    shell = await tools.start("bash", "bash", "-c", pipe)
    assert await shell.ended(60) == 0
    assert shell.lines == ["   kit │ hello is python -m main -conf configs", "status 0"]


@pytest.mark.parametrize("plain", [False, True], ids=["coloured", "NO_COLOR"])
async def test_names_are_coloured_on_a_terminal(tools: Tools, tmp_path: Path, plain: bool) -> None:
    """And not where ``NO_COLOR`` is set."""
    folder = single(tmp_path / "hello")
    (folder / "greeting.py").write_text("raise SystemExit(0)\n")
    ours, theirs = pty.openpty()
    env = {**os.environ, "NO_COLOR": "1" if plain else ""}
    process = await asyncio.create_subprocess_exec(
        *(KIT, "run", "--no-reload"), cwd=folder, env=env, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    assert await process.wait() == 0
    said = all_of(ours)
    assert b"hello ended: exit status 0" in said
    assert (b"\x1b[3" in said) is not plain


async def test_somebody_at_a_terminal_is_asked_which_service(tools: Tools, tmp_path: Path) -> None:
    """Among the services of the folder, and all of them."""
    folder = several(tmp_path / "shop", "orders", "stock")
    for name in ("orders", "stock"):
        (folder / "apps" / name / "greeting.py").write_text(f"raise SystemExit('{name} was run')\n")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(KIT, "run", "--no-reload"), cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b"garden\nstock\n")
    assert await process.wait() == 1
    said = all_of(ours).decode()
    assert "Which service (orders, stock, all):" in said
    assert "'garden' is not one of" in said
    assert "stock was run" in said
    assert "orders was run" not in said


async def test_what_cannot_be_run_is_one_line_and_exit_2(tools: Tools, tmp_path: Path) -> None:
    """Nobody is there to be asked, so the choices are named."""
    folder = several(tmp_path / "shop", "orders", "stock")
    (folder / "apps" / "tool").mkdir()
    (folder / "apps" / "tool" / "main.py").write_text("print('no service: it takes no conf')\n")
    empty = tmp_path / "empty" / "a" / "b" / "c" / "d" / "e"
    empty.mkdir(parents=True)
    for place, arguments, wanted in (
        (folder, (), "there are several services: orders, stock; name those to run, or use --all"),
        (folder, ("bank",), "neither a service nor a folder; the services here are orders, stock"),
        (folder, ("configs",), "there is no main.py that takes -conf"),
        (folder, ("--all", "orders"), "--all and names do not go together"),
        (empty, (), "no service in"),
        (folder, ("--frobnicate",), "No such option '--frobnicate'"),
    ):
        status, said = await tools.said(place, "run", *arguments)
        assert (status, len(said.splitlines())) == (2, 1), said
        assert said.startswith("kit run: ")
        assert wanted in said
