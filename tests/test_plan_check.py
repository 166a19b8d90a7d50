"""A plan is checked whole, by itself and against the model, before anything is changed."""

import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.helpers.networks import Residual, images, small_resnet

X = images()


def plan_text(**arguments):
    """A plan's JSON without what says that it was changed: as earlier versions wrote it."""
    raw = json.loads(reprune.make_plan(small_resnet(), X, **{"sparsity": 0.5, **arguments}).to_json())
    return {name: value for name, value in raw.items() if name not in ("checksum", "fingerprint")}


PLAN = plan_text()
FIRST = "blocks.0.conv1"
SECOND = "blocks.0.conv2.weight"


def digest(model, optimizer=None):
    found = hashlib.sha256()
    for name, t in (*model.named_parameters(), *model.named_buffers()):
        found.update(
            f"{name} {id(t)} {tuple(t.shape)} {t.grad is None}".encode() + t.detach().numpy().tobytes()
        )
    for name, module in model.named_modules():
        found.update(f"{name} {module.extra_repr()} {sorted(vars(module))}".encode())
    if optimizer is not None:
        found.update(repr([[id(p) for p in group["params"]] for group in optimizer.param_groups]).encode())
        for p, state in optimizer.state.items():
            found.update(f"{id(p)} {[(k, id(v), str(v)) for k, v in state.items()]}".encode())
    return found.hexdigest()


def refused(change):
    """Apply the plan as `change` leaves it; the error, after which nothing may be different."""
    raw = copy.deepcopy(PLAN)
    change(raw)
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(X).sum().backward()
    optimizer.step()
    before = digest(model, optimizer)
    with pytest.raises(ValueError, match=r"^(text|plan): ") as caught:
        reprune.apply(reprune.PruningPlan.from_json(json.dumps(raw)), model, optimizer)
    assert digest(model, optimizer) == before
    return str(caught.value)


def positions(raw):
    """The list of the first layer's positions."""
    return raw["positions"][raw["keep"][FIRST]]


def set_positions(values):
    return lambda raw: positions(raw).__setitem__(slice(None), values)


@pytest.mark.parametrize(
    "values",
    [
        *([], [2, 2, 3], [3, 2, 1], [0, 100], [0, 16], [-1, 0], [0.0, 1.0], [1.7, 2.2], ["1", "2"]),
        *([True, 2], [None, 2], [[1, 2]], [{}], [0, 10**30], [0, 2**63]),
    ],
    ids=str,
)
def test_positions(values):
    assert "damaged pruning plan" in refused(set_positions(values))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["keep"].update({FIRST: -1}),
        lambda raw: raw["keep"].update({FIRST: len(raw["positions"])}),
        lambda raw: raw["keep"].update({FIRST: True}),
        lambda raw: raw["keep"].update({FIRST: "0"}),
        lambda raw: raw["keep"].update({FIRST: [1, 2]}),
        lambda raw: raw["keep"].update(unknown=0),
        lambda raw: raw.update(keep=[]),
        lambda raw: raw["channels"].update({FIRST: 0}),
        lambda raw: raw["channels"].update({FIRST: 2.5}),
        lambda raw: raw["channels"].pop(FIRST),
        lambda raw: raw["skipped"].update({"stem.0": 3}),
        lambda raw: raw["slices"].update({"nothing.weight": {"0": 0}}),
        lambda raw: raw["slices"][SECOND].update({"9": 0}),
        lambda raw: raw["slices"][SECOND].update({"4": 0}),
        lambda raw: raw["slices"][SECOND].update({"-1": 0}),
        lambda raw: raw["slices"][SECOND].update({" 1": 0}),
        lambda raw: raw["slices"][SECOND].update({"9" * 5000: 0}),
        lambda raw: raw["slices"].update({SECOND: 3}),
        lambda raw: raw.update(shapes={}),
        lambda raw: raw["shapes"].pop(SECOND),
        lambda raw: raw["shapes"].update({SECOND: "12"}),
        lambda raw: raw["shapes"].update({SECOND: [12, -16, 3, 3]}),
        lambda raw: raw["shapes"].update({SECOND: [12, 1e3, 3, 3]}),
        lambda raw: raw.update(flops=[float("inf"), 0]),
        lambda raw: raw.update(flops=[float("nan"), 0]),
        lambda raw: raw.update(flops=[1.5, 1]),
        lambda raw: raw.update(flops=[3]),
        lambda raw: raw.update(flops=7),
        lambda raw: raw.update(params=[0, 0]),
        lambda raw: raw.update(params=[-4, -5]),
        lambda raw: raw["coverage"].update({FIRST: 1.5}),
        lambda raw: raw["coverage"].update({FIRST: float("nan")}),
        lambda raw: raw["coverage"].update({FIRST: "1"}),
        lambda raw: raw["coverage"].update({"stem.0": 0.5}),
        lambda raw: raw.update(widths={"blocks.0.bn1": 0}),
        lambda raw: raw.update(widths={"unknown": 3}),
        lambda raw: raw.update(settings=[1]),
        lambda raw: raw.update(notes="note"),
        lambda raw: raw.update(notes=[3]),
        lambda raw: raw.update(fingerprint=3),
        lambda raw: raw.update(checksum=3),
        lambda raw: raw.update(positions={}),
        lambda raw: raw.update(format=True),
        lambda raw: raw.update(format=1.0),
        *(lambda raw, key=key: raw.pop(key) for key in PLAN if key != "widths"),
    ],
)
def test_fields(change):
    refused(change)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"format": 1, "format": 1}',
        json.dumps(PLAN).replace('"keep": {', '"keep": {"expand": 0, ', 1),
        '{"format": ' + "1" * 5000 + "}",
        "\0",
        "",
        "null",
        json.dumps(PLAN)[:-1],
        json.dumps(PLAN) + "x",
    ],
    ids=range(11),
)
def test_texts_that_are_no_plan_are_refused(text):
    with pytest.raises(ValueError, match=r"^text: "):
        reprune.PruningPlan.from_json(text)


@pytest.mark.parametrize("text", [None, 3, b"{}", {}])
def test_from_json_takes_only_strings(text):
    with pytest.raises(TypeError, match="text: expected the JSON of a pruning plan; got a"):
        reprune.PruningPlan.from_json(text)


def one_side(raw):
    del raw["slices"][SECOND], raw["shapes"][SECOND]


def other_side(raw):
    del raw["slices"][f"{FIRST}.weight"], raw["shapes"][f"{FIRST}.weight"]


def statistics(raw):
    name = "blocks.0.bn1.running_mean"
    del raw["slices"][name], raw["shapes"][name]


def shifted(name, dim):
    """Another list of the same length for one tensor."""

    def change(raw):
        old = raw["positions"][raw["slices"][name][dim]]
        whole = range(raw["shapes"][name][int(dim)])
        raw["positions"].append(sorted(set(whole) - set(old[:1]))[: len(old)])
        assert len(raw["positions"][-1]) == len(old)
        raw["slices"][name][dim] = len(raw["positions"]) - 1

    return change


def other_keep(raw):
    raw["positions"].append([0])
    raw["keep"][FIRST] = len(raw["positions"]) - 1


@pytest.mark.parametrize(
    "change",
    [
        one_side,
        other_side,
        statistics,
        other_keep,
        shifted(f"{FIRST}.weight", "0"),
        shifted("blocks.0.bn1.bias", "0"),
        shifted("blocks.0.bn1.running_var", "0"),
        shifted("expand.bias", "0"),
        lambda raw: raw.update(params=[raw["params"][0], raw["params"][1] - 1]),
        lambda raw: raw.update(fingerprint="0" * 64),
    ],
)
def test_a_channel_leaves_as_a_whole(change):
    assert refused(change).startswith("plan: ")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("scope", ["internal", "all"])
def test_a_plan_of_another_model(scope, old):
    """One block more: all tensors that the plan names are there, in the right shapes."""
    text = reprune.make_plan(small_resnet(), X, sparsity=0.5, scope=scope).to_json()
    if old:
        text = json.dumps(plan_text(scope=scope))
    model = small_resnet(blocks=4)
    before = digest(model)
    with pytest.raises(ValueError, match="plan: made for a model "):
        reprune.apply(reprune.PruningPlan.from_json(text), model)
    assert digest(model) == before


def test_a_plan_of_a_model_with_another_stem(tmp_path):
    """As many parameters of the same names, in other shapes; those that the plan names are alike."""
    small, plan = reprune.prune(small_resnet(), X, sparsity=0.5)
    other = small_resnet()
    other.stem[0] = nn.Conv2d(3, 12, (9, 1), bias=False)
    before = digest(other)
    with pytest.raises(ValueError, match="others by name or shape"):
        reprune.apply(plan, other)
    reprune.save(small, tmp_path / "x")
    with pytest.raises(ValueError, match="others by name or shape"):
        reprune.load(tmp_path / "x", other)
    assert digest(other) == before


@pytest.mark.parametrize(
    "kept",
    [[1, 2], np.array([2, 1]), np.array([0.0, 1.0]), np.array([[0, 1]]), np.array([True, False]), None],
)
def test_plans_made_by_hand(kept):
    plan = reprune.make_plan(small_resnet(), X, sparsity=0.5)
    slices = {name: dict(dims) for name, dims in plan.slices.items()}
    slices[SECOND][1] = kept
    model = small_resnet()
    before = digest(model)
    with pytest.raises(ValueError, match=r"plan: slices of blocks.0.conv2.weight along 1 should be"):
        reprune.apply(dataclasses.replace(plan, slices=slices), model)
    assert digest(model) == before


def test_groups_stay_alike():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4)
            self.norm, self.c = nn.GroupNorm(4, 8), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.c(self.norm(self.b(self.a(x))))

    torch.manual_seed(0)
    model = Grouped()
    small, plan = reprune.prune(model, X, sparsity=0.5, rule="uniform")
    assert small(X).shape == model(X).shape
    odd = {n: {d: np.array([0, 1, 2]) for d, k in dims.items()} for n, dims in plan.slices.items()}
    keep = {name: np.array([0, 1, 2]) for name in plan.keep}
    left = 3 * 3 + 3 + 3 * 2 * 9 + 3 + 3 + 3 + 3 * 2 + 2
    bad = dataclasses.replace(plan, slices=odd, keep=keep, params=(plan.params[0], left))
    with pytest.raises(ValueError, match="would have groups of different widths"):
        reprune.apply(bad, model)


def test_a_changed_text_is_noticed():
    """Whatever digit of it: the plan could be another, whole one."""
    text = reprune.make_plan(small_resnet(), X, sparsity=0.5).to_json()
    changed = 0
    for k, character in list(enumerate(text))[::7]:
        if character.isdigit():
            other = text[:k] + str((int(character) + 1) % 10) + text[k + 1 :]
            with pytest.raises(ValueError, match=r"^text: "):
                reprune.PruningPlan.from_json(other)
            changed += 1
    assert changed > 50
    spaced = json.dumps(json.loads(text), indent=3)
    assert reprune.PruningPlan.from_json(spaced).to_json() == text


def test_plans_of_earlier_versions():
    for scope in ("internal", "all"):
        plan = reprune.PruningPlan.from_json(json.dumps(plan_text(scope=scope)))
        small, expected = reprune.prune(small_resnet(), X, sparsity=0.5, scope=scope)
        assert str(plan) == str(expected)
        reprune.apply(plan, model := small_resnet())
        assert torch.equal(model(X), small(X))


def test_a_plan_without_flops_can_be_shown():
    plan = reprune.make_plan(small_resnet(), torch.zeros(0, 3, 8, 8), sparsity=0.5)
    assert "FLOPs: 0 -> 0" in str(reprune.PruningPlan.from_json(plan.to_json()))


def test_twice_pruned_by_examples_of_other_sizes(tmp_path):
    """The file holds one plan, of which the FLOPs after are more than those before."""
    once, _ = reprune.prune(small_resnet(), X, sparsity=0.2)
    twice, _ = reprune.prune(once, images(size=32), sparsity=0.2)
    reprune.save(twice, tmp_path / "x")
    assert torch.equal(reprune.load(tmp_path / "x", small_resnet(seed=1))(X), twice(X))


def test_a_head_that_was_replaced_after_pruning_is_saved(tmp_path):
    """The file is one of the network with that head."""

    def with_head(model):
        model.head = nn.Linear(24, 7)
        return model

    small = with_head(reprune.prune(small_resnet(), X, sparsity=0.5, ignore=["expand"])[0])
    reprune.save(small, tmp_path / "x")
    assert torch.equal(reprune.load(tmp_path / "x", with_head(small_resnet(seed=1)))(X), small(X))
    with pytest.raises(ValueError, match="others by name or shape"):
        reprune.load(tmp_path / "x", small_resnet())


def test_layers_used_without_their_module():
    """A weight alone, with a bias that nobody uses."""

    class Odd(Residual):
        def forward(self, x):
            y = nn.functional.conv2d(x, self.conv1.weight, padding=1) * self.bn1.weight.view(1, -1, 1, 1)
            return torch.relu(x + self.bn2(self.conv2(y)))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Odd(6, 16), nn.Conv2d(6, 2, 1))
    model[1].conv1.bias = nn.Parameter(torch.zeros(16))
    small, _ = reprune.prune(model, X, sparsity=0.5, rule="uniform", layers="all")
    assert small(X).shape == model(X).shape
