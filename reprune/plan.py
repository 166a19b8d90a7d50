"""A pruning plan: what is kept of a whole model.  Frozen, printable, JSON; it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ints = npt.NDArray[np.int64]

FORMAT = 1
"""Version of the JSON form."""


@dataclass(frozen=True)
class PruningPlan:
    """Which channels of a model are kept.

    ``print(plan)`` shows a table; :func:`reprune.apply` carries it out; :meth:`to_json` and
    :meth:`from_json` store it.
    """

    keep: Mapping[str, Ints]
    """{convolution: sorted kept output channels} for every convolution that a decision was made about."""
    channels: Mapping[str, int]
    """{convolution: number of output channels before}, in the order in which the model runs them."""
    skipped: Mapping[str, str]
    """{convolution: why it stays whole}."""
    flops: tuple[int, int]
    """FLOPs of one forward pass on the example input, before and after (2 per multiply-add)."""
    params: tuple[int, int]
    """Number of parameters, before and after."""
    slices: Mapping[str, Mapping[int, Ints]] = field(repr=False)
    """{parameter or buffer: {dimension: sorted kept positions}}: all that surgery needs."""
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    """{parameter or buffer that is sliced: its shape before}."""
    widths: Mapping[str, int] = field(default_factory=dict, repr=False)
    """{norm that neither learns nor counts: the channels that it is given}: such have no tensors to tell
    by."""
    coverage: Mapping[str, float] = field(default_factory=dict, repr=False)
    """{convolution: share of its kernel clusters that the kept filters cover}."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The target and the choices that it was made with."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as a pass in training mode that could not be traced."""

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ``ValueError`` unless `tensors` are those of a model that this plan was made for."""
        for name, shape in self.shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != shape:
                what = "has no such tensor" if found is None else f"has shape {found}"
                raise ValueError(
                    f"plan: made for a model whose {name} has shape {shape}; this model {what}.  A "
                    f"plan fits the model "
                    "that it was made for, before it is pruned"
                )

    def after(self, first: PruningPlan) -> PruningPlan:
        """This plan, made for a model that `first` had already pruned, as one plan for the full model."""
        slices = {name: dict(dims) for name, dims in first.slices.items()}
        for name, dims in self.slices.items():
            mine = slices.setdefault(name, {})
            for dim, kept in dims.items():
                mine[dim] = mine[dim][kept] if dim in mine else kept
        keep = dict(first.keep)
        for name, kept in self.keep.items():
            keep[name] = keep[name][kept] if name in keep else kept
        return PruningPlan(
            keep=keep,
            channels={**self.channels, **first.channels},
            skipped={name: why for name, why in self.skipped.items() if name not in keep},
            flops=(first.flops[0], self.flops[1]),
            params=(first.params[0], self.params[1]),
            slices=slices,
            shapes={**self.shapes, **first.shapes},
            widths={**first.widths, **self.widths},
            coverage={**first.coverage, **self.coverage},
            settings=self.settings,
            notes=tuple(dict.fromkeys((*first.notes, *self.notes))),
        )

    def to_json(self) -> str:
        """The plan as JSON text; equal lists of positions are written once."""
        lists: list[list[int]] = []
        known: dict[bytes, int] = {}

        def number(positions: Ints) -> int:
            key = positions.tobytes()
            if key not in known:
                known[key] = len(lists)
                lists.append(positions.tolist())
            return known[key]

        return json.dumps(
            {
                "format": FORMAT,
                "keep": {name: number(kept) for name, kept in self.keep.items()},
                "channels": dict(self.channels),
                "skipped": dict(self.skipped),
                "flops": self.flops,
                "params": self.params,
                "slices": {
                    name: {str(dim): number(kept) for dim, kept in dims.items()}
                    for name, dims in self.slices.items()
                },
                "shapes": {name: list(shape) for name, shape in self.shapes.items()},
                "widths": dict(self.widths),
                "coverage": dict(self.coverage),
                "settings": dict(self.settings),
                "notes": list(self.notes),
                "positions": lists,
            }
        )

    @staticmethod
    def from_json(text: str) -> PruningPlan:
        """The plan that :meth:`to_json` wrote.  ``ValueError`` if it is something else, damaged or from a
        newer version."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"text: expected the JSON of a pruning plan, got something else ({error})"
            ) from None
        if not isinstance(raw, dict) or "format" not in raw:
            raise ValueError("text: expected the JSON of a pruning plan, got JSON without a 'format'")
        if raw["format"] != FORMAT:
            raise ValueError(
                f"text: this version of reprune reads plans of format {FORMAT}, got format "
                f"{raw['format']!r}; "
                "use the version that wrote it, or a newer one"
            )
        try:
            lists = [np.array(positions, dtype=np.int64) for positions in raw["positions"]]
            return PruningPlan(
                keep={name: lists[k] for name, k in raw["keep"].items()},
                channels={name: int(n) for name, n in raw["channels"].items()},
                skipped={name: str(why) for name, why in raw["skipped"].items()},
                flops=_pair(raw["flops"]),
                params=_pair(raw["params"]),
                slices={
                    name: {int(dim): lists[k] for dim, k in dims.items()}
                    for name, dims in raw["slices"].items()
                },
                shapes={name: tuple(map(int, shape)) for name, shape in raw["shapes"].items()},
                widths={name: int(n) for name, n in raw.get("widths", {}).items()},
                coverage={name: float(share) for name, share in raw["coverage"].items()},
                settings=dict(raw["settings"]),
                notes=tuple(raw["notes"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"text: a damaged pruning plan ({type(error).__name__}: {error})") from None

    def __str__(self) -> str:
        width = max((len(name) for name in self.keep), default=5)
        lines = [f"{'layer':<{width}}  channels    kept  coverage"]
        for name, kept in self.keep.items():
            share = f"{self.coverage[name]:9.3f}" if name in self.coverage else ""
            lines.append(f"{name:<{width}}  {self.channels[name]:8d}  {len(kept):6d} {share}".rstrip())
        for what, (before, after) in (("FLOPs", self.flops), ("parameters", self.params)):
            lines.append(f"{what}: {before:,} -> {after:,} ({after / before:.1%} left)")
        reasons: dict[str, list[str]] = {}
        for name, why in self.skipped.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            others = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"whole: {', '.join(names[:3])}{others} ({why})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _pair(values: Any) -> tuple[int, int]:
    before, after = values
    return int(before), int(after)
