"""The PTX simulator, where there is one: `shared/ptxsim` beside the checkout."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from reprune.clustering import backends

ROOT = Path(__file__).parents[2]
SIMULATOR = ROOT.parent / "shared" / "ptxsim"

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or backends._triton_version() < backends.OLDEST_TRITON,
    reason="Triton is not installed, or older than its backend needs",
)
older_triton = backends._triton_version() < (3, 8)
"""An older assembler, which spills more; an older interpreter, which numpy 2.4 breaks."""
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler nvcc")
needs_simulator = pytest.mark.skipif(
    not (SIMULATOR / "ptxsim.py").is_file(), reason=f"no PTX simulator in {SIMULATOR}"
)

# the simulator leaves files open
open_files = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@cache
def simulator():
    """The modules `ptxsim` and `mutate`."""
    sys.path.insert(0, str(SIMULATOR))
    try:
        import mutate
        import ptxsim
    finally:
        sys.path.remove(str(SIMULATOR))
    return ptxsim, mutate


@cache
def benchmarks():
    """The modules `variants`, `binaries` and `simulated` of benchmarks/gpu."""
    from benchmarks.gpu import binaries, simulated, variants

    return variants, binaries, simulated


@cache
def compiled(source, arch, *flags):
    """The PTX of a file of csrc/ for `arch`, "sm_90" say, compiled as CMakeLists.txt says."""
    options = (f"-I{ROOT / 'csrc'}", "-std=c++17", "-O3", "-fmad=false", *flags)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ptx"
        command = ["nvcc", f"-arch={arch}", "-ptx", *options, str(ROOT / "csrc" / source), "-o", str(out)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return out.read_text()
