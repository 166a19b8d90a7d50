"""Measure full dendrograms: `reprune.linkage` on batches, other libraries problem by problem."""

import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

import reprune

from . import peers
from .checking import OURS, PEERS, WrongAnswer, same_tree
from .device import linkage_turn
from .report import GPU, ONE, Case, Row, all_threads
from .timing import Seconds, Turn, clocked, in_turns, threads

LARGE, MANY = 5000, 9  # points and coordinates from which the slower peers are left out
TINY = 64  # points, up to which the reference takes part
CHECK, PEER = 0.25, 0.15  # parts of the time for checking, and for one round of all peers


def measure(
    shape: tuple[int, int, int], method: str, seconds: float, cores: int, device: str = "cpu"
) -> list[Row]:
    """Return the rows of one batch `shape` = (B, n, d) of normal points; B = 1 is in the group "single".

    Raises WrongAnswer where a dendrogram is not scipy's.
    """
    B, n, d = shape
    rng = np.random.default_rng(0)
    points = rng.standard_normal(shape)
    if B == 1:
        case = Case("single", f"{n}x{d}, {method}", 1, n)
    else:
        case = Case("dendrograms", f"{B} of {n}x{d}, {method}", B, B * n)
    answers = {ONE: _ours(points, method, 1)}
    if cores > 1:
        answers[all_threads(cores)] = _ours(points, method, cores)
        if not np.array_equal(answers[ONE], answers[all_threads(cores)]):
            raise WrongAnswer(f"{case.name}: {cores} threads give another answer than one")
    oracle, right = peers.oracle(method)
    turn_of = rng.permutation(B)
    start, count = time.perf_counter(), 0
    for b in turn_of:
        same_tree(answers[ONE][b], right(points[b]), f"{case.name}, problem {b}, cpp", OURS)
        count += 1
        if count >= min(B, 4) and time.perf_counter() - start > CHECK * seconds:
            break
    each = (time.perf_counter() - start) / count
    checked = dict.fromkeys(answers, f"{count} of {B} by {oracle}")

    others = peers.linkages(method)
    if B == 1:
        for who in _left_out(n, d):
            others.pop(who, None)
    elif n <= TINY:
        others["reference"] = lambda problem: reprune.linkage(problem, method, backend="reference")
    size = int(min(B, max(2, PEER * seconds / (each * max(1, len(others))))))
    sample = turn_of[:size]
    trees = [right(points[b]) for b in sample]
    for who, link in others.items():
        if who == oracle:
            continue
        for b, tree in zip(sample, trees, strict=True):
            tolerance = OURS if who == "reference" else PEERS
            same_tree(link(points[b]), tree, f"{case.name}, problem {b}, {who}", tolerance)

    turns: list[Turn] = [lambda: {ONE: _time(points, method, 1)}]
    if cores > 1:
        turns.append(lambda: {all_threads(cores): _time(points, method, cores)})
    if device == "cuda" and method == "ward":
        turn, checked[GPU] = linkage_turn(case.name, points)
        turns.append(turn)
    turns += [partial(_peer, who, link, points[sample], B / size) for who, link in others.items()]
    part = "" if size == B else f"{size}/{B}"
    return case.rows(in_turns(turns, (1 - CHECK) * seconds), dict.fromkeys(others, part), checked, cores)


def _left_out(n: int, d: int) -> list[str]:
    """Return the peers that would take minutes or only repeat scipy's figures."""
    return ["scikit-learn", *["scipy"] * (n >= LARGE), *["fastcluster, vector"] * (n >= LARGE and d > MANY)]


def _ours(points: npt.NDArray[np.float64], method: str, count: int) -> npt.NDArray[np.float64]:
    with threads(count):
        return reprune.linkage(points, method, backend="cpp")


def _time(points: npt.NDArray[np.float64], method: str, count: int) -> Seconds:
    with threads(count):
        return clocked(lambda: reprune.linkage(points, method, backend="cpp"))


def _peer(
    who: str, link: peers.Linkage, problems: npt.NDArray[np.float64], scale: float
) -> Mapping[str, Seconds]:
    def all_of_them() -> None:
        for problem in problems:
            link(problem)

    return {who: clocked(all_of_them) * scale}
