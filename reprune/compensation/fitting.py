"""Fit the layers of the small network one after the other."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..aliases import Progress
from .calls import Call
from .layer import LARGEST, LayerProblem, memory_of, new_values, wanted_output
from .lockstep import Lockstep, Wave
from .norms import MeanShift, kept_input
from .pair import Pair
from .report import CompensatedLayer
from .sequence import Event
from .uses import all_uses

_ALIKE = "it computes what the dense network computes"
_NO_BETTER = "no weight did better on images left out"

Calls = list[tuple[Wave, Call, Call]]


class Fitting:
    """The new values of the small network, and what became of its layers."""

    def __init__(self, pair: Pair, ridge: float | None, lost_only: bool) -> None:
        self.values: dict[str, Tensor] = {}
        """New tensors by name."""
        self.layers: dict[str, CompensatedLayer] = {}
        """By the name of the weight."""
        self.norms: set[str] = set()
        """Running means that have been looked at."""
        self._pair, self._ridge, self._lost_only = pair, ridge, lost_only

    def run(self, progress: Progress | None) -> None:
        """Go over all operations from the first layer that lost inputs on."""
        lost = self._pair.lost()
        if not any(lost):
            return
        begin, end = lost.index(True), len(lost)
        lockstep = Lockstep(self._pair)
        try:
            for k in range(begin, end):
                if progress is not None:
                    progress("compensate", k - begin, end - begin)
                self._step(k, lost[k], list(lockstep.at(k, self.values)))
        finally:
            lockstep.close()
        if progress is not None:
            progress("compensate", end - begin, end - begin)

    def _step(self, k: int, lost: bool, calls: Calls) -> None:
        event = self._pair.events[k]
        if event.is_norm and event.name not in self.norms:
            self.norms.add(event.name)
            self._norm(event, calls)
        elif not event.is_norm and event.name not in self.layers and (lost or not self._lost_only):
            self._layer(event, self._pair.sequences[0].events[k].inputs, calls)
        else:
            self._pass_on(calls)

    def _pass_on(self, calls: Calls) -> None:
        for wave, dense, small in calls:
            wave.dense.answer(dense.run({}))
            wave.small.answer(small.run(self.values))

    def _norm(self, event: Event, calls: Calls) -> None:
        shift = MeanShift()
        if self._used_often(event):
            uses = all_uses(
                self._pair, event.name, self.values, lambda call: kept_input(call, self._pair.slices)
            )
            for call, wanted, _, _ in uses:
                shift.add(wanted, call.input)
        else:
            for _, dense, small in calls:
                shift.add(kept_input(dense, self._pair.slices), small.input)
        self.values.update(shift.value(event.name, calls[0][2].arguments["running_mean"]))
        self._pass_on(calls)

    def _layer(self, event: Event, inputs: int, calls: Calls) -> None:
        call = calls[0][2]
        layer = CompensatedLayer(event.layer, inputs=(inputs, event.inputs))
        reason = self._reason(event, calls[0])
        if reason is None and self._used_often(event):
            layer = self._fitted(layer, event, call, self._problem_of_all(event))
        elif reason is None:
            self._single(layer, event, calls)
            return
        else:
            layer = replace(layer, reason=reason)
        self.layers[event.name] = layer
        self._pass_on(calls)

    def _single(self, layer: CompensatedLayer, event: Event, calls: Calls) -> None:
        """Fit a weight that is used once, and let all go on."""
        problem = LayerProblem(event.name, calls[0][2].weight.device)
        joined = calls[-1][0].images.stop
        outputs = []
        for wave, dense, small in calls:
            whole, wanted = wanted_output(dense, self._pair.slices)
            self._check(event, wanted)
            outputs.append(small.run(self.values))
            part = len(wave.images) / joined
            problem.add(small, (wanted, outputs[-1]), wave.images, part, event.shape)
            wave.dense.answer(whole)
        before = dict(self.values)
        self.layers[event.name] = self._fitted(layer, event, calls[0][2], problem)
        changed = self.values.keys() - before.keys()
        for (wave, _, small), output in zip(calls, outputs, strict=True):
            wave.small.answer(small.run(self.values) if changed else output)

    def _problem_of_all(self, event: Event) -> LayerProblem:
        """Return the problem of a weight that is used several times."""
        problem = LayerProblem(event.name, self._pair.device)
        uses = all_uses(
            self._pair, event.name, self.values, lambda call: wanted_output(call, self._pair.slices)[1]
        )
        for call, wanted, given, images in uses:
            self._check(event, wanted)
            part = len(images) / self._pair.images.count
            problem.add(call, (wanted, given), images, part, event.shape)
        return problem

    def _fitted(
        self, layer: CompensatedLayer, event: Event, call: Call, problem: LayerProblem
    ) -> CompensatedLayer:
        """Solve, take the new values, and return what became of the layer."""
        if problem.reason is not None or problem.same or problem.rows is None:
            return replace(layer, reason=problem.reason or _ALIKE)
        free_bias = event.bias is not None and event.bias not in self._pair.sequences[1].shared_biases
        meets = all(other.meets_norm for other in self._pair.events if other.name == event.name)
        fit = problem.solved(free_bias or meets, self._ridge, torch.finfo(call.weight.dtype).eps)
        layer = replace(
            layer,
            images=problem.images,
            rows=problem.rows.count,
            ridge=fit.ridge,
            before=fit.before,
            after=fit.after,
        )
        new = new_values(fit, call, with_bias=free_bias)
        if not all(bool(torch.isfinite(value).all()) for value in new.values()):
            reason = f"what would do better is too large for {str(call.weight.dtype).removeprefix('torch.')}"
            return replace(layer, ridge=None, after=layer.before, reason=reason)
        self.values.update(new)
        if fit.weight is not None or (fit.alike and new):
            return layer
        return replace(layer, reason=_ALIKE if fit.alike else _NO_BETTER)

    def _check(self, event: Event, wanted: Tensor) -> None:
        """Raise `ValueError` if an output of the dense network is not finite."""
        if not bool(torch.isfinite(wanted).all()):
            raise ValueError(
                f"{self._pair.images.name}: expected images on which all is finite; {event.layer} of the "
                "dense network gives NaN or infinity"
            )

    def _used_often(self, event: Event) -> bool:
        return self._pair.sequences[1].uses[event.name] > 1

    def _reason(self, event: Event, first: tuple[Wave, Call, Call]) -> str | None:
        """Return why the layer cannot be fitted, if so."""
        wave, _, call = first
        other = self._pair.sequences[1].elsewhere.get(event.name)
        if other is not None:
            return f"its weight is used by {other} too"
        if memory_of(call, len(wave.images) / self._pair.images.count) > LARGEST:
            return f"the equations of its {call.inputs} inputs would take more than {LARGEST / 2**30:g} GiB"
        return None
