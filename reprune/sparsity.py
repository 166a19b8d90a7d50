"""How many channels each layer keeps (REPrune, Eq. 8-9). Counts are exact: no count is ever taken from a
float product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import integer, to_floats

_UNIFORM = "use rule='uniform', which prunes the same share of every layer"


def keep_counts(
    gammas: Mapping[str, Any], sparsity: float, *, min_keep: int = 1, round_to: int = 1
) -> dict[str, int]:
    """Channels to keep in every layer, by one threshold on the BatchNorm scales of all layers.

    With G all \\|gamma\\| of all layers and F their distribution function, the threshold is
    ``g* = inf{g in G : F(g) >= sparsity}`` (Eq. 8), and a layer loses its channels with ``|gamma| <= g*``
    (Eq. 9).

    Args:
        gammas: ``{layer: gamma [O]}``; the absolute value is taken. numpy or torch.
        sparsity: share of all channels to lose, in (0, 1). For ``sparsity = count / total`` in floating
            point, exactly ``count`` gammas lie at or below the threshold (more only where gammas tie with
            it).
        min_keep: no layer keeps fewer (a layer of fewer channels keeps all).
        round_to: what is kept is rounded up to a multiple of this, at most to O.

    Returns:
        ``{layer: channels to keep}`` in the order given.

    Raises:
        ValueError: ``sparsity`` outside (0, 1); no gammas; NaN; all gammas equal, where no threshold tells
            channels apart.
    """
    share = _share(sparsity)
    least, multiple = integer(min_keep, "min_keep", 1), integer(round_to, "round_to", 1)
    magnitudes = {}
    for layer, gamma in gammas.items():
        try:
            values = to_floats(gamma, f"gammas[{layer!r}]")
        except ValueError as error:
            raise ValueError(f"{error}; {_UNIFORM}") from None
        if values.ndim != 1:
            raise ValueError(f"gammas[{layer!r}]: expected shape [O]; got {list(values.shape)}")
        magnitudes[layer] = np.abs(values.astype(np.float64))
    everything = np.sort(np.concatenate([*magnitudes.values(), np.empty(0)]))
    if everything.size == 0:
        raise ValueError(f"gammas: expected at least one; got none; {_UNIFORM}")
    if everything[0] == everything[-1]:
        raise ValueError(
            f"gammas: expected different values; all {everything.size} are {everything[0]:g}, so they rank "
            f"no channel before another; {_UNIFORM}"
        )
    threshold = everything[_rank(share, everything.size) - 1]
    return {
        layer: _keep(len(values), int((values <= threshold).sum()), least, multiple)
        for layer, values in magnitudes.items()
    }


def uniform_counts(
    sizes: Mapping[str, int], sparsity: float, *, min_keep: int = 1, round_to: int = 1
) -> dict[str, int]:
    """Channels to keep when every layer loses the same share: the smallest count c with ``c / O >=
    sparsity``.

    Args:
        sizes: ``{layer: O}``.
        sparsity: share of the channels to lose, in (0, 1).
        min_keep: no layer keeps fewer (a layer of fewer channels keeps all).
        round_to: what is kept is rounded up to a multiple of this, at most to O.

    Returns:
        ``{layer: channels to keep}`` in the order given.
    """
    share = _share(sparsity)
    least, multiple = integer(min_keep, "min_keep", 1), integer(round_to, "round_to", 1)
    counts = {}
    for layer, size in sizes.items():
        O = integer(size, f"sizes[{layer!r}]", 1)
        counts[layer] = _keep(O, _rank(share, O), least, multiple)
    return counts


def _share(sparsity: float) -> float:
    try:
        share = float(sparsity)
    except (TypeError, ValueError):
        raise TypeError(f"sparsity: expected a number between 0 and 1; got {sparsity!r}") from None
    if not 0 < share < 1:
        raise ValueError(f"sparsity: expected a number between 0 and 1; got {sparsity!r}")
    return share


def _rank(share: float, n: int) -> int:
    """The smallest count with ``count / n >= share`` in floating point.

    Division rounds correctly, so ``share = c / m`` compares equal to every count / n that is the same
    fraction. The product ``share * n`` does not have that: it only tells where to begin.
    """
    count = min(max(math.ceil(share * n), 1), n)
    while count > 1 and (count - 1) / n >= share:
        count -= 1
    while count / n < share:
        count += 1
    return count


def _keep(O: int, lost: int, min_keep: int, round_to: int) -> int:
    keep = max(O - lost, min_keep)
    return min(-(-keep // round_to) * round_to, O)
