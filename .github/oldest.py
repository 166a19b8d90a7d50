"""Constraints for pip: the lowest versions that pyproject.toml allows of what users need."""

import re
from pathlib import Path

text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
named = re.findall(r'"([A-Za-z][\w-]*)>=([\d.]+)', text.partition("\n[project]")[2].partition("\ndev = [")[0])
lowest: dict[str, tuple[int, ...]] = {}
for name, version in named:
    parts = tuple(map(int, version.split(".")))
    lowest[name] = max(parts, lowest.get(name, ()))
for name, parts in sorted(lowest.items()):
    print(f"{name}~={'.'.join(map(str, (*parts, *([0] * (3 - len(parts))))))}")
