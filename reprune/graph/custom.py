"""Register rules for the user's own operations."""

from __future__ import annotations

import re

from .rules import CUSTOM, RULES, Rule, rule_named


def register_rule(operation: str, rule: Rule | str) -> None:
    """Register how channels pass an operation that is not ATen's own, such as a custom kernel.

    Without a rule an operation pins what reaches it: plans stay right, but its channels cannot be pruned. A
    rule must be correct: the certificate traces sliced models by the same rules, and finds a wrong one only
    if the sliced model then fails or runs other operations.

    Args:
        operation: the operation's name, `"mylib::scale"`.
        rule: the ATen operation that treats channels alike, by name: `"mul"` (any elementwise operation),
            `"batch_norm"`-like `"native_group_norm"`, `"convolution"` and so on need the same argument names;
            `"flip"` (any operation that only moves values, and runs on integers too). Or a function
            `rule(known, call, is_activation)`: it reads the states of `call.tensors()` with `known.state(x)`
            (`State.dims`: labels [size] of each dimension, FREE where the tensor is constant, None where
            positions are fixed), says what is coupled with `known.unite(a, b, why)`, what must live with
            `known.pin(x, why, dims)`, and gives each of `call.outputs()` its state with `known.set(out, dims,
            is_activation)`. It returns None, or the labels of the dimensions that the operation's FLOPs are
            proportional to.

    Registering a name again replaces its rule. A rule holds for this process.

    Raises:
        ValueError: `operation` is not of the form `"library::name"`, or `rule` names no known operation.
    """
    if not isinstance(operation, str) or not re.fullmatch(r"\w+::\w+", operation):
        raise ValueError(f"operation: expected a name such as 'mylib::scale'; got {operation!r}")
    if isinstance(rule, str):
        found = rule_named(rule)
        if found is None:
            raise ValueError(
                f"rule: expected a function or the name of an ATen operation with a rule; got {rule!r}; such "
                f"as {', '.join(list(RULES)[:8])}, mul, relu, flip"
            )
        rule = found
    if not callable(rule):
        raise ValueError(f"rule: expected a function or a name; got {rule!r}")
    CUSTOM[operation.removeprefix("aten::")] = rule
