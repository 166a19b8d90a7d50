"""What is given in place of an argument is taken or refused at the call, in one line that names it."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.helpers.networks import images, small_resnet

X = images(2)
ODD = {
    "None": None,
    "True": True,
    "numpy's True": np.True_,
    "negative": -1,
    "huge": 10**400,
    "nan": math.nan,
    "inf": math.inf,
    "array": np.arange(3),
    "empty array": np.empty(0),
    "tensor": torch.arange(3),
    "tensor without values": torch.empty((), device="meta"),
    "matrix": torch.randn(50, 50),
    "string": "half",
    "empty string": "",
    "bytes": b"x",
    "list": [1],
    "dictionary": {1: 2},
    "nested": [[1, 2], [3]],
    "complex": 1j,
    "object": object(),
    "class": nn.Linear,
    "generator": torch.Generator(),
}
KNOWN = (ValueError, TypeError, FileNotFoundError, reprune.BackendUnavailable)
LABELS, POINTS = np.array([[0, 0], [1, 0], [1, 1]]), np.arange(12.0).reshape(6, 2)
WEIGHT, SCALES = np.random.default_rng(0).normal(size=(6, 3, 2)), {"a": [1.0, 2, 3], "b": [4.0, 5]}
SMALL_CALLS = {
    "points": lambda v: reprune.linkage(v),
    "method": lambda v: reprune.linkage(POINTS, v),
    "backend": lambda v: reprune.linkage(POINTS, backend=v),
    "Z": lambda v: reprune.cut(v, 1.0),
    "height": lambda v: reprune.cut(reprune.linkage(POINTS), v),
    "labels": lambda v: reprune.max_coverage(v, 1),
    "keep": lambda v: reprune.max_coverage(LABELS, v),
    "seed": lambda v: reprune.max_coverage(LABELS, 2, seed=v),
    "ties": lambda v: reprune.max_coverage(LABELS, 2, ties=v),
    "norms": lambda v: reprune.max_coverage(LABELS, 2, ties="norm", norms=v),
    "name": lambda v: reprune.max_coverage(LABELS, 2, name=v),
    "weight": lambda v: reprune.select_filters(v, 1),
    "keep ": lambda v: reprune.select_filters(WEIGHT, v),
    "seed ": lambda v: reprune.select_filters(WEIGHT, 2, seed=v),
    "ties ": lambda v: reprune.select_filters(WEIGHT, 2, ties=v),
    "name ": lambda v: reprune.select_filters(WEIGHT, 2, name=v),
    "gammas": lambda v: reprune.keep_counts(v, 0.5),
    "sparsity": lambda v: reprune.keep_counts(SCALES, v),
    "min_keep": lambda v: reprune.keep_counts(SCALES, 0.5, min_keep=v),
    "round_to": lambda v: reprune.keep_counts(SCALES, 0.5, round_to=v),
}


def check(name, call, value):
    try:
        call(value)
    except KNOWN as error:
        message = str(error)
        assert "\n" not in message
        assert name.strip() in message or "exactly one target" in message


@pytest.mark.parametrize("name", SMALL_CALLS)
def test_arrays_and_choices(name):
    for value in ODD.values():
        check(name, SMALL_CALLS[name], value)


def digest(model):
    found = hashlib.sha256(str(model).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


PLANNED = ("sparsity", "flops", "keep", "rule", "scope", "layers", "round_to", "min_keep", "ignore")
PLANNED = (*PLANNED, "seed", "ties", "backend", "time_limit")
TRAINED = ("sparsity", "interval", "until", "regrow", "mode", "copies", "rule", "scope", "layers", "round_to")
TRAINED = (*TRAINED, "min_keep", "ignore", "seed", "ties", "backend")


@pytest.mark.parametrize("name", sorted({*PLANNED, *TRAINED}))
def test_plans_and_pruners(name, monkeypatch):
    """Before the model is run; nothing is changed."""

    class RunError(Exception):
        pass

    def run(self, x):
        raise RunError

    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, numbers = digest(model), torch.get_rng_state()
    monkeypatch.setattr(type(model), "forward", run)
    for value in ODD.values():
        settings = {"sparsity": 0.4} if name not in ("flops", "keep") else {}
        settings = {**settings, "rule": "uniform", name: value}
        if name in PLANNED:
            check(
                f"{name}", lambda v, s=settings: run_is_right(lambda: reprune.make_plan(model, X, **s)), value
            )
        if name in TRAINED:
            check(
                name,
                lambda v, s=settings: run_is_right(lambda: reprune.Pruner(model, optimizer, X, **s)),
                value,
            )
    assert digest(model) == before
    assert torch.equal(torch.get_rng_state(), numbers)
    assert not optimizer._optimizer_step_post_hooks


def run_is_right(call):
    """The arguments were taken, and the model run."""
    try:
        call()
    except ValueError as error:
        if "RunError" not in str(error):
            raise


def test_what_is_no_model_plan_or_optimizer():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for value in ODD.values():
        for name, call in {
            "model": lambda v: reprune.make_plan(v, X, sparsity=0.4),
            "model ": lambda v: reprune.apply(plan, v),
            "plan": lambda v: reprune.apply(v, model),
            "optimizer": lambda v: reprune.apply(plan, model, v) if v is not None else None,
            "optimizer ": lambda v: reprune.Pruner(model, v, X, sparsity=0.4),
            "model  ": lambda v: reprune.Pruner(v, optimizer, X, sparsity=0.4),
            "text": lambda v: reprune.PruningPlan.from_json(v),
        }.items():
            if value is not None or name != "optimizer":
                with pytest.raises((TypeError, ValueError), match=name.strip()):
                    call(value)


def test_any_type_of_number_and_collection_is_taken():
    model = small_resnet()
    expected = reprune.make_plan(
        model, X, sparsity=0.5, min_keep=2, round_to=2, seed=3, ignore=["stem", "blocks.0"]
    )
    for number in (np.int64, np.uint8, np.array, torch.tensor):
        for names in (set, tuple, iter, lambda x: map(str, x), lambda x: dict.fromkeys(x).keys()):
            plan = reprune.make_plan(
                model,
                X,
                sparsity=np.float64(0.5),
                min_keep=number(2),
                round_to=number(2),
                seed=number(3),
                ignore=names(["stem", "blocks.0"]),
            )
            assert {k: v.tolist() for k, v in plan.keep.items()} == {
                k: v.tolist() for k, v in expected.keep.items()
            }
            reprune.PruningPlan.from_json(plan.to_json())
            if number is not np.int64:
                break
    name = next(iter(expected.keep))
    for count in (np.int32(4), np.array(4), torch.tensor(4)):
        assert len(reprune.make_plan(model, X, keep={name: count}).keep[name]) == 4
