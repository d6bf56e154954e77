"""The examples in the docstrings of the kit hold."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import kit

OPTIONAL = {"apsw", "uvloop"}
"""Extras that an environment may lack."""


def _modules() -> list[str]:
    """Every module of the kit, without generated code and without what starts programs."""
    found = pkgutil.walk_packages(kit.__path__, "kit.")
    left_out = ("_pb2", "_pb2_grpc", ".pb", "__main__")
    return sorted(module.name for module in found if not module.name.endswith(left_out))


@pytest.mark.parametrize("name", _modules())
def test_the_examples_of_a_module_hold(name: str) -> None:
    """As written, with nothing prepared."""
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"needs {error.name}")
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_examples_are_found() -> None:
    """The modules above are looked into, not passed over."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    counts = {
        name: sum(len(test.examples) for test in finder.find(import_module(name)))
        for name in ("kit.duration", "kit.errors", "kit.errors.codes", "kit.log.text")
    }
    assert all(counts.values()), counts
