"""REPruneImportance in Torch-Pruning's own pruner: the channels that stay are those that reprune keeps."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.helpers.networks import SmallResNet, images, small_resnet

tp = pytest.importorskip("torch_pruning", reason='needs pip install "reprune[torch-pruning]"')

from reprune.clustering.problem import LayerProblem  # noqa: E402
from reprune.clustering.selection import select_layers  # noqa: E402
from reprune.torch_pruning import REPruneImportance  # noqa: E402

X = images()


class Recorder(REPruneImportance):
    """Remembers the scores it gave, and the weights it saw."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.given, self.seen = {}, {}

    def __call__(self, group):
        scores = super().__call__(group)
        root = group[0].dep.target.module
        name = self._pruner.DG._module2name[root]
        self.given[name], self.seen[name] = scores, root.weight.detach().clone()
        return scores


def pruner_of(model, x=X, attach=True, **settings):
    importance = Recorder()
    ignored = [module for module in model.modules() if isinstance(module, nn.Linear)]
    pruner = tp.pruner.BasePruner(model, x, importance, ignored_layers=ignored, **settings)
    if attach:
        importance.attach(pruner)
    return pruner


def kept(pruner, sizes):
    """{first layer of a group: channels that stay after the first step}."""
    return {
        name: sorted(set(range(sizes[name])) - set(gone))
        for name, _, gone in pruner.pruning_history()
        if gone
    }


def sizes_of(model):
    return {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def test_local_pruning_keeps_what_reprune_keeps():
    model, whole = small_resnet(), small_resnet()
    pruner = pruner_of(model, pruning_ratio=0.4)
    pruner.step()
    found = kept(pruner, sizes_of(whole))
    assert len(found) == 5  # three blocks, the residual stream, expand with depthwise
    plan = reprune.make_plan(whole, X, keep={n: len(k) for n, k in found.items()}, scope="all")
    for name, channels in found.items():
        assert len(channels) == int(0.6 * plan.channels[name])
        assert channels == plan.keep[name].tolist(), name
    assert model(X).shape == (2, 5)


def test_global_pruning_is_the_plan_of_the_whole_model():
    """Eq. 8-9 by Torch-Pruning's own threshold on our scores: the counts and the channels of `make_plan`."""
    model, whole = small_resnet(), small_resnet()
    pruner = pruner_of(model, pruning_ratio=0.5, global_pruning=True)
    pruner.step()
    plan = reprune.make_plan(whole, X, sparsity=0.5, scope="all")
    found = kept(pruner, sizes_of(whole))
    assert len({len(channels) for channels in found.values()}) > 2
    for name, channels in found.items():
        assert channels == plan.keep[name].tolist(), name
    for name, channels in plan.keep.items():
        assert model.get_submodule(name).out_channels == len(channels)


@pytest.mark.parametrize("everywhere", [False, True])
def test_scores_are_strict_and_the_kept_are_on_top(everywhere):
    pruner = pruner_of(small_resnet(), pruning_ratio=0.5, global_pruning=everywhere)
    pruner.step()
    given = pruner.importance.given
    for name, channels in kept(pruner, sizes_of(small_resnet())).items():
        scores = given[name].numpy()
        assert set(np.argsort(-scores)[: len(channels)].tolist()) == set(channels)
    scopes = [np.concatenate([s.numpy() for s in given.values()])] if everywhere else given.values()
    for scores in scopes:
        scores = np.asarray(scores)
        assert np.unique(scores).size == scores.size
        assert scores.min() > 0
        assert scores.max() == 1


def test_a_layer_keeps_one_channel_at_least():
    model = small_resnet()
    with torch.no_grad():
        model.blocks[1].bn1.weight.mul_(1e-3)
    pruner_of(model, pruning_ratio=0.5, global_pruning=True).step()
    assert model.blocks[1].conv1.out_channels == 1
    assert model(X).shape == (2, 5)


@pytest.mark.parametrize("everywhere", [False, True])
def test_in_several_steps(everywhere):
    """Each step scores the network of its time; at the end as many channels are left as after one."""
    many, one = small_resnet(), small_resnet()
    pruner = pruner_of(many, pruning_ratio=0.5, global_pruning=everywhere, iterative_steps=3)
    for _ in range(3):
        pruner.step()
        many(X)
    pruner_of(one, pruning_ratio=0.5, global_pruning=everywhere).step()
    groups = ("stem.0", *(f"blocks.{k}.conv1" for k in range(3)), "expand")
    left = [sum(sizes_of(model)[name] for name in groups) for model in (many, one)]
    assert left[0] == left[1]


def test_rounding_and_ratios_of_single_layers():
    model, whole = small_resnet(), small_resnet()
    ratios = {model.blocks[0].conv1: 0.75, (model.blocks[1].conv1, model.blocks[2].conv1): 0.25}
    pruner = pruner_of(model, pruning_ratio=0.5, pruning_ratio_dict=ratios, global_pruning=True, round_to=4)
    pruner.step()
    found = kept(pruner, sizes_of(whole))
    assert all(len(channels) % 4 == 0 for channels in found.values())
    assert len(found["blocks.0.conv1"]) == 4
    plan = reprune.make_plan(whole, X, keep={n: len(k) for n, k in found.items()}, scope="all")
    for name, channels in found.items():
        assert channels == plan.keep[name].tolist(), name


class Varied(nn.Module):
    """A grouped convolution, a transposed one, a concatenation and a hidden layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.side = nn.Conv2d(3, 8, 1)
        self.hidden = nn.Linear(24, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        main = self.up(torch.relu(self.grouped(torch.relu(self.first(x)))))
        both = torch.cat([main, nn.functional.interpolate(self.side(x), scale_factor=2.0)], 1)
        return self.head(torch.relu(self.hidden(torch.relu(both).mean((2, 3)))))


def test_grouped_transposed_and_linear_layers():
    torch.manual_seed(0)
    model = Varied().eval()
    importance = Recorder(ties="norm")
    pruner = tp.pruner.BasePruner(model, X, importance, pruning_ratio=0.5, ignored_layers=[model.head])
    importance.attach(pruner)
    pruner.step()
    assert model.first.out_channels == model.grouped.out_channels == 12
    assert model.grouped.groups == 4
    assert (model.up.out_channels, model.side.out_channels, model.hidden.out_features) == (8, 4, 16)
    gone = {name: set(gone) for name, _, gone in pruner.pruning_history()}
    seen = importance.seen
    for name in ("first", "grouped"):  # four channels for each of six places
        tables = seen[name].reshape(4, 6, -1, 9).transpose(1, 2).numpy()
        (places,) = select_layers([LayerProblem(name, tuple(tables), 3)], ties="norm")
        assert gone[name] == {channel for channel in range(24) if channel % 6 not in places.keep}, name
    kernels = {"up": seen["up"].transpose(0, 1), "side": seen["side"], "hidden": seen["hidden"][:, :, None]}
    for name, weight in kernels.items():
        alone = reprune.select_filters(weight, len(weight) // 2, ties="norm", name=name)
        rest = sorted(set(range(len(weight))) - set(alone.keep.tolist()))
        assert gone[name] == set(rest), name
        norms, scores = weight[rest].flatten(1).norm(dim=1), importance.given[name][rest]
        assert torch.equal(norms.argsort(), scores.argsort()), name  # of what goes, the smallest goes first
    assert model(X).shape == (2, 5)


class Joined(nn.Module):
    """One BatchNorm behind two convolutions side by side."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 12, 3)
        self.norm = nn.BatchNorm2d(24)
        self.last = nn.Conv2d(24, 6, 3)
        self.end = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.head(torch.relu(self.end(self.last(x))).mean((2, 3)))


def test_scales_are_those_behind_each_layer():
    torch.manual_seed(0)
    model = Joined().eval()
    with torch.no_grad():
        for norm, slope in ((model.norm, -1), (model.end, 1)):
            norm.weight.copy_(torch.linspace(2, 1, norm.num_features) if slope < 0 else norm.weight * 1.7)
    whole = copy.deepcopy(model)
    pruner = pruner_of(model, pruning_ratio=0.3, global_pruning=True)
    pruner.step()
    plan = reprune.make_plan(whole, X, sparsity=0.3, scope="all")
    assert [len(plan.keep[name]) for name in ("left", "right", "last")] == [12, 3, 6]
    for name, channels in kept(pruner, sizes_of(whole)).items():
        assert channels == plan.keep[name].tolist(), name
    assert (model.left.out_channels, model.right.out_channels) == (12, 3)


def test_errors():
    with pytest.raises(ValueError, match=r"ties: expected one of 'random', 'norm'; got 'first'"):
        REPruneImportance(ties="first")
    with pytest.raises(ValueError, match=r"call attach\(pruner\) before the pruner's first step"):
        pruner_of(small_resnet(), attach=False).step()
    with pytest.raises(ValueError, match="expected one that was made with this importance"):
        REPruneImportance().attach(pruner_of(small_resnet()))
    with pytest.raises(ValueError, match="isomorphic=True is not supported"):
        pruner_of(small_resnet(), global_pruning=True, isomorphic=True)
    with pytest.raises(ValueError, match="all BatchNorm scales are equal; use global_pruning=False"):
        pruner_of(SmallResNet().eval(), global_pruning=True).step()
    with pytest.raises(ValueError, match=r"\w+ has no BatchNorm behind it, and global pruning ranks"):
        pruner_of(Varied().eval(), global_pruning=True).step()
    model = small_resnet()
    with torch.no_grad():
        model.expand.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="a weight of the group of expand has NaN or infinite values"):
        pruner_of(model).step()
