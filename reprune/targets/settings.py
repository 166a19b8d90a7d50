"""Check the settings that decide which channels are kept, where a plan or pruner is requested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..arguments import seed_of, shown
from ..clustering.arrays import MOST_ON_GPU
from ..clustering.backends import resolve
from ..graph import LAYERS
from .bounds import MinKeep, check_bounds
from .target import Target, require_choice, target_of

RULES = ("bn", "uniform", "error")
CRITERIA = ("reprune", "covariance")
SCOPES = ("internal", "all")
TIES = ("random", "norm")

Select = Callable[[Any], Any]
"""A criterion: from a :class:`reprune.layer_problems.LayerProblem` to the channels that stay."""


@dataclass(frozen=True)
class Settings:
    """The choices for a whole plan or training; :func:`checked` makes them."""

    target: Target
    rule: str
    scope: str
    layers: str
    round_to: int
    min_keep: MinKeep
    ignore: tuple[str, ...]
    seed: int
    ties: str
    backend: str
    select: Select | None = None
    criterion: str = "reprune"
    calibrated: int = 0
    """Images that the rule or the criterion looks at; 0 for none."""

    @property
    def by_images(self) -> bool:
        """Whether the result depends on what the network makes of images."""
        return self.criterion == "covariance" or (self.rule == "error" and self.target[0] != "keep")

    def on(self, device: str, channels: int = 0) -> Settings:
        """Return the settings with the backend for data on `device`; raise where it cannot run.

        `channels`: the most of any group. Where the GPU cannot take so many, `"auto"` means the CPU.
        """
        return replace(self, backend=resolve(self.backend, device, on_gpu=channels <= MOST_ON_GPU))

    def to_dict(self) -> dict[str, Any]:
        """Return what a plan records; what has no part in the result is left out."""
        what, value = self.target
        minimum = dict(self.min_keep) if isinstance(self.min_keep, Mapping) else self.min_keep
        record = {
            what: value,
            "rule": self.rule,
            "scope": self.scope,
            "layers": self.layers,
            "round_to": self.round_to,
            "min_keep": minimum,
            "ignore": list(self.ignore),
            "seed": self.seed,
            "ties": self.ties,
        }
        if self.select is not None:
            record["select"] = getattr(self.select, "__name__", type(self.select).__name__)
        if self.criterion != "reprune":
            record["criterion"] = self.criterion
        if self.calibrated:
            record["calibrate"] = self.calibrated
        return record


def checked(
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: Any = 1,
    min_keep: Any = 1,
    ignore: Any = (),
    seed: Any = 0,
    ties: str = "random",
    backend: str = "auto",
    select: Any = None,
    criterion: str = "reprune",
) -> Settings:
    """Return the settings; raise a `ValueError` or `TypeError` that names a wrong one."""
    target = target_of(sparsity, flops, params, keep, latency, size_mb)
    require_choice("rule", rule, RULES)
    require_choice("scope", scope, SCOPES)
    require_choice("layers", layers, LAYERS)
    require_choice("ties", ties, TIES)
    round_to, min_keep, ignore = check_bounds(round_to, min_keep, ignore)
    seed_of(seed)
    if select is not None and not callable(select):
        raise TypeError(f"select: expected a function of a layer's problem or None; got {shown(select)}")
    require_choice("criterion", criterion, CRITERIA)
    if select is not None and criterion != "reprune":
        raise ValueError(f"criterion: expected none beside select, which is another; got {criterion!r}")
    return Settings(
        target=target,
        rule=rule,
        scope=scope,
        layers=layers,
        round_to=round_to,
        min_keep=min_keep,
        ignore=ignore,
        seed=int(seed),
        ties=ties,
        backend=backend,
        select=select,
        criterion=criterion,
    )
