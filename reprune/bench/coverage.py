"""Measure greedy maximum coverage alone, on label tables as layers have them."""

from collections.abc import Mapping

import numpy as np

import reprune

from ..clustering import reference
from . import checking, peers
from .checking import WrongAnswer
from .device import coverage_turn
from .report import GPU, ONE, Case, Row
from .timing import Seconds, Turn, clocked, in_turns

TINY = 64  # filters, up to which the reference takes part
SHARE = 0.2  # part of the time for one round of numpy


def measure(shape: tuple[int, int], seconds: float, device: str = "cpu") -> list[Row]:
    """Return the rows of labels `shape` = [O, I], of which half of the filters are picked.

    Raises WrongAnswer where a pick is not the best there is.
    """
    O, I = shape
    weight = np.random.default_rng(0).standard_normal((O, I, 3, 3), dtype=np.float32)
    keep = O // 2
    labels = np.ascontiguousarray(reprune.select_filters(weight, keep, backend="cpp").labels)
    case = Case("coverage", f"labels {O}x{I}", I, O * I)
    order, gains = reprune.max_coverage(labels, keep, backend="cpp")
    checking.picks(labels, order, gains, f"{case.name}, cpp")
    checked = {ONE: f"{keep} of {keep} picks"}

    key = reference.tie_key(0, "")
    few = min(keep, 4)
    one_pick = clocked(lambda: peers.numpy_coverage(labels, few, key)).wall / few
    few = int(min(keep, max(few, SHARE * seconds / one_pick)))
    if not np.array_equal(peers.numpy_coverage(labels, few, key), order[:few]):
        raise WrongAnswer(f"{case.name}: numpy picks other filters")
    scale = peers.coverage_scale(O, keep, few)

    def numpy_turn() -> Mapping[str, Seconds]:
        return {"numpy greedy": clocked(lambda: peers.numpy_coverage(labels, few, key)) * scale}

    turns: list[Turn] = [
        lambda: {ONE: clocked(lambda: reprune.max_coverage(labels, keep, backend="cpp"))},
        numpy_turn,
    ]
    if O <= TINY:
        again = reprune.max_coverage(labels, keep, backend="reference")
        if not all(map(np.array_equal, again, (order, gains))):
            raise WrongAnswer(f"{case.name}: the reference picks other filters")
        turns.append(
            lambda: {"reference": clocked(lambda: reprune.max_coverage(labels, keep, backend="reference"))}
        )
    if device == "cuda":
        turn, checked[GPU] = coverage_turn(case.name, labels, keep)
        turns.append(turn)
    part = "" if few == keep else f"{few}/{keep}"
    return case.rows(in_turns(turns, seconds), {"numpy greedy": part}, checked, cores=1)
