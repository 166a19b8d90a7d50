"""What is shipped: the wheel, the source archive, and the version in one place."""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

import reprune

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("packaging")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the wheel, but for the compiled core: compiling takes long, and the install did it."""
    from scikit_build_core.build import build_wheel

    folder = tmp_path_factory.mktemp("wheel")
    with working_in(ROOT):
        name = build_wheel(str(folder), {"wheel.cmake": "false"})
    return set(zipfile.ZipFile(folder / name).namelist())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    from scikit_build_core.build import build_sdist

    folder = tmp_path_factory.mktemp("sdist")
    with working_in(ROOT):
        name = build_sdist(str(folder))
    with tarfile.open(folder / name) as archive:
        return {member.partition("/")[2] for member in archive.getnames()}


def test_wheel_holds_the_package_and_nothing_else(wheel: set[str]) -> None:
    sources = {f"reprune/{path.relative_to(ROOT / 'reprune')}" for path in (ROOT / "reprune").rglob("*.py*")}
    sources |= {
        f"reprune/kernels/{path.relative_to(ROOT / 'kernels')}" for path in (ROOT / "kernels").rglob("*.py")
    }
    sources = {name for name in sources if "__pycache__" not in name and not name.endswith(".pyc")}
    assert "reprune/py.typed" in wheel
    assert sources <= wheel
    strangers = {
        name
        for name in wheel
        if not name.startswith(("reprune/", f"reprune-{reprune.__version__}.dist-info/"))
    }
    assert strangers == set()


def test_sdist_can_be_built_and_tested(sdist: set[str]) -> None:
    for folder in ("reprune", "kernels", "csrc", "tests"):
        files = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.suffix in {".py", ".cpp", ".hpp", ".cu"}
        }
        assert files
        assert files <= sdist
    assert {"pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"} <= sdist
    assert [name for name in sdist if name.startswith((".ci", "build/", ".venv"))] == []


def test_version_stands_in_one_place() -> None:
    said = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert said is not None
    assert reprune.__version__ == version("reprune") == said[1]
    again = [path for path in (ROOT / "reprune").rglob("*.py") if f'"{said[1]}"' in path.read_text()]
    assert again == []
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == said[1]


def test_the_core_is_compiled_and_has_a_stub() -> None:
    from reprune import _core

    assert isinstance(_core.has_cuda, bool)
    assert (ROOT / "reprune" / "_core.pyi").is_file()
