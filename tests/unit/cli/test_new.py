"""``kit new``: what it refuses, and that a refusal leaves nothing behind."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kit.cli import main
from kit.cli.new import source
from kit.cli.new.names import names_of
from kit.cli.proto import compiler


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one to work in."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def kit(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def tree(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))


def refused(folder: Path, said: str, *arguments: str) -> None:
    """One line, exit status 2, and the folder as it was."""
    before = tree(folder)
    result = kit(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [each for each in result.stderr.splitlines() if not each.endswith("…")]
    assert line.startswith("kit: ")
    assert said in line
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class", "a word of Python"),
        ("Lambda", "a word of Python"),
        ("bänk", "beyond a to z"),
        ("2fast", "begins with a letter"),
        ("two--dashes", "such as two-dashes"),
        ("a b", "such as a-b"),
        ("-", "is no name"),
        ("errors", "would hide the protos"),
        ("a" * 31, "more than 30 characters"),
        ("..", "is no name"),
    ],
)
def test_a_name_that_cannot_be_imported_is_explained(folder: Path, name: str, said: str) -> None:
    refused(folder, said, "new", "--", name)


def test_dashes_become_underscores_where_python_needs_it() -> None:
    """As kratos keeps the name of the folder, and of the service."""
    names = names_of("order-service")
    assert (names.name, names.package, names.service) == (
        "order-service",
        "order_service",
        "OrderService",
    )
    assert (names.cls, names.module, names.env) == ("OrderService", "order", "ORDER_SERVICE_")


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_left_alone(folder: Path, kind: str) -> None:
    place = folder / "bank"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.touch()
    else:
        place.symlink_to("nowhere")
    refused(folder, "is there already", "new", "bank")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--transaction=saga", "--db=none"], "needs a database"),
        (["--transaction=xa", "--db=sqlite"], "prepares transactions"),
        (["--kit=nowhere.whl"], "no such file"),
        (["--kit=."], "the kit's sources are not in this folder"),
        (["--kit=@"], "neither a wheel"),
        (["--nomod"], "no pyproject.toml"),
        (["--nomod", "--kit=kit"], "--kit is for a project of its own"),
        (["--repo=."], "is no layout"),
    ],
)
def test_flags_that_do_not_fit_are_explained(folder: Path, flags: list[str], said: str) -> None:
    refused(folder, said, "new", "bank", *flags)


def test_a_folder_that_may_not_be_written_is_named(folder: Path) -> None:
    """As it is for anybody but root, who may write everywhere."""
    if os.geteuid() == 0:
        place = "/proc/bank"  # where not even root makes folders
    else:
        folder.chmod(0o500)
        place = "bank"
    refused(folder, "/proc" if os.geteuid() == 0 else str(folder), "new", place)


def test_without_the_extra_the_command_that_brings_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compiler._EXTRA, "a_module_that_is_not_there", "some-package>=1")
    refused(folder, "'some-package>=1'", "new", "bank")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A small layout of somebody's own."""
    layout = tmp_path / "layout"
    for folder in ("api", "home", "project"):
        (layout / folder).mkdir(parents=True)
    (layout / "home" / "__module__.py.j2").write_text("NAME = '{{ name }}'\n")
    (layout / "home" / "blank.py.j2").write_text("{% if db != 'none' %}X = 1{% endif %}\n")
    (layout / "project" / "pyproject.toml.j2").write_text("# {{ kit.requirement(['proto']) }}\n")
    return layout


def test_a_layout_of_ones_own_is_filled_in(folder: Path, layout: Path) -> None:
    result = kit("new", "my-shop", f"--repo={layout}", "--kit=kit>=7", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == ["my_shop.py", "pyproject.toml"]
    assert (folder / "my-shop" / "my_shop.py").read_text() == "NAME = 'my-shop'\n"
    assert (folder / "my-shop" / "pyproject.toml").read_text() == "# kit[proto]>=7\n"


def test_a_broken_template_is_named_with_its_line(folder: Path, layout: Path) -> None:
    (layout / "home" / "x.py.j2").write_text("ok\n{{ nothing_of_this_name }}\n")
    refused(folder, "home/x.py.j2", "new", "bank", f"--repo={layout}")


def test_a_broken_proto_of_a_layout_is_named_as_protoc_does(folder: Path, layout: Path) -> None:
    (layout / "api" / "x.proto.j2").write_text('syntax = "proto3";\npackage api;\nmessage {}\n')
    refused(folder, "api/bank/x.proto:3:9: ", "new", "bank", f"--repo={layout}")


def test_a_second_service_goes_beside_the_first(folder: Path, layout: Path) -> None:
    """Its folders become packages; an API that is there is not overwritten."""
    (layout / "api" / "x.proto").write_text('syntax = "proto3";\npackage api;\nmessage X {}\n')
    (folder / "pyproject.toml").touch()
    made = kit("new", "services/my-shop", "--nomod", f"--repo={layout}")
    assert made.exit_code == 0, made.output
    assert (folder / "services" / "__init__.py").exists()
    assert (folder / "services" / "my_shop" / "my_shop.py").exists()
    assert (folder / "api" / "my_shop" / "x_pb2.py").exists()
    assert not list(folder.rglob(".kit-new-*"))
    refused(folder, "api/my_shop is there", "new", "more/my-shop", "--nomod", f"--repo={layout}")


def test_a_layout_may_have_no_api_and_has_to_have_a_home(folder: Path, layout: Path) -> None:
    """A service that nobody calls; and nothing at all."""
    (folder / "pyproject.toml").touch()
    made = kit("new", "services/worker", "--nomod", f"--repo={layout}")
    assert made.exit_code == 0, made.output
    assert (folder / "services" / "worker" / "worker.py").exists()
    assert not (folder / "api").exists()
    (layout / "api" / "x.proto").write_text('syntax = "proto3";\npackage api;\n')
    for each in (layout / "home").iterdir():
        each.unlink()
    refused(folder, "has no folder home", "new", "services/x", "--nomod", f"--repo={layout}")


@pytest.mark.parametrize("place", ["queue", "kit", "api/stock"])
def test_a_service_does_not_hide_what_others_import(folder: Path, place: str) -> None:
    """The root is the first place where Python looks."""
    (folder / "pyproject.toml").touch()
    refused(folder, "take a folder for it", "new", place, "--nomod")


class Installed:
    """A distribution that came from somewhere."""

    version = "0.7.0"

    def __init__(self, url: str | None, **info: object) -> None:
        self._text = None if url is None else json.dumps({"url": url, **info})

    def read_text(self, name: str) -> str | None:
        return self._text


@pytest.mark.parametrize(
    ("given", "requirement"),
    [
        (Installed(None), "kit[proto]==0.7.0"),
        (Installed("https://h/kit-1.whl", archive_info={}), "kit[proto] @ https://h/kit-1.whl"),
        (Installed("https://h/k.git", vcs_info={"vcs": "git"}), "kit[proto] @ git+https://h/k.git"),
    ],
)
def test_a_project_gets_the_kit_from_where_this_one_came(
    monkeypatch: pytest.MonkeyPatch, given: Installed, requirement: str
) -> None:
    """A bare ``kit`` would be somebody else's package."""
    monkeypatch.setattr(source, "distribution", lambda _: given)
    assert source.kit_source(None).requirement(["proto"]) == requirement


def test_a_wheel_that_is_gone_has_to_be_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Installed(f"file://{folder}/kit-0.7.0-py3-none-any.whl", archive_info={})
    monkeypatch.setattr(source, "distribution", lambda _: gone)
    refused(folder, "name a wheel or a checkout with --kit", "new", "bank")
