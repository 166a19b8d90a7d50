"""The page of promises names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_promises_name_tests() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    named = re.findall(r"`(tests/test_\w+\.py)` \|$", page, re.MULTILINE)
    assert len(named) >= 25
    assert [name for name in named if not (ROOT / name).is_file()] == []
