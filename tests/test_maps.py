"""Every folder has its map: a line in the docstring of its `__init__.py` for each file, and for no other."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("tests/helpers", "tests/programs", "tests/tools", "benchmarks/gpu", "benchmarks/training")
MAPPED += ("benchmarks/zoo", "kernels", "reprune/compensation", "reprune/reconstruction")


def named(docstring: str) -> list[str]:
    """What the lines of a map begin with; its columns are at least two spaces apart."""
    return re.findall(r"^(\w+) {2,}\S", docstring, re.MULTILINE)


@pytest.mark.parametrize("folder", MAPPED)
def test_the_map_has_every_file(folder: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
    there = [path.stem for path in (ROOT / folder).iterdir() if path.suffix in (".py", ".cpp")]
    assert sorted(named(docstring)) == sorted(set(there) - {"__init__"})


def test_only_tests_lie_beside_the_folders() -> None:
    files = {path.name for path in (ROOT / "tests").iterdir() if path.is_file()}
    assert {name for name in files if not name.startswith("test_")} == {"__init__.py", "conftest.py"}


def test_the_readme_of_the_benchmarks_has_every_script() -> None:
    folder = ROOT / "benchmarks"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in folder.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    readme = (folder / "README.md").read_text()
    assert set(re.findall(r"^\| `python -m ([\w.]+)", readme, re.MULTILINE)) == modules
    benches = {path.name for path in folder.glob("bench_*.py")}
    assert set(re.findall(r"^\| `pytest benchmarks/([\w.]+)", readme, re.MULTILINE)) == benches


def test_folders_import_each_other_without_sys_path() -> None:
    files = [path for name in ("tests", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")]
    edits = re.compile(r"sys\.path\.(insert|append|extend)\(")
    found = {str(path.relative_to(ROOT)) for path in files if edits.search(path.read_text())}
    simulator = {"benchmarks/gpu/simulated.py", "tests/helpers/ptx.py"}  # found in a folder that may be there
    assert found == simulator | {"tests/test_atomic.py"}  # which loads one module of reprune by itself
