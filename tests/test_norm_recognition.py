"""A class of one's own is a norm over channels if it computes what one of them does, and only then."""

import warnings

import pytest
import torch
from torch import nn

import reprune
from reprune.modules.norms import norm_of
from tests.helpers.masking import exact, randomize
from tests.helpers.norms import (
    LimitedNorm,
    ListedNorm,
    OfTokensNorm,
    ShiftedRMSNorm,
    WhereTrainedNorm,
    WithResidualNorm,
)

WIDTH = 12


@pytest.mark.parametrize(
    "norm",
    [
        ShiftedRMSNorm(WIDTH),
        WhereTrainedNorm(WIDTH),
        OfTokensNorm(WIDTH),
        LimitedNorm(WIDTH, before=True),
        LimitedNorm(WIDTH, before=False),
        WithResidualNorm(WIDTH),
        nn.LayerNorm([3, WIDTH], elementwise_affine=False),
        nn.LayerNorm([3, WIDTH]),
        nn.BatchNorm2d(WIDTH),
        nn.GroupNorm(3, WIDTH),
        nn.InstanceNorm2d(WIDTH, affine=True),
        nn.Linear(WIDTH, WIDTH),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_what_computes_something_else_is_no_norm_over_channels(norm):
    assert norm_of(norm) is None


def test_norms_of_one_class_differ_by_what_they_hold():
    same, other = ListedNorm(WIDTH, []), ListedNorm(WIDTH, [0.5])
    assert norm_of(same).norm_kind == "layer"
    assert norm_of(other) is None
    same.numbers = torch.ones(3)  # an attribute without a truth value
    assert norm_of(same).norm_kind == "layer"


def test_its_input_may_be_named():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(5, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.last(self.norm(input=self.first(x)))

    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small, _ = reprune.prune(Model().double(), x, keep={"first": 7}, layers="all", scope="all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls scripts deprecated
        assert torch.equal(torch.jit.script(small)(x), small(x))
    assert [g.name for g in exact(randomize(Model().double()).eval(), x, layers="all").groups] == ["first"]


class NormOfBoth(nn.LayerNorm):
    """As in segmentation_models_pytorch: of images along dimension 1, of tokens along the last."""

    def forward(self, x):
        dim = 1 if x.dim() == 4 else -1
        return super().forward(x.movedim(dim, -1)).movedim(-1, dim)


def test_a_norm_of_one_dimension_of_images_and_another_of_tokens_keeps_channels():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = nn.Conv2d(3, 8, 1), NormOfBoth(8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.norm(self.norm(self.first(x)).flatten(2).transpose(1, 2))
            return self.head(x.mean(1))

    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = exact(randomize(Network().double()).eval(), x)
    assert graph.skipped["first"] == (
        "is normalised over by a layer norm that is no module of its own, as nn.LayerNorm is"
    )
