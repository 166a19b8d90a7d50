"""Compute how many channels each layer keeps (REPrune, Eq. 8-9).

Counts are exact: no count is ever taken from a float product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import integer, number, shown
from .arrays import to_floats

_UNIFORM = "use rule='uniform', which prunes the same share of every layer"


def keep_counts(
    gammas: Mapping[str, Any], sparsity: float, *, min_keep: int = 1, round_to: int = 1
) -> dict[str, int]:
    r"""Return the channels to keep in every layer, by one threshold on all layers' BatchNorm scales.

    With G all \|gamma\| of all layers and F their distribution function, the threshold is
    `g* = inf{g in G : F(g) >= sparsity}` (Eq. 8), and a layer loses its channels with `|gamma| <= g*`
    (Eq. 9).

    Args:
        gammas: `{layer: gamma [O]}`; the absolute value is taken. numpy or torch.
        sparsity: share of all channels to lose, in (0, 1). For `sparsity = count / total` in floating
            point, exactly `count` gammas lie at or below the threshold (more only where gammas tie with it:
            this is the paper's rule to the letter, which removes all of them; :func:`make_plan` does not).
        min_keep: no layer keeps fewer (a layer of fewer channels keeps all).
        round_to: what is kept is rounded up to a multiple of this, at most to O.

    Returns:
        `{layer: channels to keep}` in the order given.

    Raises:
        ValueError: `sparsity` outside (0, 1); no gammas; NaN; all gammas equal, where no threshold separates
            channels.

    Examples:
        >>> import numpy as np, reprune
        >>> reprune.keep_counts({"conv1": np.array([0.1, 0.9]), "conv2": np.array([0.2, 0.3, 0.8])}, 0.4)
        {'conv1': 1, 'conv2': 2}
    """
    share = _share(sparsity)
    minimum, multiple = integer(min_keep, "min_keep", 1), integer(round_to, "round_to", 1)
    magnitudes = _magnitudes(gammas)
    everything = np.sort(np.concatenate(list(magnitudes.values())))
    threshold = everything[_rank(share, everything.size) - 1]
    return {
        layer: _keep(len(values), int((values <= threshold).sum()), minimum, multiple)
        for layer, values in magnitudes.items()
    }


class Ranking:
    r"""All channels in the order in which they are removed as the sparsity grows.

    They are sorted by \|gamma\|, and where all differ the counts are those of :func:`keep_counts`. Equal
    gammas do not rank their channels, so every layer loses the same fraction of these: the i-th of the t in a
    layer is removed at `(i + 1/2) / t`. Never more are removed than the sparsity asks for, however many tie.
    """

    def __init__(self, gammas: Mapping[str, Any], present: Mapping[str, int] | None = None) -> None:
        """Rank the channels; `present` says how many of each layer exist.

        The others, whose gamma is 0, were removed before all of them.

        Raises `ValueError` as :func:`keep_counts` does.
        """
        keys = []
        self._sizes: dict[str, int] = {}
        for index, (layer, values) in enumerate(_magnitudes(gammas).items()):
            O = self._sizes[layer] = values.size
            ascending, rank = np.sort(values), np.arange(O)
            _, first, ties = np.unique(ascending, return_index=True, return_counts=True)
            place = (2 * (rank - np.repeat(first, ties)) + 1) / (2 * np.repeat(ties, ties))
            there = rank >= (0 if present is None else O - present[layer])
            keys.append((np.full(O, index), place, ascending, there))
        layers, place, values, there = map(np.concatenate, zip(*keys, strict=True))
        order = np.lexsort((layers, place, values, there))
        self._values, self._layers = values[order], layers[order]

    def counts(self, sparsity: float) -> dict[str, int]:
        """Return the channels to keep in every layer, possibly none."""
        lost = np.bincount(self._layers[: self.leaving(sparsity)], minlength=len(self._sizes)).tolist()
        return {layer: size - gone for (layer, size), gone in zip(self._sizes.items(), lost, strict=True)}

    def leaving(self, sparsity: float) -> int:
        """Return how many channels are removed."""
        return _rank(_share(sparsity), self._values.size)

    def tie(self, leaving: int) -> tuple[float, int]:
        """Return the |gamma| of the last of `leaving` channels, and how many share it.

        The count is 0 if all of these are removed.
        """
        if not 0 < leaving < self._values.size or self._values[leaving - 1] != self._values[leaving]:
            return 0.0, 0
        value = float(self._values[leaving])
        return value, int((self._values == value).sum())


def _magnitudes(gammas: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Return {layer: |gamma| [O]}; raise if all gammas are equal."""
    magnitudes = {}
    if not isinstance(gammas, Mapping):
        raise TypeError(f"gammas: expected {{layer: numbers}}; got {shown(gammas)}")
    for layer, gamma in gammas.items():
        try:
            values = to_floats(gamma, f"gammas[{layer!r}]")
        except ValueError as error:
            raise ValueError(f"{error}; {_UNIFORM}") from None
        if values.ndim != 1:
            raise ValueError(f"gammas[{layer!r}]: expected shape [O]; got {list(values.shape)}")
        magnitudes[layer] = np.abs(values.astype(np.float64))
    everything = np.concatenate([*magnitudes.values(), np.empty(0)])
    if everything.size == 0:
        raise ValueError(f"gammas: expected at least one; got none; {_UNIFORM}")
    if everything.min() == everything.max():
        raise ValueError(
            f"gammas: expected different values; all {everything.size} are {everything[0]:g}, so they rank "
            f"no channel before another; {_UNIFORM}"
        )
    return magnitudes


def uniform_counts(
    sizes: Mapping[str, int], sparsity: float, *, min_keep: int = 1, round_to: int = 1
) -> dict[str, int]:
    """Return the channels to keep when every layer loses the same fraction.

    The loss is the smallest count c with ``c / O >= sparsity``.

    Args:
        sizes: `{layer: O}`.
        sparsity: share of the channels to lose, in (0, 1).
        min_keep: no layer keeps fewer (a layer of fewer channels keeps all).
        round_to: what is kept is rounded up to a multiple of this, at most to O.

    Returns:
        `{layer: channels to keep}` in the order given.
    """
    share = _share(sparsity)
    minimum, multiple = integer(min_keep, "min_keep", 1), integer(round_to, "round_to", 1)
    counts = {}
    for layer, size in sizes.items():
        O = integer(size, f"sizes[{layer!r}]", 1)
        counts[layer] = _keep(O, _rank(share, O), minimum, multiple)
    return counts


def _share(sparsity: float) -> float:
    share = number(sparsity, "sparsity", "a number between 0 and 1")
    if not 0 < share < 1:
        raise ValueError(f"sparsity: expected a number between 0 and 1; got {sparsity!r}")
    return share


def _rank(share: float, n: int) -> int:
    """Return the smallest count with `count / n >= share` in floating point.

    Division rounds correctly, so `share = c / m` compares equal to every count / n that is the same fraction.
    The product `share * n` lacks this property and only gives the starting point.
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
