"""YAML, JSON and TOML become trees that know their lines."""

import json
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import MAX_ITEM_BYTES, ConfigError, KeyValue
from kit.config.formats import parse
from kit.config.tree import MAX_DEPTH, MAX_VALUES, Node


def tree(text: str, form: str = "yaml") -> Node:
    return parse(KeyValue(f"c.{form}", text.encode(), form, f"c.{form}"))


def lines(node: Node, path: str = "") -> Iterator[tuple[str, int]]:
    """Every path below ``node`` with its line."""
    entries = node.value
    if isinstance(entries, list):
        entries = {str(at): item for at, item in enumerate(entries)}
    if isinstance(entries, dict):
        for key, below in entries.items():
            yield f"{path}{key}", below.origin.line
            yield from lines(below, f"{path}{key}.")


def refusal(text: str, form: str = "yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        tree(text, form)
    return str(caught.value).splitlines()


YAML = """\
# the transfer service
server:
  grpc: {addr: "0.0.0.0:9000", timeout: 1s}
  http:
    addr: |
      two
      lines
    tags:
      - a
      -
        name: b
"""

JSON = """{
  "server": {
    "grpc": {"addr": "0.0.0.0:9000",
             "timeout": "1s"},
    "tags": [
      "a",
      {"name": "b"}
    ], "none": {}, "empty": []
  }
}
"""

TOML = '''\
# the transfer service
title = "a # b = [c]"
text = """
[not.a.table]
x = 1 \\"""
"""

[server]
addr = "0.0.0.0:9000"  # comment = 1
grpc.timeout = "1s"
"quoted.key" = 'it = "x"'
tags = [
  "a", # ]
  "b",
]

[[server.targets]] # first
url = "a"
[[server.targets]]
url = "b"
[server.targets.limits]
rate = { per = { second = 1 } }
'''


def test_yaml_entries_have_the_line_of_their_key_and_items_their_own() -> None:
    """Where somebody who reads the message will look."""
    assert dict(lines(tree(YAML))) == {
        "server": 2,
        "server.grpc": 3,
        "server.grpc.addr": 3,
        "server.grpc.timeout": 3,
        "server.http": 4,
        "server.http.addr": 5,
        "server.http.tags": 8,
        "server.http.tags.0": 9,
        "server.http.tags.1": 11,
        "server.http.tags.1.name": 11,
    }


def test_json_entries_have_the_line_of_their_key_and_items_their_own() -> None:
    """The same as in YAML."""
    node = tree(JSON, "json")
    assert node.plain() == json.loads(JSON)
    assert dict(lines(node)) == {
        "server": 2,
        "server.grpc": 3,
        "server.grpc.addr": 3,
        "server.grpc.timeout": 4,
        "server.tags": 5,
        "server.tags.0": 6,
        "server.tags.1": 7,
        "server.tags.1.name": 7,
        "server.none": 8,
        "server.empty": 8,
    }


def test_toml_entries_have_the_line_of_their_statement() -> None:
    """Also below headers, dotted keys, lists of tables, and after multi-line strings and lists."""
    node = tree(TOML, "toml")
    assert node.plain() == tomllib.loads(TOML)
    assert dict(lines(node)) == {
        "title": 2,
        "text": 3,
        "server": 8,
        "server.addr": 9,
        "server.grpc": 10,
        "server.grpc.timeout": 10,
        "server.quoted.key": 11,
        "server.tags": 12,
        "server.tags.0": 12,
        "server.tags.1": 12,
        "server.targets": 19,
        "server.targets.0": 17,
        "server.targets.0.url": 18,
        "server.targets.1": 19,
        "server.targets.1.url": 20,
        "server.targets.1.limits": 21,
        "server.targets.1.limits.rate": 22,
        "server.targets.1.limits.rate.per": 22,
        "server.targets.1.limits.rate.per.second": 22,
    }


def test_toml_with_windows_line_ends_has_the_same_lines() -> None:
    """An editor's choice changes nothing."""
    windows = tree(TOML.replace("\n", "\r\n"), "toml")
    assert dict(lines(windows)) == dict(lines(tree(TOML, "toml")))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda below: st.lists(below) | st.dictionaries(st.text(), below),
        max_leaves=20,
    ).map(lambda value: {"root": value}),
    st.sampled_from([None, 0, 3, "\t"]),
)
def test_any_json_is_read_as_the_standard_library_reads_it(
    document: dict[str, object], indent: int | str | None
) -> None:
    """The walk that notes lines gives the values of the one that does not."""
    text = json.dumps(document, indent=indent)
    assert tree(text, "json").plain() == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("+3", 3),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0644", 0o644),
        ("0b11", 3),
        ("0", 0),
        ("089", "089"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.10", 1.1),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("", None),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("0.0.0.0:9000", "0.0.0.0:9000"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"),
        ("=", "="),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ('!!int "7"', 7),
        ("1s", "1s"),
    ],
)
def test_yaml_words_mean_what_they_mean_to_go_services(text: str, value: object) -> None:
    """gopkg.in/yaml.v3: neither sexagesimal ports nor Norway's ``no``."""
    found = tree(f"a: {text}").plain()
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_yaml_anchors_and_merge_keys_work() -> None:
    """Own keys win over merged ones, earlier merges over later ones, wherever ``<<`` stands."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\nd: *a\n"
    assert tree(text).plain() == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 1, "y": 1, "z": 3},
        "d": {"x": 1, "y": 1},
    }


def test_keys_that_are_no_text_become_text() -> None:
    """Spec §17.2: map keys of other types become text."""
    assert tree("1: a\ntrue: b\n1.5: c").plain() == {"1": "a", "true": "b", "1.5": "c"}


@pytest.mark.parametrize("form", ["yaml", "yml", "json", "toml", "YAML"])
@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_item_is_an_empty_mapping(form: str, text: str) -> None:
    """Also one with nothing but a byte order mark."""
    assert tree(text, form).plain() == {}


def test_a_yaml_item_of_comments_is_an_empty_mapping() -> None:
    """All sections commented out."""
    assert tree("# server:\n#   addr: x\n").plain() == {}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "a: 1\nb: 'x\n\n\n",
            ["c.yaml:5:1: found unexpected end of stream (while scanning a quoted scalar at line"],
        ),
        ("a: 1\n b: 2", ["c.yaml:2:3: mapping values are not allowed here"]),
        ("a: 1\n---\nb: 2", ["c.yaml:2:1: but found another document (expected a single document"]),
        ("a: *b", ["c.yaml:1:4: found undefined alias 'b'"]),
        ("a: 1\nb: \x01", ["c.yaml:2: the character '\\x01' is not allowed"]),
        ("- 1\n- 2", ["c.yaml:1: the top level must be a mapping"]),
        ("just text", ["c.yaml:1: the top level must be a mapping"]),
        (
            "a: !!python/object/apply:os.system [x]",
            ["c.yaml:1: a: the tag tag:yaml.org,2002:python"],
        ),
        ("a: !secret x", ["c.yaml:1: a: the tag !secret is not allowed in configuration"]),
        ("a: !!int x", ["c.yaml:1: a: not a int"]),
        ("{[1]: 2}", ["c.yaml:1: a key must be a word or a number"]),
        ("a:\n  <<: 5", ["c.yaml:2: a: << wants a mapping, or a list of mappings"]),
        (
            "a:\n  x: 1\n  y: 2\n  x: 3\nb: 1\nb: 2",
            [
                "c.yaml:4: a.x: given twice, first on line 2",
                "c.yaml:6: b: given twice, first on line 5",
            ],
        ),
    ],
)
def test_wrong_yaml_is_refused_with_its_place(text: str, problems: list[str]) -> None:
    """All of it, where it can be told."""
    found = refusal(text)
    assert len(found) == len(problems)
    for line, start in zip(found, problems, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{\n  "a": 1,\n}', "c.json:3:1: "),
        ('{"a": tru}', "c.json:1:7: expecting value"),
        ('{"a": NaN}', "c.json: NaN is not a number in JSON"),
        ('{\n"a": 1,\n"b": {"c": 1,\n"c": 2}}', "c.json:4: b.c: given twice, first on line 3"),
        ("[1]", "c.json:1: the top level must be a mapping"),
        ('{"a": ' + "9" * 5000 + "}", "c.json: Exceeds the limit"),
    ],
)
def test_wrong_json_is_refused_with_its_place(text: str, problem: str) -> None:
    """The standard library's words, our place."""
    (line,) = refusal(text, "json")
    assert line.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb = tru", "c.toml:2:5: invalid value"),
        ("a = 1\n\na = 2\nb = 3", "c.toml:3:6: cannot overwrite a value"),
        ("a = [1,\n", "c.toml:2:1: invalid value"),
        ("[a]\n[a]", "c.toml:2:3: cannot declare ('a',) twice"),
    ],
)
def test_wrong_toml_is_refused_with_its_place(text: str, problem: str) -> None:
    """The end of the document has a line, too."""
    (line,) = refusal(text, "toml")
    assert line.lower().startswith(problem)


def _nested(levels: int) -> dict[str, str]:
    return {
        "yaml": "a: " + "[" * levels + "]" * levels,
        "json": '{"a":' + "[" * levels + "]" * levels + "}",
        "toml": "a = " + "[" * levels + "]" * levels,
    }


@pytest.mark.parametrize("form", ["yaml", "json", "toml"])
def test_a_document_as_deep_as_the_limit_is_read_and_a_deeper_one_refused(form: str) -> None:
    """Far deeper ones, too, which would otherwise end in a RecursionError."""
    tree(_nested(MAX_DEPTH - 2)[form], form)
    for levels in (MAX_DEPTH + 1, 5_000, 100_000):
        (line,) = refusal(_nested(levels)[form], form)
        assert f"deeper than {MAX_DEPTH} levels" in line


def test_a_yaml_bomb_is_defused() -> None:
    """Ten aliases of ten aliases of ...: what they stand for is counted before it is made."""
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    text += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (line,) = refusal(text)
    assert line.endswith(f"more than {MAX_VALUES} values, counting what aliases stand for")


def test_a_yaml_bomb_of_merge_keys_is_defused() -> None:
    """The same by ``<<``, and a chain of aliases that is deeper than its text."""
    text = "a0: &a0 {x: 1}\n"
    text += "".join(
        f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
    )
    (line,) = refusal(text)
    assert "values, counting what aliases stand for" in line
    chain = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 500))
    (line,) = refusal(chain)
    assert f"deeper than {MAX_DEPTH} levels" in line


def test_an_alias_of_itself_is_refused() -> None:
    """YAML can write a circle; a configuration cannot be one."""
    assert refusal("a: &a\n  b: *a") == [
        "c.yaml:2: an alias stands for something that contains it"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("yaml", "a: [" + "1," * (2 * MAX_VALUES) + "]"),
        ("json", '{"a":[' + "1," * MAX_VALUES + "1]}"),
        ("toml", "a = [" + "1," * MAX_VALUES + "]"),
    ],
)
def test_too_many_values_are_refused(form: str, text: str) -> None:
    """A limit on memory and time whatever the form."""
    (line,) = refusal(text, form)
    assert "too large" in line or "more than" in line


def test_a_large_item_is_refused_before_it_is_read() -> None:
    """Whoever the source is."""
    assert refusal("#" * (MAX_ITEM_BYTES + 1)) == [
        f"c.yaml: {MAX_ITEM_BYTES + 1} bytes, the limit is {MAX_ITEM_BYTES}"
    ]


def test_an_item_that_is_not_utf8_is_refused_with_its_line() -> None:
    """An old editor's encoding."""
    with pytest.raises(ConfigError, match=r"^c.yaml:2: byte 0xe9 is not UTF-8; save the file as"):
        parse(KeyValue("c.yaml", b"a: 1\nb: caf\xe9", "yaml"))


def test_an_unknown_format_names_the_known_ones() -> None:
    """kratos: ``unsupported key: config.ini format: ini``."""
    with pytest.raises(ConfigError, match=r"the format 'ini' of config\.ini is not known; use"):
        parse(KeyValue("config.ini", b"", "ini"))


def test_an_item_without_format_is_one_value_at_its_dotted_path() -> None:
    """Spec §17.1: the key is cut at dots, the value is text; a line end is no part of it."""
    assert parse(KeyValue("server.debug", b"true\n")).plain() == {"server": {"debug": "true"}}
