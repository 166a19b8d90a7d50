"""Who may import whom: data flows one way, and ``import reprune`` stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A row imports only from the rows above it; the members of a row do not know each other.
ROWS = (
    {"arrays", "backend", "timings", "atomic", "memory", "room", "strict_json", "wrappers"},
    {"tensors", "tensor_file"},
    {"reference", "kernels", "_core"},
    {"linkage", "cut", "coverage", "sparsity", "graph", "gpu"},
    {"selection", "targets", "hierarchy", "plan_check", "plan_text"},
    {"plan", "tables"},
    {"planner", "optimizers", "origin"},
    {"surgery", "contents"},
    {"checkpoint", "distributed"},
    {"pruner"},
    {"training"},
    {"lightning", "sklearn", "torch_pruning", "demo", "bench"},
    {"cli"},
    {"__main__"},
)
ALONE = {"reference", "kernels", "_core"}  # import nothing of reprune at all
USERS = {"demo", "bench", "cli"}  # written as our users write: they may say `import reprune`
HEAVY = {"triton", "torchvision", "scipy", "matplotlib", "mlxtend", "rich", "sklearn", "pandas", "lightning"}
HEAVY |= {"torch_pruning", "onnx", "onnxscript", "onnxruntime", "torchao"}


def row_of(module: str) -> int:
    return next((index for index, row in enumerate(ROWS) if module in row), -1)


def modules() -> Iterator[tuple[str, Path]]:
    """(package that holds it, file) of every source file but the one that stands outside the rows."""
    for folder, package in ((ROOT / "reprune", "reprune"), (ROOT / "kernels", "reprune.kernels")):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).parent.parts
            if (package, *inside, path.stem) != ("reprune", "__init__"):
                yield ".".join((package, *inside)), path


def member(name: str) -> str:
    """``reprune.graph.labels`` -> ``graph``; "" for reprune itself."""
    return name.partition(".")[2].partition(".")[0]


def imported(source: str, package: str) -> Iterator[str]:
    """The full names that ``source``, a file of ``package``, imports from reprune, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            names = [f"reprune.{alias.name}" for alias in node.names] if base == "reprune" else [base]
        yield from (name for name in names if name.split(".")[0] == "reprune")


def offences(module: str, source: str, package: str = "reprune") -> list[str]:
    found = []
    for name in imported(source, package):
        other = member(name)
        above = row_of(other) < row_of(module) and module not in ALONE
        if other != module and not (above if other else module in USERS):
            found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("package,path", list(modules()), ids=lambda value: getattr(value, "stem", None))
def test_imports_come_from_the_rows_above(package: str, path: Path) -> None:
    module = member(package) or path.stem
    assert row_of(module) >= 0, f"{module} is in no row: give it one here and in CONTRIBUTING.md"
    assert offences(module, path.read_text(), package) == []


@pytest.mark.parametrize(
    "module,source,count",
    [
        ("plan", "from reprune.selection import select_filters", 0),
        ("plan", "import reprune.surgery", 1),
        ("linkage", "from reprune import cut", 1),
        ("linkage", "def f():\n    from reprune.plan import PruningPlan", 1),
        ("reference", "from reprune.backend import choose", 1),
        ("plan", "import reprune", 1),
        ("cli", "import reprune\nfrom reprune import demo", 0),
        ("graph", "from reprune.graph.labels import Labels", 0),
        ("cut", "from . import linkage", 1),
        ("cut", "from .backend import resolve", 0),
        ("cut", "from numpy import cut", 0),
    ],
)
def test_the_check_finds_offences(module: str, source: str, count: int) -> None:
    assert len(offences(module, source)) == count


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_is_light() -> None:
    own = loaded_by("import reprune") - loaded_by("import torch")  # torch may bring triton along
    assert own & HEAVY == set()
