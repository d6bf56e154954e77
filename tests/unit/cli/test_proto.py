"""``kit proto``: what it writes, what it leaves alone, and what it refuses."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from kit import errors
from kit.cli import _python, main
from kit.errors import Error, NotFound

SHOP = """\
syntax = "proto3";
package api.shop.v1;
import "errors/errors.proto";
import "google/api/annotations.proto";
import "google/protobuf/empty.proto";
// Shop sells.
service ShopService {
  // Says "hi".
  rpc Sell(google.protobuf.Empty) returns (Item) {
    option (google.api.http) = {get: "/v1/item"};
  }
  rpc Watch(Item) returns (stream Item);
}
message Item { string id = 1; }
enum Reason {
  option (errors.default_code) = 500;
  // No such item.
  ITEM_NOT_FOUND = 0 [(errors.code) = 404];
  TeaPot = 1 [(errors.code) = 418];
  BROKEN = 2;
}
enum Plain { NOTHING = 0; }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one proto, to work in."""
    work = tmp_path / "work"
    (work / "api" / "shop" / "v1").mkdir(parents=True)
    (work / "pyproject.toml").touch()
    (work / "api" / "shop" / "v1" / "shop.proto").write_text(SHOP)
    (work / "internal" / "service").mkdir(parents=True)
    monkeypatch.chdir(work)
    return work


def kit(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["proto", *arguments])


def done(*arguments: str) -> str:
    result = kit(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def tree(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


def refused(folder: Path, said: str, *arguments: str) -> None:
    """Exit status 2, and every file as it was."""
    before = tree(folder)
    result = kit(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert tree(folder) == before


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("made", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("order.proto", "write for example api/shop/v1/order.proto"),
        ("api/shop/v1/order", "is no .proto file"),
        ("api/shop/v1/shop.proto", "is there already"),
        ("api/class/v1/order.proto", "'class' is a word of Python"),
        ("api/my-shop/v1/order.proto", "such as api/my_shop/v1/order.proto"),
        ("api/Shop/v1/order.proto", "such as api/shop/v1/order.proto"),
        ("api/7/order.proto", "such as api/x7/order.proto"),
        ("../outside/x.proto", "outside of the project"),
    ],
)
def test_a_proto_that_could_not_be_imported_is_not_added(
    folder: Path, path: str, said: str
) -> None:
    refused(folder, said, "add", path)


def test_an_added_proto_compiles_and_is_linted(folder: Path) -> None:
    """Five methods, their paths and two errors."""
    assert json.loads(done("add", "api/shop/v2/user-center.proto", "--json")) == {
        "file": "api/shop/v2/user-center.proto"
    }
    done("client", "api/shop/v2/user-center.proto")
    http = (folder / "api/shop/v2/user_center_pb2_http.py").read_text()
    assert "async def ListUserCenter" in http
    document = json.loads((folder / "openapi.json").read_text())
    assert set(document["paths"]) == {"/v1/item", "/v2/user_centers", "/v2/user_centers/{id}"}


def test_a_proto_gives_messages_stubs_types_http_errors_and_a_document(folder: Path) -> None:
    answer = json.loads(done("client", "api", "--json"))
    base = "api/shop/v1/shop_pb2"
    assert answer["files"] == sorted(
        [
            *(f"{each}/__init__.py" for each in ("api", "api/shop", "api/shop/v1")),
            *(f"{base}{ending}" for ending in (".py", ".pyi", "_errors.py", "_http.py")),
            *(f"{base}_grpc{ending}" for ending in (".py", ".pyi")),
            "openapi.json",
        ]
    )
    assert answer["changed"] == answer["files"]


def test_what_did_not_change_is_not_written_again(folder: Path) -> None:
    """A run without an effect must not restart what watches the files."""
    done("client", "api")
    times = {each: each.stat().st_mtime_ns for each in folder.rglob("*.py")}
    assert json.loads(done("client", "api", "--json"))["changed"] == []
    assert {each: each.stat().st_mtime_ns for each in folder.rglob("*.py")} == times


def test_a_new_neighbour_changes_no_code(folder: Path) -> None:
    """Only the document, which describes both."""
    done("client", "api")
    done("add", "api/shop/v1/order.proto")
    done("client", "api/shop/v1/order.proto")
    assert json.loads(done("client", "api", "--json"))["changed"] == []


def test_errors_are_made_and_told_apart(folder: Path) -> None:
    """By code and reason, as go-kratos/kratos cmd/protoc-gen-go-errors does."""
    done("client", "api")
    code = module(folder / "api/shop/v1/shop_pb2_errors.py")
    made = code.error_item_not_found("no item 7", {"id": "7"})
    assert isinstance(made, NotFound)
    assert (made.code, made.reason, made.message) == (404, "ITEM_NOT_FOUND", "no item 7")
    assert code.error_item_not_found.__doc__ == "No such item."
    assert code.is_item_not_found(Error(404, "ITEM_NOT_FOUND", "from a peer"))
    assert not code.is_item_not_found(Error(500, "ITEM_NOT_FOUND"))
    assert not code.is_item_not_found(None)
    assert code.error_tea_pot().code == 418
    assert code.error_broken().code == 500
    assert not hasattr(code, "error_nothing")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("string id", "strin id", 'api/shop/v1/shop.proto:14:16: "strin" is not defined'),
        ("= 404", "= 601", "Reason.ITEM_NOT_FOUND: code 601 is not from 0 to 600"),
        ("BROKEN = 2", "TEA_POT = 2", "Reason.TeaPot and Reason.TEA_POT would both be tea_pot"),
        ('get: "/v1/item"', 'get: "/v1/{nothing}"', "nothing"),
        ("errors/errors", "errors/nothing", "errors/nothing.proto: File not found"),
    ],
)
def test_a_broken_proto_is_told_and_nothing_is_written(
    folder: Path, before: str, after: str, said: str
) -> None:
    proto = folder / "api/shop/v1/shop.proto"
    proto.write_text(SHOP.replace(before, after))
    refused(folder, said, "client", "api")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "no such file or folder"),
        ("pyproject.toml", "is no .proto file"),
        ("internal", "no .proto file in this folder"),
    ],
)
def test_a_path_without_protos_is_told(folder: Path, path: str, said: str) -> None:
    refused(folder, said, "client", path)


def test_protoc_runs_the_plugin_for_errors_itself(folder: Path) -> None:
    """For those who call protoc or buf; a refusal is protoc's error."""
    plugin = Path(sys.executable).parent / "protoc-gen-kit-errors"
    (folder / "a.proto").write_text(
        'syntax = "proto3"; package a; import "errors/errors.proto";'
        "enum Reason { GONE = 0 [(errors.code) = 410]; }"
    )
    command = [
        *(
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"-I{Path(errors.__file__).parents[1]}",
        ),
        *(f"--plugin={plugin}", "--kit-errors_out=.", "a.proto"),
    ]
    subprocess.run(command, cwd=folder, check=True)
    assert module(folder / "a_pb2_errors.py").error_gone().code == 410
    (folder / "a.proto").write_text((folder / "a.proto").read_text().replace("410", "-1"))
    refused_by = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert refused_by.returncode == 1
    assert "Reason.GONE: code -1 is not from 0 to 600" in refused_by.stderr


def test_third_parties_are_imported_and_not_generated(folder: Path) -> None:
    """Kratos' own errors.proto there is the kit's, whatever its text."""
    third = folder / "third_party"
    (third / "errors").mkdir(parents=True)
    (third / "errors" / "errors.proto").write_text(
        'syntax = "proto3"; package errors; import "google/protobuf/descriptor.proto";'
        "extend google.protobuf.EnumOptions { int32 default_code = 1108; }"
        "extend google.protobuf.EnumValueOptions { int32 code = 1109; }"
    )
    done("client", ".")
    assert not list(third.rglob("*.py"))
    code = (folder / "api/shop/v1/shop_pb2.py").read_text()
    assert "from kit.errors import errors_pb2" in code


def test_a_class_has_a_method_for_each_rpc(folder: Path) -> None:
    assert "added Sell, Watch" in done("server", "api/shop/v1/shop.proto")
    text = (folder / "internal/service/shop.py").read_text()
    assert "class ShopService(shop_pb2_grpc.ShopServiceServicer):" in text
    assert "async def Sell(self, request: empty_pb2.Empty, context: Any) -> shop_pb2.Item:" in text
    assert "def Watch(self, request: shop_pb2.Item, context: Any) -> AsyncIterator[" in text
    assert '"""Says "hi"."""' in text
    compile(text, "shop.py", "exec")


def test_what_is_written_by_hand_stays(folder: Path) -> None:
    """Only the missing method comes, with its imports, inside the class."""
    file = folder / "internal/service/shop.py"
    mine = (
        '"""Mine."""\n\nimport os\n\n\nclass ShopService:\n'
        '    """My class."""\n\n    def Watch(self):  # my way\n        return os.name\n'
    )
    file.write_text(f"{mine}\n\nAFTER = 1\n")
    assert "added Sell\n" in done("server", "api/shop/v1/shop.proto")
    text = file.read_text()
    for line in (*mine.splitlines(), "AFTER = 1"):
        assert line in text
    assert text.count("def Watch") == 1
    assert text.index("async def Sell") < text.index("AFTER")
    assert "from google.protobuf import empty_pb2\n" in text
    compile(text, "shop.py", "exec")
    assert "nothing is missing" in done("server", "api/shop/v1/shop.proto")
    assert file.read_text() == text


def test_a_new_method_speaks_as_the_file_does(folder: Path) -> None:
    """By the names it gave to modules; further imports go beside their like."""
    file = folder / "internal/service/shop.py"
    file.write_text(
        "from typing import Any\n\nfrom kit.log import Level\n\n"
        "from api.shop.v1 import shop_pb2 as pb\n\nclass ShopService:\n    level = Level"
    )
    done("server", "api/shop/v1/shop.proto")
    text = file.read_text()
    assert text.startswith(
        "from collections.abc import AsyncIterator\nfrom typing import Any\n\n"
        "from google.protobuf import empty_pb2\nfrom kit.errors import Error\n"
        "from kit.log import Level\n\nfrom api.shop.v1 import shop_pb2 as pb\n\nclass"
    )
    assert "    level = Level\n\n    async def Sell(self, request: empty_pb2.Empty" in text
    assert ") -> pb.Item:" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class ShopService(:\n", "internal/service/shop.py:1: "),
        ("class Other: ...\n", "has no class ShopService"),
    ],
)
def test_a_file_that_cannot_be_completed_is_left_alone(folder: Path, text: str, said: str) -> None:
    (folder / "internal/service/shop.py").write_text(text)
    refused(folder, said, "server", "api/shop/v1/shop.proto")


def test_the_folder_of_classes_has_to_be_there(folder: Path) -> None:
    refused(folder, "no such folder", "server", "api/shop/v1/shop.proto", "-t", "nowhere")


def test_the_project_is_the_one_around_the_protos(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever the command is given."""
    monkeypatch.chdir(folder.parent)
    done("client", "work/api")
    assert (folder / "openapi.json").exists()
    monkeypatch.chdir(folder / "internal")
    assert json.loads(done("client", "../api", "--json"))["changed"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new"], "kit new: Missing argument 'NAME'; see kit new --help\n"),
        (["proto", "nothing"], "kit proto: No such command 'nothing'; see kit proto --help\n"),
        (["--nothing"], "kit: No such option '--nothing'; see kit --help\n"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (2, said)


def test_every_command_explains_itself_with_an_example() -> None:
    for command in (["new"], ["proto", "add"], ["proto", "client"], ["proto", "server"]):
        said = CliRunner().invoke(main, [*command, "--help"]).output
        assert f"\n    kit {' '.join(command)} " in said


def test_an_old_python_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _python.check((3, 10, 4))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "kit: Python 3.11 or newer is needed, this is 3.10.4\n"
