"""Measure the selection of layers and whole networks: clusters, one cut, coverage."""

import time
from collections.abc import Sequence

import numpy as np

from ..clustering.problem import LayerProblem, Selection
from ..clustering.selection import select_layers
from . import checking, peers
from .checking import WrongAnswer
from .device import selection_turn
from .peer_selection import PeerSelection
from .report import GPU, ONE, Case, Row, all_threads
from .shapes import Layer
from .timing import Seconds, Turn, clocked, in_turns, threads

TINY = 64  # filters and channels, up to which the reference takes part
CHECK = 0.3  # part of the time for checking
LEAST_CHANNELS = 2  # of a layer, compared with scipy


def measure(name: str, layers: Sequence[Layer], seconds: float, cores: int, device: str = "cpu") -> list[Row]:
    """Return the rows of one layer, or of all layers of a network at once, with normal float32 weights.

    Raises WrongAnswer where clusters or cut are not scipy's, or a pick is not the best there is.
    """
    rng = np.random.default_rng(0)
    problems = [
        LayerProblem(
            layer.name,
            (rng.standard_normal((layer.O, layer.I, layer.d), dtype=np.float32).transpose(1, 0, 2),),
            layer.keep,
        )
        for layer in layers
    ]
    kernels = sum(layer.O * layer.I for layer in layers)
    case = Case("selection", name, sum(layer.I for layer in layers), kernels)
    answer = _ours(problems, 1)
    if cores > 1:
        _same(answer, _ours(problems, cores), f"{name}: {cores} threads")
    checked = check(name, problems, answer, CHECK * seconds)
    found = dict.fromkeys((ONE, all_threads(cores)), checked)

    turns: list[Turn] = [lambda: {ONE: _time(problems, 1)}]
    if cores > 1:
        turns.append(lambda: {all_threads(cores): _time(problems, cores)})
    if len(layers) == 1 and max(layers[0].O, layers[0].I) <= TINY:
        _same(answer, select_layers(problems, backend="reference"), f"{name}: the reference")
        turns.append(lambda: {"reference": clocked(lambda: select_layers(problems, backend="reference"))})
    if device == "cuda":
        turn, found[GPU] = selection_turn(name, layers)
        turns.append(turn)
    parts: dict[str, str] = {}
    if peers.installed("scipy"):
        other = PeerSelection(problems, answer, 0.1 * seconds)
        turns.append(other.turn)
        parts = dict.fromkeys(("scipy", "fastcluster"), other.part)
    return case.rows(in_turns(turns, (1 - CHECK) * seconds), parts, found, cores)


def check(name: str, problems: Sequence[LayerProblem], answer: Sequence[Selection], seconds: float) -> str:
    """Check all picks, the cut height, and the clusters of as many channels as time allows.

    A channel that ends with `keep` clusters is one whose decisive merge may set the cut of its layer, so
    all of those are compared. Returns how many channels were, in words.
    """
    oracle, right = peers.oracle("ward")
    rng = np.random.default_rng(1)
    compared = 0
    start = time.perf_counter()
    for number, (problem, found) in enumerate(zip(problems, answer, strict=True), 1):
        who = f"{name}, layer {problem.name}, cpp"
        (table,) = problem.tables
        I, O = table.shape[:2]
        checking.picks(found.labels, found.order, found.gains, who)
        decisive = np.flatnonzero(found.clusters == problem.keep)
        if found.clusters.max() > problem.keep or not len(decisive):
            raise WrongAnswer(f"{who}: no channel has exactly {problem.keep} clusters, or one has more")
        others = rng.permutation(np.setdiff1d(np.arange(I), decisive))
        truths = []
        for done, j in enumerate([*decisive, *others]):
            late = time.perf_counter() - start > seconds * number / len(problems)
            if late and done >= len(decisive) + LEAST_CHANNELS:
                break
            tree = right(table[j].astype(np.float64))
            if done < len(decisive):
                truths.append(tree[O - problem.keep - 1, 2])
            merges = int(np.count_nonzero(tree[:, 2] <= found.height * (1 + checking.OURS)))
            if not np.array_equal(
                checking.first_appearance(found.labels[:, j]), checking.partition(tree, merges)
            ):
                raise WrongAnswer(f"{who}: the clusters of channel {j} are not those of {oracle}")
            compared += 1
        checking.cut_height(found.height, np.array(truths), who)
    total = sum(len(problem.tables[0]) for problem in problems)
    return f"all picks, {compared} of {total} channels by {oracle}"


def _ours(problems: Sequence[LayerProblem], count: int) -> list[Selection]:
    with threads(count):
        return select_layers(problems, backend="cpp")


def _time(problems: Sequence[LayerProblem], count: int) -> Seconds:
    with threads(count):
        return clocked(lambda: select_layers(problems, backend="cpp"))


def _same(one: Sequence[Selection], other: Sequence[Selection], who: str) -> None:
    for a, b in zip(one, other, strict=True):
        if not (np.array_equal(a.order, b.order) and np.array_equal(a.labels, b.labels)):
            raise WrongAnswer(f"{who}: another answer than on one thread")
