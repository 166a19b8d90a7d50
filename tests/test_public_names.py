"""The public names are loaded on first use, and `reprune/__init__.py` says of each thrice where it lives."""

import ast
import importlib
from pathlib import Path

import pytest

import reprune
from tests.helpers.processes import run_code

SOURCE = ast.parse(Path(reprune.__file__).read_text())


def names_for_type_checkers() -> dict[str, str]:
    """{name: the module that it is imported from} of the block `if TYPE_CHECKING`."""
    (block,) = (
        node for node in SOURCE.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom) and node.module)
    return {alias.name: f".{node.module}" for node in imports for alias in node.names}


def test_type_checkers_are_told_what_happens() -> None:
    assert names_for_type_checkers() == reprune._HOME
    assert {*reprune._HOME, "BackendUnavailable"} == set(reprune.__all__)


@pytest.mark.parametrize("name", reprune.__all__)
def test_a_name_is_the_one_of_its_module(name: str) -> None:
    home = importlib.import_module(reprune._HOME.get(name, ".clustering.backends"), "reprune")
    assert getattr(reprune, name) is getattr(home, name)
    assert getattr(reprune, name).__module__.startswith("reprune.")


def output(code: str) -> set[str]:
    """The words that `code` prints in a fresh Python."""
    run = run_code(code, check=True)
    return set(run.stdout.split())


def test_every_name_is_listed_before_it_is_used() -> None:
    assert {*reprune.__all__, *reprune._MODULES, "__version__"} <= output(
        "import reprune; print(*dir(reprune))"
    )


def test_a_module_needs_no_import_of_its_own() -> None:
    names = ", ".join(f"reprune.{name}.__name__" for name in reprune._MODULES)
    assert output(f"import reprune; print({names})") == {f"reprune.{name}" for name in reprune._MODULES}


def test_another_name_is_refused_as_ever() -> None:
    with pytest.raises(AttributeError, match="module 'reprune' has no attribute 'linkages'"):
        reprune.linkages  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'linkages'"):
        from reprune import linkages  # noqa: F401
