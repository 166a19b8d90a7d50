"""Parse numbers and sizes that are given on the command line."""

import argparse
import math

from .errors import UserError


def share(option: str, text: str) -> float:
    """Parse a number between 0 and 1."""
    value = number(text)
    if not 0 < value < 1:
        percent = number(text.rstrip("% "))
        hint = f"; {percent:g} % is written {percent / 100:g}" if 1 < percent < 100 else ""
        raise UserError(f"{option}: expected a number between 0 and 1; got {text!r}{hint}")
    return value


def seed(text: str) -> int:
    """Parse an integer that PyTorch's generators take too."""
    try:
        value = int(text)
    except ValueError:
        value = 2**64  # none
    if not -(2**63) <= value < 2**64:
        raise argparse.ArgumentTypeError(f"expected an integer from -2^63 to 2^64 - 1; got {text!r}")
    return value


def megabytes(option: str, text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise UserError(f"{option}: expected a number of megabytes above 0; got {text!r}")
    return value


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> int:
    """Parse a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def fewest(text: str) -> tuple[str, int]:
    """Parse a minimum: `16` for every layer, `layer4.*=64` for some."""
    name, _, number = text.rpartition("=")
    return name or "*", positive(number)


def size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 3,224,224")
    return size
