"""Runs the tests of scipy and scikit-learn in a process of their own, with plugins that put ours in place."""

import functools
import re
import tempfile
from pathlib import Path

from tests.helpers.processes import run_module

SUITES = {
    "patch_scipy": "scipy.cluster.tests.test_hierarchy",
    "patch_sklearn": "sklearn.cluster.tests.test_hierarchical",
}
one_process = "tests of other libraries"
"""The group of the tests that ask: one process runs all suites, as torch and ours take seconds to import."""


@functools.cache
def run() -> dict[str, dict[str, int]]:
    """{plugin: {"passed": .., "patched": .., "core": ..}}; raises with the output if a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        ini = Path(folder) / "pytest.ini"  # or pytest would find the settings of this repository
        ini.write_text("[pytest]\n")
        options = ["-q", "-c", str(ini), "-p", "no:cacheprovider"]
        options += [word for plugin in SUITES for word in ("-p", f"tests.programs.{plugin}")]
        result = run_module("pytest", *options, "--pyargs", *SUITES.values(), cwd=folder)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert "failed" not in result.stdout.splitlines()[-1]
    lines = re.findall(r"^(patch_\w+): (\d+) passed, (\d+) patched, (\d+) core$", result.stdout, re.MULTILINE)
    return {
        plugin: dict(zip(("passed", "patched", "core"), map(int, counts), strict=True))
        for plugin, *counts in lines
    }
