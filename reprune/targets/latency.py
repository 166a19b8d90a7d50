"""Turn a latency target into counts by a search over real timings, since FLOPs do not tell."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import nn

from ..aliases import Counts, Progress
from ..graph import ChannelGraph
from ..modules.slicing import sliced_copy
from ..timings import UNTRUSTED
from .budget import Budget
from .clock import Ratio, compare

NEAR = 0.02
"""Relative difference from the target at which a network is accepted at once."""
LANDED = 0.05
"""Relative difference accepted in the end; a network further below the target gets a note."""
MOST = 16
"""Maximum number of networks that are timed."""
SECONDS = 120.0
"""Time after which no other network is timed."""


def within_latency(
    target: float,
    graph: ChannelGraph,
    budget: Budget,
    bounds: str,
    progress: Progress | None = None,
) -> tuple[Counts, str]:
    """Return the counts whose network takes `target` of the full time, and what was measured.

    The search varies the fraction of FLOPs (`budget`), on which the time depends loosely, between a network
    that was too slow and one that was too fast. The time depends on how many channels are removed and not on
    which, so nothing is clustered.

    The result is timed once more, because it was chosen for its closeness to the target among timings that
    scatter.

    Raises `ValueError` if the smallest network that the `bounds` allow still takes longer, and
    `TimeoutError` if there was no time to find one that does not.
    """
    end = time.perf_counter() + SECONDS
    tried: list[tuple[Counts, Ratio]] = []
    bracket = Bracket(target, budget.left(budget.smallest()))
    late = False
    while not late and len(tried) < MOST and (share := bracket.next()) is not None:
        counts = budget.within(share)
        ratio = next((ratio for before, ratio in tried if before == counts), None)
        if ratio is None:
            if progress is not None:
                progress("measure", len(tried), MOST)
            ratio = _timed(counts, graph)
            tried.append((counts, ratio))
        if abs(ratio.middle - target) <= NEAR * target:
            break
        bracket.update(share, budget.left(counts), ratio.middle)
        late = time.perf_counter() > end
    if progress is not None:
        progress("measure", MOST, MOST)
    counts, first, gap = _best(target, tried, late, bounds)
    words = _note(target, first, _timed(counts, graph))
    return counts, words + (f"; no other was timed after {SECONDS:g} s" if late else gap)


@dataclass
class Bracket:
    """The search interval: two fractions of FLOPs, one with a time above the target, one below."""

    target: float
    bottom: float
    """The fraction of FLOPs of the smallest network."""
    slow: tuple[float, float] = (1.0, 1.0)
    """(fraction of FLOPs, time)."""
    fast: tuple[float, float] | None = None

    def next(self) -> float | None:
        """Return the fraction to try, interpolated well inside; None if nothing is between."""
        x, y = self.slow
        if self.fast is None:
            if x <= self.bottom:
                return None
            slope = (1 - y) / (1 - x) if x < 1 else 1.0
            guess = x - (y - self.target) / max(slope, 0.25)
            guess = min(guess, x - 0.2 * (x - self.bottom))
            return self.bottom if guess < self.bottom + 0.01 else guess
        low, time = self.fast
        if x - low < 1e-3:
            return None
        guess = low + (self.target - time) * (x - low) / (y - time)
        margin = 0.1 * (x - low)
        return min(max(guess, low + margin), x - margin)

    def update(self, share: float, left: float, time: float) -> None:
        """Note that the largest network of at most `share` has `left` of the FLOPs and took `time`."""
        if time > self.target:
            self.slow = left, time
        else:
            self.fast = share, time


def _of_size(graph: ChannelGraph, counts: Counts) -> nn.Module:
    """Return a network with the first channels of each group, as many as `counts` says."""
    kept = graph.everything()
    for group in graph.groups:
        kept[group.atoms[counts[group.name] :]] = False
    kept = graph.traced.filled(kept)
    return sliced_copy(graph.model, graph.traced.slices(kept), graph.traced.widths(kept))


def _timed(counts: Counts, graph: ChannelGraph) -> Ratio:
    try:
        return compare(_of_size(graph, counts), graph.model, graph.example)
    except TimeoutError as error:
        raise TimeoutError(f"latency: expected example_inputs that take less time; {error}") from error


def _best(
    target: float, tried: list[tuple[Counts, Ratio]], late: bool, bounds: str
) -> tuple[Counts, Ratio, str]:
    """Return the try nearest to the target, or the slowest below it with a note on the gap above."""
    nearest = min(tried, key=lambda pair: abs(pair[1].middle - target))
    below = [pair for pair in tried if pair[1].middle <= target]
    slower = [pair[1] for pair in tried if pair[1].middle > target]
    if abs(nearest[1].middle - target) <= LANDED * target:
        return *nearest, ""
    if not below:
        fastest = min(slower, key=lambda ratio: ratio.middle)
        if late:
            raise TimeoutError(
                f"latency: found no network of at most {target:g} of the full network's time in "
                f"{SECONDS:g} s; the fastest of {len(tried)} takes {fastest}"
            )
        raise ValueError(
            f"latency: {target:g} of the full network's time cannot be reached; {bounds} takes {fastest}"
        )
    counts, ratio = max(below, key=lambda pair: pair[1].middle)
    next_larger = min(slower, key=lambda ratio: ratio.middle) if slower else "more"
    return counts, ratio, f"; the next larger network takes {next_larger}"


def _note(target: float, first: Ratio, ratio: Ratio) -> str:
    """Describe what was measured, a missed target, and a first timing that disagreed."""
    words = f"it takes {ratio} of the full network's time on the example input"
    if abs(ratio.middle - target) > LANDED * target:
        words += f", not {target:g}"
    if abs(ratio.middle - first.middle) > LANDED * first.middle:
        words += f"; timed before, {first.middle:.3f}, so timings here are {UNTRUSTED}"
    return words
