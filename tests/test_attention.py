"""Heads of attention leave as whole heads, or stay with a reason."""

import copy
import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import reprune
from reprune.graph import build_graph, traced
from reprune.graph.rules import RULES
from reprune.graph.rules_attention import attention, by_formula
from reprune.graph.state import Call
from reprune.modules.attention import AttentionOfFewerHeads
from reprune.modules.heads import for_any_heads
from tests.helpers.attentions import (
    ATTENTIONS,
    TOKENS,
    Packed,
    Separate,
    Torch,
    by_efficient_kernel,
    by_flash_kernel,
    eager,
)
from tests.helpers.masking import difference, exact, masked


@pytest.fixture(params=["with values", "without values"])
def values(request, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**60 if request.param == "with values" else 0)
    return request.param


def flops(model, x):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def halved(model, x=TOKENS, **how):
    return reprune.prune(model, x, sparsity=0.5, rule="uniform", layers="linear", **how)


def heads_of(graph):
    """(heads, query's heads, rows of each layer) of the only group of heads."""
    (group,) = (group for group in graph.groups if not graph.traced.heads.isdisjoint(group.atoms.tolist()))
    return group.atoms.size, [p.rows.shape for p in group.producers]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_whole_heads_leave_and_the_rest_is_exact(name, values):
    model = ATTENTIONS[name]().double().eval()
    graph = exact(model, TOKENS, seeds=range(3), layers="linear")
    assert graph.traced.shapes == (values == "without values")
    atoms, rows = heads_of(graph)
    heads = min(getattr(model, name, 4) for name in ("num_heads", "num_key_value_heads"))
    assert atoms == heads
    assert {count for count, _ in rows} == {heads}

    small, plan = halved(model)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert plan.flops == (flops(model, TOKENS), flops(small, TOKENS))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert plan.flops[1] < 0.7 * plan.flops[0]


def test_a_key_that_serves_several_queries_leaves_with_them():
    model = Separate(heads=8, key_heads=4)
    small, plan = halved(model, TOKENS.float())
    width = model.head_dim
    keys = plan.keep["k_proj"][::width] // width
    np.testing.assert_array_equal(
        plan.keep["q_proj"][::width] // width, np.sort(np.r_[2 * keys, 2 * keys + 1])
    )
    np.testing.assert_array_equal(plan.keep["v_proj"], plan.keep["k_proj"])
    np.testing.assert_array_equal(plan.slices["o_proj.weight"][1], plan.keep["q_proj"])
    assert (small.num_heads, small.num_key_value_heads, small.num_key_value_groups) == (4, 2, 2)


def test_queries_that_share_one_key():
    model = Separate(heads=4, key_heads=1).double().eval()
    graph = exact(model, TOKENS, seeds=range(3), layers="linear")
    assert [[p.name for p in group.producers] for group in graph.groups] == [["q_proj"]]
    small, _ = halved(model)
    assert (small.num_heads, small.num_key_value_heads, small.num_key_value_groups) == (2, 1, 2)


class Pixels(nn.Module):
    """A Linear layer makes a feature map."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.make, self.last = nn.Linear(16, 8 * 7 * 7), nn.Conv2d(8, 2, 3)

    def forward(self, x):
        return self.last(self.make(x.mean(1)).unflatten(1, (-1, 7, 7))).mean((2, 3))


def test_a_feature_map_has_channels_and_not_heads():
    graph = exact(Pixels().double().eval(), TOKENS, seeds=range(3), layers="linear")
    assert [(group.name, group.producers[0].rows.shape) for group in graph.groups] == [("make", (8, 49))]


@pytest.mark.parametrize(
    "model, runs", [(Separate(), 1), (Packed(), 1), (Torch(), 1), (Pixels(), 1), (Separate(heads=3), 2)]
)
def test_a_model_is_traced_again_only_where_a_guess_was_wrong(model, runs, monkeypatch):
    calls, run = [], traced.run
    monkeypatch.setattr(traced, "run", lambda *given: calls.append(1) or run(*given))
    assert reprune.trace(model.double(), TOKENS).graph("linear").groups
    assert len(calls) == runs


@pytest.mark.parametrize("attend", [by_efficient_kernel, by_flash_kernel])
def test_kernels_of_gpus(attend, monkeypatch):
    """They are followed without values; what they give is checked by the formula."""
    monkeypatch.setattr(traced, "LARGE_BYTES", 0)
    model = Packed(attend).double().eval()
    graph = build_graph(model, TOKENS, layers="linear")
    assert heads_of(graph) == (4, [(4, 12)])
    assert (
        graph.traced.flops.full
        == build_graph(Packed(eager).double(), TOKENS, layers="linear").traced.flops.full
    )


def rolled(known, call, is_activation):
    """A rule that takes the values for those of the next head."""
    scale = attention(known, call, is_activation)
    dims = list(known.state(call.outputs()[0]).dims)
    dims[-3] = np.roll(dims[-3], 1)
    known.set(call.outputs()[0], dims, is_activation)
    return scale


@pytest.mark.parametrize("attend", [F.scaled_dot_product_attention, by_efficient_kernel])
def test_a_wrong_rule_for_attention_is_found_by_values(attend, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 0)
    model = Packed(attend).double().eval()
    for name in ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention"):
        monkeypatch.setitem(RULES, name, rolled)
    graph = reprune.trace(model, TOKENS).graph("linear")
    kept = graph.everything()
    kept[graph.traced.atoms.atom_of[graph.traced.labels["qkv.weight", 0][:4]]] = False
    assert "otherwise in the slice" in graph.certify(kept).reason


@pytest.mark.parametrize("mask", [None, torch.bool, torch.float64])
@pytest.mark.parametrize("how", [{}, {"scale": 0.3}, {"is_causal": True}])
def test_the_formula_of_attention(mask, how):
    if mask is not None and "is_causal" in how:
        pytest.skip("one or the other")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 5, 8, dtype=torch.float64, generator=generator) for h in (4, 2, 2))
    added = None if mask is None else torch.randn(4, 5, 5, dtype=torch.float64, generator=generator)
    added = added > -1 if mask == torch.bool else added
    call = Call(torch.ops.aten.scaled_dot_product_attention.default, (q, k, v, added), how)
    torch.testing.assert_close(
        by_formula(call), F.scaled_dot_product_attention(q, k, v, added, enable_gqa=True, **how)
    )


class Fixed(Packed):
    """Its number of heads is written out."""

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(b, n, -1))


class ByWidth(Packed):
    """A head's size is that of the input through their number."""

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(b, n, c))


class Unknown(Packed):
    """Its number of heads has a name of its own."""

    def __init__(self):
        super().__init__()
        self.how_many = self.num_heads

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.how_many, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(b, n, -1))


class Own(nn.MultiheadAttention):
    """A subclass may do anything with its heads."""


class OfOwn(Torch):
    def __init__(self):
        super().__init__()
        self.attention = Own(16, 4)


@pytest.mark.parametrize("kind", [Fixed, ByWidth, Unknown, OfOwn])
def test_heads_stay_where_the_module_does_not_follow(kind, values):
    model = nn.Sequential(kind(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16), kind()).double().eval()
    layer = "attention" if kind is OfOwn else "qkv"
    before = copy.deepcopy(model.state_dict())
    small, plan = halved(model)
    assert plan.keep["1"].size == 6
    for name in (f"0.{layer}", f"4.{layer}"):
        assert plan.skipped[name].startswith(
            "has attention heads, and the module around does not follow when"
        )
    assert type(small[0]) is kind
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


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
        if number % 5:  # a prime: every pair of options is met
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


def encoder(**how):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, **how)
    model = nn.TransformerEncoder(layer, 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


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


def test_a_vision_transformer(values):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=5
    ).double().eval()  # fmt: skip
    nn.init.normal_(model.heads.head.weight)
    graph = exact(model, torch.randn(2, 3, 16, 16, dtype=torch.float64), seeds=range(2), layers="linear")
    names = [group.name for group in graph.groups]
    assert names == [
        f"encoder.layers.encoder_layer_{i}.{part}" for i in (0, 1) for part in ("self_attention", "mlp.0")
    ]


def test_a_vision_transformer_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=4, depth=2, num_heads=3, embed_dim=24, num_classes=5
    ).double().eval()  # fmt: skip
    graph = exact(model, torch.randn(2, 3, 16, 16, dtype=torch.float64), seeds=range(2), layers="linear")
    assert [group.name for group in graph.groups] == [
        f"blocks.{i}.{part}" for i in (0, 1) for part in ("attn.qkv", "mlp.fc1")
    ]


@pytest.mark.parametrize("build", [Torch, Packed, lambda: Separate(heads=8, key_heads=4), encoder])
def test_files_copies_and_pickles(build, tmp_path):
    model = build().double().eval()
    small, _ = halved(model)
    with torch.no_grad():
        expected = small(TOKENS)
        reprune.save(small, tmp_path / "small.safetensors")
        loaded = reprune.load(tmp_path / "small.safetensors", build().double().eval())
        for other in (loaded, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
            assert torch.equal(other(TOKENS), expected)
            assert [type(module) for module in other.modules()] == [
                type(module) for module in small.modules()
            ]
        torch.save(small, file := io.BytesIO())
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(TOKENS), expected)


def test_a_module_has_torchs_class_again_with_all_its_heads():
    from reprune.modules.slicing import replace_tensors

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


def heads_left(model):
    return getattr(model.attention, "attention", model.attention).num_heads


class Classifier(nn.Module):
    def __init__(self, build):
        super().__init__()
        self.attention, self.last = build(), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.attention(x).mean(1))


@pytest.mark.parametrize("build", [Torch, Packed, lambda: Separate(eager, heads=8, key_heads=4)])
def test_training_with_regrowth_in_both_modes(build):
    """Shrunk and masked networks stay equal while heads come and go."""
    results = {}
    x = TOKENS
    for mode in ("shrink", "mask"):
        torch.manual_seed(0)
        model = Classifier(build).double()
        full = heads_left(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        settings = {
            "sparsity": 0.5,
            "rule": "uniform",
            "layers": "linear",
            "interval": 1,
            "until": 4,
            "regrow": 0.5,
        }
        pruner = reprune.Pruner(model, optimizer, x, mode=mode, **settings)
        outs, heads = [], []
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.tensor([0, 1])).backward()
            optimizer.step()
            pruner.step()
            outs.append(model(x).detach())
            heads.append(heads_left(model))
        pruner.finalize()
        results[mode] = [*outs, model.eval()(x).detach()], heads, model
    for one, other in zip(results["shrink"][0], results["mask"][0], strict=True):
        assert difference(one, other) < 1e-9
    heads = results["shrink"][1]
    back = [int(0.5 * (1 + math.cos(math.pi * t / 4)) / 2 * 4) for t in (1, 2, 3)]  # of four heads, or pairs
    assert back[0]  # else no head came back
    assert [4 * count // full for count in heads] == [2 + more for more in (*back, 0, 0, 0)]
    assert heads_left(results["mask"][2]) == heads[-1]


@pytest.mark.parametrize("build", [Torch, Packed, Separate])
def test_compensation_of_networks_that_lost_heads(build):
    torch.manual_seed(0)
    model = Classifier(build).double().eval()
    x = torch.randn(64, 5, 16, dtype=torch.float64)
    small, plan = halved(model, x[:2])
    before = (small(x) - model(x)).square().mean()
    report = reprune.compensate(model, small, plan, x)
    assert (small(x) - model(x)).square().mean() <= before
    assert report.layers


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
