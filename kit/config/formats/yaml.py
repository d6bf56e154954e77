"""YAML with lines, as Go services read it.

Plain words mean what gopkg.in/yaml.v3 lets them mean, not what YAML 1.1 does: ``yes``, ``on`` and
``12:30`` are text, ``2024-01-01`` too, ``1e3`` is a number. A model still reads ``yes`` as true
where it wants a bool. Tags that would build objects are refused, and what aliases can blow up to
is bounded.
"""

import re

import yaml
from yaml.reader import ReaderError

from kit.config.errors import ConfigError, Problem
from kit.config.tree import MAX_DEPTH, MAX_VALUES, Node, Origin, Path, Scalar, join

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR = (_TAG + word for word in ("null", "bool", "int", "float", "str"))
_MERGE, _MAP, _SEQ = (_TAG + word for word in ("merge", "map", "seq"))


def parse_yaml(text: str, label: str) -> Node:
    """The tree of a YAML document; its value is ``None`` when the document is empty.

    Raises:
        ConfigError: ``label:line:column: what is wrong``.
    """
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, label)]) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        shown = ascii(chr(ord(text[error.position])))
        raise ConfigError.of(f"the character {shown} is not allowed", f"{label}:{line}") from error
    if root is None:
        return Node(None, Origin(label, 1))
    builder = _Builder(label)
    node = builder.build(root, (), 1)
    if builder.problems:
        raise ConfigError(builder.problems)
    return node


class _Loader(yaml.SafeLoader):
    """Composes nodes with the words of yaml.v3, and stops before a document gets too large."""

    yaml_implicit_resolvers: dict[str, object] = {}  # noqa: RUF012  filled below, as PyYAML wants it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH + 1 or self._count > 2 * MAX_VALUES:
            what = f"deeper than {MAX_DEPTH} levels" if self._depth > MAX_DEPTH else "too large"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"the document is {what}", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


_NUMBER = r"(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"

for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(0|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[1-9][0-9_]*)", list("-+0123456789")),
    (_FLOAT, rf"[-+]?({_NUMBER}|\.(inf|Inf|INF))|\.(nan|NaN|NAN)", list("-+.0123456789")),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


class _Builder:
    """Turns composed nodes into ours and gathers what is wrong with them."""

    def __init__(self, label: str) -> None:
        self.problems: list[Problem] = []
        self._label = label
        self._open: set[int] = set()
        self._values = 0

    def build(self, node: yaml.Node, path: Path, line: int) -> Node:
        """``node`` as a tree; ``line`` is that of its key."""
        origin = Origin(self._label, line)
        self._values += 1
        if self._values > MAX_VALUES:
            raise ConfigError.of(
                f"more than {MAX_VALUES} values, counting what aliases stand for", str(origin)
            )
        if id(node) in self._open:
            raise ConfigError.of("an alias stands for something that contains it", str(origin))
        if len(self._open) > MAX_DEPTH:  # aliases of aliases go deeper than the text shows
            raise ConfigError.of(f"the document is deeper than {MAX_DEPTH} levels", str(origin))
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, path), origin)
        if node.tag not in {_MAP, _SEQ}:
            self._problem(node, path, f"the tag {node.tag} is not allowed in configuration")
            return Node(None, origin)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return Node(self._mapping(node, path), origin)
            return Node(
                [
                    self.build(item, (*path, str(index)), _line(item))
                    for index, item in enumerate(node.value)
                ],
                origin,
            )
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for entry in self._merged(value_node, path):
                    inherited = {**entry, **inherited}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "a key must be a word or a number")
                continue
            key, line = key_node.value, _line(key_node)
            if key in entries:
                first = entries[key].origin.line
                self._problem(key_node, (*path, key), f"given twice, first on line {first}")
                continue
            entries[key] = self.build(value_node, (*path, key), line)
        return {**inherited, **entries}

    def _merged(self, node: yaml.Node, path: Path) -> list[dict[str, Node]]:
        """The mappings that ``<<`` names; earlier ones win."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        built = [self.build(source, path, _line(source)).children for source in sources]
        if None in built:
            self._problem(node, path, "<< wants a mapping, or a list of mappings")
        return [entries for entries in built if entries is not None]

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Scalar:
        try:
            match node.tag:
                case tag if tag == _STR:
                    return str(node.value)
                case tag if tag == _NULL:
                    return None
                case tag if tag == _BOOL:
                    return _bool(node.value)
                case tag if tag == _INT:
                    return _int(node.value)
                case tag if tag == _FLOAT:
                    return float(re.sub(r"\.(inf|nan)$", r"\1", node.value.lower()))
        except ValueError:
            self._problem(node, path, f"not a {node.tag.removeprefix(_TAG)}")
            return None
        self._problem(node, path, f"the tag {node.tag} is not allowed in configuration")
        return None

    def _problem(self, node: yaml.Node, path: Path, message: str) -> None:
        self.problems.append(Problem(f"{self._label}:{_line(node)}", join(path), message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _bool(text: str) -> bool:
    if (word := text.lower()) not in {"true", "false"}:
        raise ValueError(text)
    return word == "true"


def _int(text: str) -> int:
    digits = text.replace("_", "")
    if re.fullmatch(r"[-+]?0[0-7]+", digits):  # 0644, as Go reads it
        return int(digits, 8)
    return int(digits, 0)


def _syntax_problem(error: yaml.MarkedYAMLError, label: str) -> Problem:
    """``bad.yaml:5:1: found unexpected end of stream (while scanning ... at line 3)``."""
    mark = error.problem_mark or error.context_mark
    where = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
    around = ""
    if error.context:
        at = f" at line {error.context_mark.line + 1}" if error.context_mark else ""
        around = f" ({error.context}{at})"
    return Problem(where, "", f"{error.problem}{around}")
