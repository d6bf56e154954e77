"""``protoc-gen-kit-http``, run by a real protoc where there is one."""

import subprocess
import sys
from pathlib import Path

import google.api.annotations_pb2 as annotations  # type: ignore[import-untyped]
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

from kit.cli.protoc import generate
from tests.unit.transport.http import shop_pb2

ROOT = Path(__file__).parents[4]
HERE = Path(__file__).parent.relative_to(ROOT)
PLUGIN = Path(sys.executable).parent / "protoc-gen-kit-http"


def request(parameter: str = "", path: str = "/v1/{id}") -> plugin_pb2.CodeGeneratorRequest:
    """As protoc makes it, for a file with one method."""
    asked = plugin_pb2.CodeGeneratorRequest(parameter=parameter, file_to_generate=["a-b/c.proto"])
    seen: set[str] = set()

    def add(file: object) -> None:
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)  # type: ignore[attr-defined]
        for each in file.dependencies:  # type: ignore[attr-defined]
            add(each)
        if proto.name not in seen:
            seen.add(proto.name)
            asked.proto_file.append(proto)

    add(annotations.DESCRIPTOR)
    file = asked.proto_file.add(name="a-b/c.proto", package="a.b", syntax="proto3")
    file.dependency.append("google/api/annotations.proto")
    message = file.message_type.add(name="M")
    message.field.add(name="id", number=1, type=9, label=1, json_name="id")
    method = file.service.add(name="S").method.add(
        name="Any", input_type=".a.b.M", output_type=".a.b.M"
    )
    method.options.Extensions[annotations.http].get = path
    comment = file.source_code_info.location.add(path=[6, 0, 2, 0], span=[0, 0, 0])
    comment.leading_comments = ' say """hi""" \\ there\n'
    return asked


def test_code_and_document_are_written() -> None:
    """The code compiles whatever a comment holds."""
    response = generate(request("title=T,version=1"))
    assert response.error == ""
    code, document = response.file
    assert (code.name, document.name) == (
        "a_b/c_pb2_http.py",
        "openapi.json",
    ) or code.name == "a-b/c_pb2_http.py"
    compile(code.content, code.name, "exec")
    assert "class SHTTPServer" in code.content
    assert '"title": "T"' in document.content
    assert len(generate(request("openapi=none")).file) == 1


@pytest.mark.parametrize(
    ("parameter", "path", "said"),
    [
        ("colour=red", "/v1", "'colour=red' is not known"),
        ("compat=v9", "/v1", "neither v2 nor v3"),
        ("", "/v1/{nobody}", "has no field 'nobody'"),
        ("", "/v1/{", "braces"),
    ],
)
def test_what_is_wrong_is_told_to_protoc(parameter: str, path: str, said: str) -> None:
    """As its error, not as a traceback."""
    response = generate(request(parameter, path))
    assert said in response.error
    assert not response.file


def test_the_checked_in_files_are_what_the_plugin_writes(tmp_path: Path) -> None:
    """Through grpc_tools, as a user runs it."""
    site = Path(annotations.__file__).parents[2]
    names = [str(HERE / "shop.proto"), str(HERE / "trans.proto")]
    option = f"title=Shop,openapi={HERE / 'openapi.json'}"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{site}",
         f"--plugin=protoc-gen-kit-http={PLUGIN}", f"--kit-http_out={tmp_path}",
         f"--kit-http_opt={option}", *names],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    for name in ("shop_pb2_http.py", "trans_pb2_http.py", "openapi.json"):
        assert (tmp_path / HERE / name).read_text() == (ROOT / HERE / name).read_text(), name
    assert shop_pb2.DESCRIPTOR.name == names[0]
