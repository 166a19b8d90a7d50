"""The CUDA sources: registers and warnings, and what an import does with them."""

import re
import shutil
import subprocess
import sys

import pytest

from reprune.clustering.backends import core
from tests.helpers.imports import found, one_process
from tests.helpers.ptx import ROOT, needs_nvcc


@needs_nvcc
@pytest.mark.parametrize(
    "arch", ["sm_90", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("sm_80", "sm_100"))]
)
def test_no_spills_and_no_warnings(arch, tmp_path):
    options = "-std=c++17 -O3 -fmad=false -Werror all-warnings -Xcompiler=-Wall,-Wextra,-Werror -Xptxas -v"
    command = [
        "nvcc",
        f"-arch={arch}",
        *options.split(),
        "-I.",
        "-c",
        "gpu/coverage.cu",
        "-o",
        str(tmp_path / "x.o"),
    ]
    run = subprocess.run(command, cwd=ROOT / "csrc", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", run.stderr)
    assert frames == [("0", "0", "0")] * 4
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", run.stderr)]
    assert len(registers) == 4
    assert max(registers) <= 128  # what 512 threads of one block may have


def test_cuda_is_built_in_where_the_functions_are():
    assert isinstance(core().has_cuda, bool)
    assert core().has_cuda == hasattr(core(), "cover_layers") == hasattr(core(), "add_squares")


@one_process
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_an_import_loads_nothing_of_cuda():
    with_torch, with_the_core = (found()[f"maps with {what}"] for what in ("torch", "the core"))
    before, after = (set(re.findall(r"(libcuda\w*)\.so", maps)) for maps in (with_torch, with_the_core))
    assert "_core" in with_the_core
    assert after <= before


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
@pytest.mark.parametrize("wanted, path", [("OFF", None), ("AUTO", "no nvcc")])
def test_it_builds_without_nvcc(wanted, path, tmp_path, monkeypatch):
    pybind11 = pytest.importorskip("pybind11")
    given = [f"-DREPRUNE_CUDA={wanted}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    if path is not None:  # as if there were none, wherever it is
        given.append("-DCMAKE_CUDA_COMPILER=NOTFOUND")
        monkeypatch.setenv("CUDACXX", str(tmp_path / "nvcc"))
    command = ["cmake", str(ROOT), f"-DPython_EXECUTABLE={sys.executable}", *given]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "reprune: CUDA OFF" in run.stdout


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_a_wrong_option_is_named(tmp_path):
    command = ["cmake", str(ROOT), "-DREPRUNE_CUDA=maybe"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert "REPRUNE_CUDA: expected ON, OFF or AUTO; got maybe" in " ".join(run.stderr.split())
