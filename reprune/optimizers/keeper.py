"""Treat an optimizer, with those inside it, as the keeper of parameters and their states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..modules.sharded import is_part
from .walk import Found, is_optimizer, walk

Parameters = Mapping[str, Tensor]
"""{name in the model: parameter}."""
States = MutableMapping[Tensor, Any]
"""{parameter: {kind: value}}, as `optimizer.state`."""
Carried = list[tuple[States, dict[Tensor, Any]]]
"""[(states of an optimizer, {parameter: its new state there})]."""


@dataclass(frozen=True)
class Entry:
    """A state that has one number for each of a parameter's."""

    name: str
    """Name of the parameter."""
    kind: str
    value: Tensor
    states: States
    """The dictionary that holds it."""

    @property
    def key(self) -> str:
        """Its name among the tensors of a training."""
        return f"state/{self.kind}/{self.name}"


class Keeper:
    """`optimizer` and those inside it (SAM, Lookahead, wrappers), seen at one moment.

    Raises `TypeError` if `optimizer` is not one.
    """

    def __init__(self, optimizer: Any) -> None:
        if not is_optimizer(optimizer):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer; got {type(optimizer).__name__}")
        found = list(walk(optimizer, type(optimizer).__name__))
        self.tensors: list[Found] = [f for f in found if isinstance(f.value, Tensor)]
        """All tensors that are kept, except for the parameters in the groups."""
        self.parts = [f.value for f in found if not isinstance(f.value, Tensor)]
        """The optimizers, the outermost first."""

    def groups(self) -> Iterator[MutableMapping[str, Any]]:
        """Yield the parameter groups of every optimizer."""
        for part in self.parts:
            yield from part.param_groups

    def held(self) -> dict[int, Tensor]:
        """Return {id: parameter} of all that are trained."""
        return {id(p): p for group in self.groups() for p in group["params"]}

    def states(self) -> list[States]:
        """Return the states of every optimizer."""
        found = [getattr(part, "state", None) for part in self.parts]
        return list({id(s): s for s in found if isinstance(s, MutableMapping)}.values())

    def entries(self, parameters: Parameters) -> list[Entry]:
        """Return the states of `parameters` that have their shape, and not by chance.

        Raises `ValueError` if two optimizers keep a state of the same name.
        """
        found: dict[str, Entry] = {}
        for states in self.states():
            odd = odd_kinds(states)
            for name, parameter in parameters.items():
                values = states.get(parameter, {})
                for kind, value in values.items() if isinstance(values, Mapping) else ():
                    if kind not in odd and fits(value, parameter):
                        entry = Entry(name, kind, value, states)
                        if found.setdefault(entry.key, entry) is not entry:
                            raise ValueError(
                                f"optimizer: expected one state {kind!r} of {name}; got two, of optimizers "
                                "one inside the other; make the optimizer after pruning"
                            )
        return list(found.values())

    def carried(self, parameters: Parameters, sliced: Callable[[Entry], Tensor]) -> Carried:
        """Return the states of `parameters` after slicing; those of the parameter's shape are `sliced`."""
        kept = [
            (states, {p: copy.copy(states[p]) for p in parameters.values() if p in states})
            for states in self.states()
        ]
        of = {id(states): values for states, values in kept}
        for entry in self.entries(parameters):
            of[id(entry.states)][parameters[entry.name]][entry.kind] = sliced(entry)
        return kept

    def replace(self, new: Mapping[Tensor, Tensor], carried: Carried) -> None:
        """Replace parameters by `new` {old: new}, with the states `carried`."""
        for group in self.groups():
            if isinstance(group["params"], list):
                group["params"][:] = [new.get(p, p) for p in group["params"]]
            else:
                group["params"] = type(group["params"])(new.get(p, p) for p in group["params"])
        for states, values in carried:
            for old in new:
                states.pop(old, None)
            for old, value in values.items():
                states[new[old]] = value
        for part in self.parts:
            if "_numel_cache" in getattr(part, "__dict__", {}):  # of LBFGS, which counts its numbers once
                part._numel_cache = None

    def restart(self) -> None:
        """Drop all states, as if no step had been made."""
        for states in self.states():
            states.clear()

    def after_each_step(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` after each step of every optimizer; return a function that ends that.

        Raises `TypeError` if no optimizer has hooks for its steps.
        """
        able = {
            id(p._optimizer_step_post_hooks): p
            for p in self.parts
            if hasattr(p, "_optimizer_step_post_hooks")
        }
        if not able:
            raise TypeError(
                f"optimizer: expected a torch.optim.Optimizer, or one around such; got "
                f"{type(self.parts[0]).__name__}, which does not tell of its steps"
            )
        handles = [part.register_step_post_hook(lambda *_: call()) for part in able.values()]

        def end() -> None:
            for handle in handles:
                handle.remove()

        return end


def fits(value: Any, parameter: Tensor) -> bool:
    """Return whether `value` is a plain tensor of the parameter's shape, or sharded if the parameter is."""
    alike = is_part(value) if is_part(parameter) else type(value) in (Tensor, nn.Parameter)
    return alike and bool(value.shape == parameter.shape)


def odd_kinds(states: States) -> set[str]:
    """Return the kinds of state whose shape differs from their parameter's somewhere.

    Elsewhere such a state may have its parameter's shape by chance, like the [n, n] factors of an [n, n]
    weight.
    """
    return {
        kind
        for parameter, values in states.items()
        if isinstance(parameter, Tensor) and isinstance(values, Mapping)
        for kind, value in values.items()
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != parameter.shape
    }
