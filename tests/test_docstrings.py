"""Docstrings of public functions and classes: every argument on its own line, and examples that are right."""

import doctest
import inspect
import re

import pytest

import reprune

ENTRIES = (
    "Pruner", "apply", "cut", "keep_counts", "linkage", "load", "load_training", "make_plan", "max_coverage",
    "prune", "save", "save_training", "select_filters",
)  # fmt: skip


def arguments_of(docstring):
    """The names below "Args:"."""
    section = re.search(r"^Args:\n(.*?)(?:\n\S|\Z)", inspect.cleandoc(docstring) + "\n", re.S | re.M)
    return [] if section is None else re.findall(r"^    (\w+): ", section[1], re.M)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_has_a_line(name):
    function = getattr(reprune, name)
    if name == "prune":  # whose docstring refers to make_plan's
        assert (
            inspect.signature(function).parameters.keys()
            == inspect.signature(reprune.make_plan).parameters.keys()
        )
        return
    assert arguments_of(function.__doc__) == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ENTRIES)
def test_it_has_an_example(name):
    assert re.search(r"^Examples:\n    \S", inspect.cleandoc(getattr(reprune, name).__doc__), re.M)


@pytest.mark.parametrize("name", ENTRIES)
def test_its_examples_are_right(name):
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
