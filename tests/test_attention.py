"""Heads of attention leave as whole heads, or stay with a reason."""

import copy
import io
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
from reprune.graph import build_graph, register_rule, traced
from reprune.graph.rules import CUSTOM, RULES
from reprune.graph.rules_attention import attention, by_formula
from reprune.graph.state import Call
from tests.helpers.attentions import (
    ATTENTIONS,
    TOKENS,
    Packed,
    Separate,
    Torch,
    by_efficient_kernel,
    by_flash_kernel,
    eager,
    encoder,
    halved,
    heads_of,
)
from tests.helpers.masking import difference, exact


@pytest.fixture(params=["with values", "without values"])
def values(request, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**60 if request.param == "with values" else 0)
    return request.param


def test_the_kernel_of_a_head_is_a_vector():
    """Of queries, keys and values, and on each input; by other criteria than the clusters too."""
    torch.manual_seed(0)
    model, seen = Separate().double().eval(), {}

    def last(problem):
        seen[problem.name] = problem.tables
        return np.arange(problem.keep) + problem.tables[0].shape[1] - problem.keep

    reprune.make_plan(model, TOKENS, sparsity=0.5, rule="uniform", layers="linear", select=last)
    (tables,) = seen.values()
    for table, layer in zip(tables, (model.q_proj, model.k_proj, model.v_proj), strict=True):
        heads = layer.weight.detach().view(4, 4, 16)
        assert np.array_equal(table, heads.permute(2, 0, 1))


def flops(model, x):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_whole_heads_leave_and_the_rest_is_exact(name, values):
    model = ATTENTIONS[name]().double().eval()
    graph = exact(model, TOKENS, seeds=[0] if values == "with values" else [1], layers="linear")
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


def test_what_was_computed_for_all_heads_is_computed_again():
    model = ATTENTIONS["inside of modules with norms"]().double().eval()
    model(TOKENS)
    assert model.attention_bias_cache
    small, _ = halved(model)
    assert small(TOKENS).shape == TOKENS.shape
    assert small.attention_bias_cache["biases"].shape[0] == 2
    assert model.attention_bias_cache["biases"].shape[0] == 4


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


@torch.library.custom_op("reprune_tests::attend", mutates_args=())
def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return eager(query, key, value)


def by_own_kernel(q, k, v):
    return torch.ops.reprune_tests.attend(q, k, v)


def test_a_kernel_of_ones_own():
    model = Packed(by_own_kernel).double().eval()
    assert build_graph(model, TOKENS, layers="linear").skipped["qkv"].endswith("which has no rule")
    try:
        register_rule("reprune_tests::attend", "scaled_dot_product_attention")
        assert heads_of(exact(model, TOKENS, seeds=range(3), layers="linear")) == (4, [(4, 12)])
    finally:
        CUSTOM.clear()


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


@pytest.mark.parametrize(
    "mask, how",
    [(mask, how) for mask in (None, torch.bool, torch.float64) for how in ({}, {"scale": 0.3})]
    + [(None, {"is_causal": True})],
)
def test_the_formula_of_attention(mask, how):
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
    """A head's size is that of the input through their number, in words that are not the usual ones."""

    def forward(self, x):
        b, n, c = x.shape
        qkv = torch.reshape(self.qkv(x), (b, n, 3, self.num_heads, c // len(range(self.num_heads))))
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
    small, plan = halved(model)
    with torch.no_grad():
        expected = small(TOKENS)
        reprune.save(model, tmp_path / "planned.safetensors", plan)
        on_meta = reprune.load(tmp_path / "planned.safetensors", build().double().to("meta").eval())
        reprune.save(small, tmp_path / "small.safetensors")
        loaded = reprune.load(tmp_path / "small.safetensors", build().double().eval())
        for other in (loaded, on_meta, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
            assert torch.equal(other(TOKENS), expected)
            assert [type(module) for module in other.modules()] == [
                type(module) for module in small.modules()
            ]
        torch.save(small, file := io.BytesIO())
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(TOKENS), expected)


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


@pytest.mark.parametrize("build", [Torch, Packed, lambda: Separate(heads=8, key_heads=4)])
def test_heads_by_images(build):
    """Those stay that explain the others, as the layer behind sees them: no group is left to REPrune."""
    model = Classifier(build).double().eval()
    x = torch.randn(64, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    settings = {"layers": "linear", "ignore": ["last"], "calibrate": x}
    plan = reprune.make_plan(model, x[:2], flops=0.6, rule="error", criterion="covariance", **settings)
    assert not any("was seen on the images" in note for note in plan.notes)
    assert any(0 < kept.size < plan.channels[name] for name, kept in plan.keep.items() if name != "last")
