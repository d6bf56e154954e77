"""How sources are merged and placeholders replaced."""

import pytest

from tests.unit.config.helpers import loaded, refused, variable, yaml


async def test_maps_merge_and_anything_else_is_replaced() -> None:
    """Spec §17.2, 3.0: later wins, also with null, empty and false values."""
    config = await loaded(
        yaml("a: {x: 1, y: {p: 1}}\nl: [1, 2]\nn: {k: 1}\ns: text\nf: true\nm: {k: 1}\ng: 5"),
        yaml("a: {y: {q: 2}}\nl: [3]\nn: null\ns: ''\nf: false\nm: text\ng: {k: 1}"),
    )
    assert config.value("").raw == {
        "a": {"x": 1, "y": {"p": 1, "q": 2}},
        "l": [3],
        "n": None,
        "s": "",
        "f": False,
        "m": "text",
        "g": {"k": 1},
    }


async def test_a_merged_value_knows_the_item_that_won() -> None:
    """The line to change is the one that counts."""
    config = await loaded(yaml("a:\n  x: 1\n  y: 1", "1.yaml"), yaml("\n\na:\n  y: 2", "2.yaml"))
    assert config.value("a.x").origin == "configs/1.yaml:2"
    assert config.value("a.y").origin == "configs/2.yaml:4"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${a.b}", "found"),
        ("${a.b:default}", "found"),
        ("${a.empty:default}", ""),
        ("${a.none:default}", ""),
        ("${a.c:default}", "default"),
        ("${a.c}", ""),
        ("${a.c:}", ""),
        ("${GRPC_ADDR:0.0.0.0:9000}", "0.0.0.0:9000"),
        ("${GREETING:hello}", "hi"),
        ("${NOTHING:x}", ""),
        ("http://${a.b}:${a.port}/${a.c:x}", "http://found:8080/x"),
        ("${ a.b : x}", "found"),
        ("${a.c : x}", " x"),
        ("${ a.b}", "found"),
        ("${a.flag}|${a.ratio}", "true|0.5"),
        ("$HOME and $5 and ${", "$HOME and $5 and ${"),
        ("${c:${a.b}}", "${a.b}"),
        ("${}", ""),
        ("${nested}", "<found>"),
    ],
)
async def test_a_placeholder_is_replaced(text: str, result: str) -> None:
    """Spec §17.3: merged tree first, then variables, then the default, else nothing."""
    config = await loaded(
        yaml("a: {b: found, empty: '', none: null, port: 8080, flag: true, ratio: 0.5}"),
        yaml("nested: <${a.b}>"),
        yaml(f"value: '{text}'\nlist: [1, '{text}', {{k: '{text}'}}]"),
        environ={"GREETING": "hi", "NOTHING": "", "a.b": "not this one"},
    )
    assert config.value("value").raw == result
    assert config.value("list").raw == [1, result, {"k": result}]


async def test_a_placeholder_takes_a_variable_of_a_source_before_one_of_the_process() -> None:
    """Variables of an env source are part of the tree, as in kratos."""
    config = await loaded(
        variable("NAME", "source"), yaml("a: ${NAME}"), environ={"NAME": "process"}
    )
    assert config.value("a").raw == "source"


async def test_a_placeholder_that_cannot_be_replaced_is_a_problem_with_a_place() -> None:
    """A circle, and something that is no value."""
    assert await refused(yaml("a:\n  x: ${b}\nb: -${a.x}-\nc: ${a}\nd: ${e}\ne: [1]")) == [
        "configs/config.yaml:2: a.x: the placeholder refers back to itself: a.x -> b -> a.x",
        "configs/config.yaml:4: c: the placeholder ${a} stands for a mapping",
        "configs/config.yaml:5: d: the placeholder ${e} stands for a list",
    ]


async def test_placeholders_cannot_blow_up() -> None:
    """Each doubles the one before: the text is bounded."""
    text = "a0: xxxxxxxxxx\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 40))
    problems = await refused(yaml(text))
    assert problems[0].endswith("a17: placeholders make a text of over 1048576 bytes")


async def test_another_programs_variable_that_looks_like_a_placeholder_is_no_problem() -> None:
    """A shell prompt has ``${debian_chroot:+...}``, and may name itself."""
    config = await loaded(variable("PS1", "${PS1:+x}"), yaml("a: 1"))
    assert config.value("a").raw == 1
