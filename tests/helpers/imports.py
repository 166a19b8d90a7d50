"""What `tests/programs/imports.py` met: it runs once for the tests of all files that ask, in one group."""

import functools
import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "programs" / "imports.py"
one_process = pytest.mark.xdist_group("imports")


def editable() -> bool:
    """The installed reprune is the source itself."""
    return not (Path(str(distribution("reprune").locate_file("reprune"))) / "__init__.py").is_file()


@functools.cache
def found() -> dict[str, Any]:
    """As users start Python in the folder of the source where it is what is installed, or with -P."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REPRUNE_") and k != "PYTHONSAFEPATH"}
    run_it = f"import runpy; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    command = [sys.executable, *([] if editable() else ["-P"]), "-c", run_it]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    return said
