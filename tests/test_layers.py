"""Who may import whom: data flows one way, and `import reprune` stays light."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.imports import found, one_process
from tests.helpers.processes import run_code

ROOT = Path(__file__).parents[1]

# A row imports only from the rows above it; the members of a row do not know each other.
ROWS = (
    {"aliases", "arguments", "distributed", "strict_json", "timings", "kernels", "_core"},
    {"clustering", "modules"},
    {"graph", "optimizers", "plan", "hierarchy"},
    {"targets", "surgery", "compensation", "sklearn"},
    {"layer_problems", "reconstruction", "fsdp"},
    {"planner"},
    {"pruner", "torch_pruning"},
    {"files"},
    {"lightning", "transformers", "demo", "bench"},
    {"cli"},
)
ALONE = {"kernels", "_core"}  # import nothing of reprune at all
USERS = {"demo", "bench", "cli"}  # written as our users write: they may say `import reprune`
HEAVY = {"triton", "torchvision", "scipy", "matplotlib", "mlxtend", "rich", "sklearn", "pandas", "lightning"}
HEAVY |= {"torch_pruning", "transformers", "onnx", "onnxscript", "onnxruntime", "torchao"}


def row_of(module: str) -> int:
    return next((index for index, row in enumerate(ROWS) if module in row), -1)


def modules() -> Iterator[tuple[str, Path]]:
    """(package that holds it, file) of every source file but the two that stand outside the rows."""
    for folder, package in ((ROOT / "reprune", "reprune"), (ROOT / "kernels", "reprune.kernels")):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).parent.parts
            if (package, *inside) != ("reprune",) or path.stem not in ("__init__", "__main__"):
                yield ".".join((package, *inside)), path


def member(name: str) -> str:
    """`reprune.graph.labels` -> `graph`; "" for reprune itself."""
    return name.partition(".")[2].partition(".")[0]


def imported(source: str, package: str) -> Iterator[str]:
    """The full names that `source`, a file of `package`, imports from reprune, at whatever depth."""
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
        ("plan", "from reprune.modules.slicing import slice_tensor", 0),
        ("plan", "import reprune.surgery", 1),
        ("clustering", "from reprune import plan", 1),
        ("clustering", "def f():\n    from reprune.plan import PruningPlan", 1),
        ("kernels", "from reprune.clustering.backends import resolve", 1),
        ("plan", "import reprune", 1),
        ("cli", "import reprune\nfrom reprune import demo", 0),
        ("graph", "from reprune.graph.labels import Labels", 0),
        ("optimizers", "from . import plan", 1),
        ("planner", "from .clustering.backends import resolve", 0),
        ("graph", "from numpy import graph", 0),
    ],
)
def test_the_check_finds_offences(module: str, source: str, count: int) -> None:
    assert len(offences(module, source)) == count


def imports_of_each(files: dict[str, str]) -> dict[str, set[str]]:
    """{module: those of `files` that it imports, be it for types; a package stands for its `__init__`."""
    packages = {name.rpartition(".")[0] for name in files}
    found: dict[str, set[str]] = {}
    for name, source in files.items():
        package = name if name in packages else name.rpartition(".")[0]
        found[name] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
                names = {f"{base}.{alias.name}" for alias in node.names}
                found[name] |= {other if other in files else base for other in names}
        found[name] &= files.keys() - {"reprune"}
    return found


def a_circle(files: dict[str, str]) -> list[str]:
    try:
        TopologicalSorter(imports_of_each(files)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_imports() -> None:
    files = {
        f"{package}.{path.stem}".removesuffix(".__init__"): path.read_text() for package, path in modules()
    }
    assert a_circle(files) == []


def test_a_circle_is_found() -> None:
    files = {
        "reprune.p": "from .one import f",
        "reprune.p.one": "def f():\n    from .two import g",
        "reprune.p.two": "from ..q import h",
    }
    assert a_circle(files) == []
    assert len(a_circle({**files, "reprune.p.two": "if TYPE_CHECKING:\n    from .one import f"})) == 3
    assert len(a_circle({**files, "reprune.p.two": "from . import f"})) == 4


def private_names(source: str) -> list[str]:
    """What is imported from another package and begins with an underscore."""
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.level > 1 or (node.module or "").startswith("reprune"))
        for alias in node.names
        if f"{node.module or ''}.{alias.name}".split(".")[-1].startswith("_")
        or any(part.startswith("_") for part in (node.module or "").split("."))
    ]


@pytest.mark.parametrize("package,path", list(modules()), ids=lambda value: getattr(value, "stem", None))
def test_no_private_name_of_another_package(package: str, path: Path) -> None:
    assert private_names(path.read_text()) == []
    assert private_names("from ..graph.rules import _rule\nfrom ..graph._rules import rule") != []


@one_process
def test_import_is_light() -> None:
    before, after = (
        {name.partition(".")[0] for name in found()[when]}
        for when in ("torch", "reprune")  # torch may bring triton along
    )
    assert "reprune" in after - before
    assert (after - before) & HEAVY == set()


LOADED = "print(*sys.modules)"
ITS_OWN = {"reprune", "reprune.clustering", "reprune.clustering.backends"}  # which say the version


def loaded(*steps: str) -> list[set[str]]:
    """The modules that each of these steps loads in a fresh Python."""
    code = "; ".join(["import sys", LOADED, *(f"{step}; {LOADED}" for step in steps)])
    run = run_code(code, check=True)
    lines = [set(line.split()) for line in run.stdout.splitlines()]
    return [after - before for before, after in pairwise(lines)]


def test_what_is_not_used_at_once_is_loaded_when_it_is() -> None:
    arrays = "import numpy; points = numpy.eye(4); tree = points.astype(int)"
    calls = "reprune.linkage(points); reprune.select_filters(points, 2); reprune.max_coverage(tree, 2)"
    bare, _, clustering = loaded("import reprune", arrays, f"{calls}; from reprune import hierarchy")
    assert {name for name in bare if name.startswith("reprune")} == ITS_OWN
    assert {name.partition(".")[0] for name in bare} & {"torch", "numpy", "safetensors", *HEAVY} == set()
    assert "reprune.clustering.linkage" in clustering
    assert "torch" not in clustering
