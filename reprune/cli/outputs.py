"""Check the files that a command is about to write."""

import os
from collections.abc import Mapping
from pathlib import Path

from ..files.atomic import check_place
from .errors import UserError


def check_output(option: str, path: Path, others: Mapping[str, Path | None] | None = None) -> None:
    """Raise `UserError`, before anything long begins, if `path` cannot be written or is one of `others`.

    `others` is {what is read or also written: its path}; links and other names of the same file are
    recognised.
    """
    try:
        check_place(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path}: {error}") from error
    for what, other in (others or {}).items():
        if other is not None and _same(path, other):
            raise UserError(f"{option}: {path} is the file of {what}, which would be overwritten")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.is_file() and one.samefile(other)  # two commands may write to one device
    return os.path.realpath(one) == os.path.realpath(other)
