"""Define the pruning plan of a whole model: frozen, printable, JSON; it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..aliases import Ints
from .check import check_model, check_parts
from .composing import Kept, composed_keep, composed_slices
from .text import Lists, fields_of, written

FORMAT = 1
"""Version of the JSON form."""


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """Which channels of a model are kept.

    `print(plan)` shows a table; :func:`reprune.apply` applies it; :meth:`to_json` and :meth:`from_json` store
    it.
    """

    keep: Mapping[str, Ints]
    """{convolution: sorted kept output channels} for every convolution that was decided about."""
    channels: Mapping[str, int]
    """{convolution: number of output channels before}, in the order in which the model runs them."""
    skipped: Mapping[str, str]
    """{convolution: why it cannot be pruned}."""
    flops: tuple[int, int]
    """FLOPs of one forward pass on the example input, before and after (2 per multiply-add)."""
    params: tuple[int, int]
    """Number of parameters, before and after."""
    slices: Mapping[str, Mapping[int, Ints]] = field(repr=False)
    """{parameter or buffer: {dimension: sorted kept positions}}: all that surgery needs."""
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    """{parameter or buffer that is sliced: its shape before}."""
    widths: Mapping[str, int] = field(default_factory=dict, repr=False)
    """{norm without tensors: number of its input channels}, which no tensor tells."""
    coverage: Mapping[str, float] = field(default_factory=dict, repr=False)
    """{convolution: fraction of its kernel clusters that the kept filters cover}."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The target and the other settings."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as a pass in training mode that could not be traced."""

    fingerprint: str = field(default="", repr=False)
    """A digest of the names and shapes of the model's parameters; "" if it is not known."""

    def __eq__(self, other: object) -> bool:
        """Return whether both keep the same channels of the same model, found in the same way."""
        if not isinstance(other, PruningPlan):
            return NotImplemented
        return self is other or self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it holds arrays and dictionaries

    def check(self, model: nn.Module) -> None:
        """Raise `ValueError` unless this is a whole plan, made for a model with the tensors of `model`."""
        self._check_parts()
        check_model(model, self.fingerprint, self.keep, self.params, self.slices, self.shapes)

    def _check_parts(self) -> None:
        check_parts(self.keep, self.channels, self.slices, self.shapes, self.coverage)

    def composed_with(self, first: PruningPlan) -> PruningPlan:
        """Return this plan, made for a model that `first` had pruned, as one plan for the full model."""
        slices = composed_slices(first.slices, self.slices)
        shapes = {**self.shapes, **first.shapes}
        before, then = (Kept(plan.keep, plan.channels, plan.slices) for plan in (first, self))
        keep, channels = composed_keep(before, then, slices, shapes)
        return PruningPlan(
            keep=keep,
            channels=channels,
            skipped={name: why for name, why in self.skipped.items() if name not in keep},
            flops=(first.flops[0], self.flops[1]),
            params=(first.params[0], self.params[1]),
            slices=slices,
            shapes=shapes,
            widths={**first.widths, **self.widths},
            coverage={k: share for k, share in {**first.coverage, **self.coverage}.items() if k in keep},
            settings=self.settings,
            notes=tuple(dict.fromkeys((*first.notes, *self.notes))),
            fingerprint=first.fingerprint,
        )

    after = composed_with  # its first name

    def to_json(self) -> str:
        """Return the plan as JSON text with a checksum; equal lists of positions are written once."""
        lists = Lists()
        return written(
            {
                "format": FORMAT,
                "keep": {name: lists.number(kept) for name, kept in self.keep.items()},
                "channels": dict(self.channels),
                "skipped": dict(self.skipped),
                "flops": self.flops,
                "params": self.params,
                "slices": {
                    name: {str(dim): lists.number(kept) for dim, kept in dims.items()}
                    for name, dims in self.slices.items()
                },
                "shapes": {name: list(shape) for name, shape in self.shapes.items()},
                "widths": dict(self.widths),
                "coverage": dict(self.coverage),
                "settings": dict(self.settings),
                "notes": list(self.notes),
                "fingerprint": self.fingerprint,
                "positions": lists.lists,
            }
        )

    @staticmethod
    def from_json(text: str) -> PruningPlan:
        """Return the plan that :meth:`to_json` wrote.

        Raises `ValueError` if the text is something else, damaged or from a newer version.
        """
        plan = PruningPlan(**fields_of(text, FORMAT))
        try:
            plan._check_parts()
        except ValueError as error:
            raise ValueError(f"text: a damaged pruning plan ({error})") from None
        return plan

    def __str__(self) -> str:
        width = max((len(name) for name in self.keep), default=5)
        lines = [f"{'layer':<{width}}  channels    kept  coverage"]
        for name, kept in self.keep.items():
            share = f"{self.coverage[name]:9.3f}" if name in self.coverage else ""
            lines.append(f"{name:<{width}}  {self.channels[name]:8d}  {len(kept):6d} {share}".rstrip())
        for what, (before, after) in (("FLOPs", self.flops), ("parameters", self.params)):
            lines.append(f"{what}: {before:,} -> {after:,} ({after / max(before, 1):.1%} left)")
        reasons: dict[str, list[str]] = {}
        for name, why in self.skipped.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            others = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"not pruned: {', '.join(names[:3])}{others} ({why})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
