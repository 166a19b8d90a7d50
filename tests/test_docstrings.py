"""Docstrings of public functions and classes: every argument on its own line, and examples that are right."""

import ast
import doctest
import inspect
import re
from pathlib import Path

import pytest

import reprune

ROOT = Path(__file__).parents[1]
ENTRIES = (
    "Pruner", "apply", "compensate", "cut", "keep_counts", "linkage", "load", "load_training", "make_plan",
    "max_coverage", "prune", "save", "save_training", "select_filters",
)  # fmt: skip


def arguments_of(docstring):
    """The names below "Args:"."""
    section = re.search(r"^Args:\n(.*?)(?:\n\S|\Z)", inspect.cleandoc(docstring) + "\n", re.S | re.M)
    return [] if section is None else re.findall(r"^    (\w+): ", section[1], re.M)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_has_a_line(name):
    function = getattr(reprune, name)
    if name == "prune":  # whose docstring refers to make_plan's
        assert inspect.signature(function).parameters.keys() == inspect.signature(
            reprune.make_plan
        ).parameters.keys() | {"calibrate"}
        assert arguments_of(function.__doc__) == ["calibrate"]
        return
    assert arguments_of(function.__doc__) == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_an_example(name):
    assert re.search(r"^Examples:\n    \S", inspect.cleandoc(getattr(reprune, name).__doc__), re.M)


@pytest.mark.parametrize("name", ENTRIES)
def test_examples_run(name):
    function = getattr(reprune, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={}) or [None]
    output = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=output.append)
    assert result.failed == 0, "".join(output)


def test_a_wrong_example_is_found():
    def function():
        """>>> 1 + 1
        3
        """

    (test,) = doctest.DocTestFinder().find(function, "function", globs={})
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed == 1
    assert arguments_of(
        "It.\n\nArgs:\n    x: A.\n        more: of x.\n    y: B.\n\nReturns:\n    z: no."
    ) == ["x", "y"]


NO_VERBS = set(
    "A All An Are As By Can Does Each Every How In Is It Its No One That The Their They This What Where "
    "Whether Which Whose Why".split()
)


def riddles_in(source):
    """Functions and modules whose docstrings do not begin with a verb; ruff checks the verb's form."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.Module))]
    named = ((getattr(node, "name", "the module"), node) for node in nodes if not is_property(node))
    return [
        name
        for name, node in named
        if (text := ast.get_docstring(node)) and (text.split()[0] in NO_VERBS or not text[0].isupper())
    ]


def is_property(node):
    return any("property" in ast.unparse(mark) for mark in getattr(node, "decorator_list", ()))


def test_a_docstring_begins_with_a_verb():
    files = sorted(path for folder in ("reprune", "kernels") for path in (ROOT / folder).rglob("*.py"))
    names = {path.relative_to(ROOT).as_posix(): path for path in files}
    found = {name: riddles_in(path.read_text()) for name, path in names.items()}
    assert len(found) > 100
    assert {name: riddles for name, riddles in found.items() if riddles} == {}


def test_a_riddle_is_found():
    assert riddles_in('def f():\n    """What stays."""') == ["f"]
    assert riddles_in('"""`x` as it is."""') == ["the module"]
    assert riddles_in('def f():\n    """Return what stays."""') == []
