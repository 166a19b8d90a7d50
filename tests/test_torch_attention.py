"""PyTorch's own attention loses heads too: the same results, no fast path, however it is called."""

import copy
import itertools

import pytest
import torch
from torch import nn

from reprune.graph import build_graph, traced
from reprune.graph.modes import trains_alike
from reprune.modules.attention import AttentionOfFewerHeads
from reprune.modules.heads import for_any_heads
from reprune.modules.slicing import replace_tensors
from tests.helpers.attentions import TOKENS, Torch, encoder, halved, heads_of
from tests.helpers.masking import difference, exact, masked


@pytest.fixture(params=["with values", "without values"])
def values(request, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**60 if request.param == "with values" else 0)
    return request.param


def test_a_mask_for_each_head_keeps_the_heads():
    class Masked(Torch):
        def forward(self, x, mask):
            return self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]

    model, mask = Masked().double().eval(), torch.zeros(5 * 4, 2, 2, dtype=torch.float64)
    graph = build_graph(model, (TOKENS, mask), layers="linear")
    assert graph.skipped["attention"] == "meets a fixed mask of an attention"
    small, _ = halved(
        model, (TOKENS, torch.zeros(2, 2, dtype=torch.float64))
    )  # one mask for all is no obstacle
    assert type(small.attention) is AttentionOfFewerHeads


def options():
    for first, more, zero, bias, kinds, need, mask, padding, training in itertools.product(
        (False, True), (False, True), (False, True), (False, True), ("self", "kv", "all", "own"),
        (None, False, True), (None, "bool", "float", "3d"), (None, "bool", "float"), (False, True),
    ):  # fmt: skip
        if (mask in ("float", "3d")) <= (padding != "bool") and (mask == "bool") <= (padding != "float"):
            yield first, more, zero, bias, kinds, need, mask, padding, training


def given(first, kinds, mask, padding):
    """The arguments of an attention of 4 heads to 16 numbers, L = 5, S = 7, B = 3."""
    generator = torch.Generator().manual_seed(1)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator)

    def sequence(n, width=16):
        return tensor(3, n, width) if first else tensor(n, 3, width)

    s = 5 if kinds == "self" else 7
    query = sequence(5)
    key = query if kinds == "self" else sequence(7, 12 if kinds == "own" else 16)
    value = key if kinds in ("self", "kv") else sequence(7, 10 if kinds == "own" else 16)
    masks = {"bool": torch.ones(5, s).triu(1).bool(), "float": tensor(5, s), "3d": tensor(12, 5, s)}
    paddings = {"bool": torch.arange(s) >= torch.tensor([[s], [s - 1], [s - 2]]), "float": tensor(3, s)}
    return (query, key, value), {"attn_mask": masks.get(mask), "key_padding_mask": paddings.get(padding)}


def test_with_all_heads_it_is_torchs_own_forward_pass_to_the_last_bit():
    for number, option in enumerate(options()):
        first, more, zero, bias, kinds, need, mask, padding, training = option
        if number % 11:  # a prime: options are met in every pair
            continue
        torch.manual_seed(0)
        sizes = {"kdim": 12, "vdim": 10} if kinds == "own" else {}
        theirs = nn.MultiheadAttention(
            16, 4, dropout=0.1, bias=bias, add_bias_kv=more, add_zero_attn=zero, batch_first=first, **sizes
        ).train(training)
        ours = for_any_heads(copy.deepcopy(theirs))
        assert type(ours) is AttentionOfFewerHeads
        args, named = given(first, kinds, mask, padding)
        named |= {"need_weights": need is not None, "average_attn_weights": bool(need)}
        results = []
        for module in (theirs, ours):
            torch.manual_seed(2)
            results.append(module(*args, **named))
        for one, other in zip(*results, strict=True):
            assert (one is None and other is None) or torch.equal(one, other), option


@pytest.mark.parametrize("need", [False, True])
def test_without_a_batch_and_with_a_causal_mask(need):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4)
    ours = for_any_heads(copy.deepcopy(theirs))
    x, mask = torch.randn(5, 16), nn.Transformer.generate_square_subsequent_mask(5)
    for how in ({}, {"attn_mask": mask, "is_causal": True}, {"key_padding_mask": torch.arange(5) > 3}):
        for one, other in zip(
            theirs(x, x, x, need_weights=need, **how), ours(x, x, x, need_weights=need, **how), strict=True
        ):
            assert (one is None and other is None) or torch.equal(one, other)
    with pytest.raises(ValueError, match="attn_mask: is_causal=True needs the causal mask as well"):
        ours(x, x, x, is_causal=True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("training", [False, True])
def test_layers_of_a_transformer(training, values):
    """No fast path, which would take a head's size from the width, in either mode, nor nested tensors."""
    model = encoder().train(training)
    small, plan = halved(model)
    assert plan.keep["layers.0.self_attn"].size == 24
    assert [layer.self_attn.num_heads for layer in small.layers] == [2, 2]
    dense = masked(model, plan.slices)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    with torch.no_grad():
        for how in ({}, {"src_key_padding_mask": padding}, {"mask": torch.ones(5, 5).triu(1).bool()}):
            out, expected = small(TOKENS, **how), dense(TOKENS, **how)
            there = ~padding if "src_key_padding_mask" in how else slice(None)
            assert difference(out[:, : expected.shape[1]][there], expected[there]) < 1e-9


def test_padding_is_no_obstacle(values):
    """Not for models either whose example has some."""
    example = {"src": TOKENS, "src_key_padding_mask": torch.arange(5) >= torch.tensor([[5], [3]])}
    graph = build_graph(encoder(), example, layers="linear")
    assert [group.name for group in graph.groups if group.producers[0].rows.shape == (4, 12)] == [
        "layers.0.self_attn",
        "layers.1.self_attn",
    ]


def test_a_module_has_torchs_class_again_with_all_its_heads():
    model = encoder()
    assert model.use_nested_tensor
    small, plan = halved(model)
    assert not small.use_nested_tensor
    full = dict(model.named_parameters())
    replace_tensors(
        small, {t: full[name].clone() for name, t in small.named_parameters() if name in plan.slices}
    )
    assert type(small.layers[0].self_attn) is nn.MultiheadAttention
    assert small.layers[0].self_attn._qkv_same_embed_dim
    assert small.use_nested_tensor
    assert [layer.self_attn.num_heads for layer in small.layers] == [4, 4]


class Seen(Torch):
    """What is done with the mean of the weights over the heads."""

    def __init__(self, use):
        super().__init__()
        self.use = use

    def forward(self, x):
        y, weights = self.attention(x, x, x)
        return self.use(self, y, weights)


KEPT = []
USES = {
    "nothing": lambda self, y, weights: y,
    "returned": lambda self, y, weights: (y, weights),
    "computed with": lambda self, y, weights: y * weights.mean(),
    "a view of it": lambda self, y, weights: (y, weights[0]),
    "read": lambda self, y, weights: y * weights.tolist()[0][0][0],
    "kept elsewhere": lambda self, y, weights: KEPT.append(weights) or y,
    "kept by the module": lambda self, y, weights: setattr(self, "seen", weights) or y,
}


@pytest.mark.parametrize("use", USES)
def test_the_mean_of_weights_keeps_the_heads_if_it_is_read(use):
    KEPT.clear()
    graph = build_graph(Seen(USES[use]).double().eval(), TOKENS, layers="linear")
    if use == "nothing":
        assert heads_of(graph) == (4, [(4, 12)])
        exact(Seen(USES[use]).double().eval(), TOKENS, seeds=range(3), layers="linear")
    else:
        assert graph.skipped["attention"].startswith("is reduced over by aten.mean")


class Itself(Torch):
    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_the_width_of_its_input_may_shrink_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), Itself(), nn.ReLU(), nn.Linear(16, 3)).double().eval()
    graph = exact(model, TOKENS, seeds=range(4), layers="linear")
    assert [group.name for group in graph.groups] == ["0", "1.attention", "1.attention.out_proj"]
    small, _ = halved(model)
    attention = small[1].attention
    assert (attention.embed_dim, attention.num_heads, attention.head_dim) == (8, 2, 4)


def test_without_dropout_it_does_the_same_in_training():
    model = for_any_heads(Torch())
    assert trains_alike(model, [model.attention])
    model.attention.dropout = 0.5
    assert not trains_alike(model, [model.attention])
