"""`import reprune` in the source folder and outside, with reprune installed there, elsewhere or nowhere."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

import reprune
from reprune import _core
from reprune.clustering import backends as backend
from tests.helpers.imports import editable, found, one_process

ROOT = Path(__file__).parents[1]
PACKAGE = Path(reprune.__file__).parent
CALL = "import numpy, reprune; print(reprune.linkage(numpy.eye(3)).shape)"
BACKENDS = ["cpp", "triton"] if find_spec("triton") else ["cpp"]
REASONS = f"from reprune.clustering import backends; print(*map(backends.unavailable, {BACKENDS}), sep='|')"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all installed packages but reprune."""
    folder = tmp_path_factory.mktemp("others")
    for place in (Path(place) for place in sys.path if place.endswith("-packages")):
        for package in place.iterdir():
            if "reprune" not in package.name and not (folder / package.name).exists():
                (folder / package.name).symlink_to(package)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    copy_package(folder)
    shutil.copytree(ROOT / "kernels", folder / "kernels")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` leaves."""
    folder = tmp_path_factory.mktemp("installed")
    copy_package(folder)
    shutil.copytree(ROOT / "kernels", folder / "reprune" / "kernels")
    shutil.copy(_core.__file__, folder / "reprune")
    name = f"reprune-{reprune.__version__}.dist-info"
    shutil.copytree(distribution("reprune").locate_file(name), folder / name)
    return folder


def copy_package(folder: Path) -> None:
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "kernels")
    shutil.copytree(PACKAGE, folder / "reprune", ignore=left_out)


def python(code: str, folder: Path, *places: Path, safe: bool = False) -> str:
    """The last line that Python writes in `folder`, where only these places have packages."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("REPRUNE_")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, places))
    flags = ["-S", "-P"] if safe else ["-S"]
    run = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=folder, env=env, capture_output=True, text=True
    )
    return (run.stdout + run.stderr).splitlines()[-1]


def test_in_the_source_folder_with_nothing_installed(checkout: Path, others: Path) -> None:
    assert python(CALL, checkout, others) == (
        f"ImportError: reprune is not installed; run 'pip install -e .' in {checkout}, with a C++17 compiler "
        "at hand"
    )


def test_in_the_source_folder_that_hides_an_installed_copy(
    checkout: Path, installed: Path, others: Path
) -> None:
    """The kernels of the GPU, which lie elsewhere in the source, are missing for the same reason."""
    for said in python(REASONS, checkout, installed, others).split("|"):
        assert said == (
            f"Python took reprune from the source folder {checkout}, where there is no compiled core, "
            f"instead of the one that is installed in {installed}; start Python in another folder, or as "
            "'python -P' (3.11 or newer), or run 'pip install -e .' in the source folder"
        )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="has no -P")
def test_the_advice_of_the_message_works(checkout: Path, installed: Path, others: Path) -> None:
    assert python(CALL, checkout, installed, others, safe=True) == "(2, 4)"


@one_process
@pytest.mark.skipif(not editable(), reason="this is no editable install")
def test_in_the_source_folder_of_an_editable_install() -> None:
    assert found()["path"][0] == ""
    assert found()["shape"] == [2, 4]


def test_no_command_of_the_readme_leaves_a_copy_that_the_source_hides() -> None:
    commands = (line for line in (ROOT / "README.md").read_text().splitlines() if "pip install" in line)
    for line in commands:
        assert "install -e " in line or '"reprune[' in line or line.endswith("install uv"), line


@pytest.mark.parametrize(
    "error, reason",
    [
        (
            ModuleNotFoundError("none"),
            "reprune._core is not built; run 'pip install -e .' in the source folder",
        ),
        (
            ImportError("no GLIBC_9"),
            r"reprune._core cannot be loaded \(no GLIBC_9\); run 'pip install -e .' in the",
        ),
    ],
)
def test_an_installed_copy_without_a_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: ImportError, reason: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.delitem(sys.modules, "reprune._core")
    monkeypatch.setattr(backend.importlib, "import_module", fail)
    monkeypatch.setattr(backend, "_HERE", tmp_path / "reprune")
    with pytest.raises(reprune.BackendUnavailable, match=reason) as caught:
        backend.core()
    assert "pip install reprune" not in str(caught.value)
