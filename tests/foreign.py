"""Runs the tests of another library in a process of their own, with a plugin that puts ours in place."""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run(module: str, plugin: str, folder: Path) -> dict[str, int]:
    """{"passed": .., "failed": .., "patched": .., "core": ..} of the tests in `module`, and the output if
    one fails."""
    ini = folder / "pytest.ini"  # or pytest would find the settings of this repository
    ini.write_text("[pytest]\n")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-c", str(ini), "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "-p", plugin, "--pyargs", module],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    tail = "\n".join(result.stdout.splitlines()[-3:])
    return {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|patched|core)", tail)}
