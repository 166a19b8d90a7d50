"""Runs the tests of another library in a process of their own, with a plugin that puts ours in place."""

import re
from pathlib import Path

from tests.helpers.processes import run_module


def run(module: str, plugin: str, folder: Path) -> dict[str, int]:
    """{"passed": .., "failed": .., "patched": .., "core": ..} of the tests in `module`, and the output if
    one fails."""
    ini = folder / "pytest.ini"  # or pytest would find the settings of this repository
    ini.write_text("[pytest]\n")
    options = ("-q", "-c", ini, "-p", "no:cacheprovider", "-p", f"tests.programs.{plugin}")
    result = run_module("pytest", *options, "--pyargs", module, cwd=folder)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    tail = "\n".join(result.stdout.splitlines()[-3:])
    return {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|patched|core)", tail)}
