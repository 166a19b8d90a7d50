"""What compensation refuses, what it leaves as it was, and how much memory it takes."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.compensation import images as reading
from reprune.compensation import pair as memory
from tests.helpers.networks import images, small_resnet


@pytest.fixture(scope="module")
def networks():
    model = small_resnet()
    return model, *reprune.prune(model, images(2), flops=0.5)


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def with_nan():
    x = images(8)
    x[5, 0, 0, 0] = torch.nan
    return x


def ends_early():
    yield images(1)


BAD = {
    "NaN": (with_nan, "images: expected finite values; batch 0 has NaN or infinity"),
    "one image": (lambda: images(1), "images: expected at least two images, better 256; got 1"),
    "none": (lambda: images(0), "images: expected at least two images, better 256; got 0"),
    "empty": (lambda: [], "got 0; an iterator that was read before is empty"),
    "ends early": (ends_early, "images: expected at least two images, better 256; got 1"),
    "shape": (lambda: images(8)[:, :2], "images: the dense network fails on them with RuntimeError: "),
    "sizes": (
        lambda: [images(4), images(4, size=9)],
        r"images: expected images of one size; got \(3, 8, 8\) and \(3, 9, 9\)",
    ),
    "scalars": (lambda: [torch.tensor(1.0)], "whose first dimension is the batch; batch 0 has "),
    "sparse": (
        lambda: images(4).to_sparse(),
        "images: expected ordinary tensors; one in batch 0 is torch.sparse_coo",
    ),
    "meta": (
        lambda: [images(4), images(4).to("meta")],
        "images: expected ordinary tensors; one in batch 1 is on the device 'meta'",
    ),
    "nested": (
        lambda: torch.nested.as_nested_tensor([*images(4)], layout=torch.jagged),
        "images: expected ordinary tensors; one in batch 0 is nested",
    ),
    "integers": (
        lambda: images(4).to(torch.uint8),
        r"images: the dense network fails on them with .*; it was given uint8 \[N, 3, 8, 8\]",
    ),
    "kinds": (
        lambda: [images(4), {"x": images(4)}],
        "images: expected batches of one kind; batch 1 is another than the first",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_and_nothing_changes(name, networks):
    model, small, plan = networks
    before = values(small)
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        reprune.compensate(model, small, plan, make())
    assert same(values(small), before)


@pytest.mark.parametrize("wrong", [3, "images", [["a"]], [None]])
def test_what_is_no_images_is_refused(wrong, networks):
    with pytest.raises(TypeError, match="images: expected a tensor"):
        reprune.compensate(*networks, wrong)
    with pytest.raises(TypeError, match="calibrate: expected a tensor"):
        reprune.prune(networks[0], images(2), flops=0.5, calibrate=wrong)


def test_wrong_arguments_are_named(networks):
    model, small, plan = networks
    x = images(8)
    with pytest.raises(ValueError, match="small: expected the pruned network; got the dense one itself"):
        reprune.compensate(model, model, plan, x)
    with pytest.raises(ValueError, match="dense: made for a model whose"):
        reprune.compensate(small, model, plan, x)
    with pytest.raises(ValueError, match="small: expected what the plan makes of dense, with"):
        reprune.compensate(model, small_resnet(), plan, x)
    with pytest.raises(TypeError, match="plan: expected a PruningPlan"):
        reprune.compensate(model, small, "plan", x)
    with pytest.raises(TypeError, match="small: expected a torch"):
        reprune.compensate(model, None, plan, x)
    for ridge in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ridge: expected a finite number above 0 or"):
            reprune.compensate(model, small, plan, x, ridge=ridge)
    with pytest.raises(TypeError, match="ridge: expected"):
        reprune.compensate(model, small, plan, x, ridge="big")
    with pytest.raises(ValueError, match="layers: expected one of all, pruned"):
        reprune.compensate(model, small, plan, x, layers="conv")


class Failing(nn.Module):
    """Fails in its n-th pass, after two layers."""

    def __init__(self, passes):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3)
        self.passes = passes

    def forward(self, x):
        self.passes -= 1
        x = torch.relu(self.b(torch.relu(self.a(x))))
        if self.passes == 0:
            raise RuntimeError("it was too much")
        return self.c(x)


@pytest.mark.parametrize("passes", [1, 2])
def test_an_error_of_a_network_is_passed_on_and_no_thread_stays(passes):
    model = Failing(-1)
    small, plan = reprune.prune(model, images(2), keep={"a": 4})
    before, threads = values(small), threading.active_count()
    small.passes = passes
    error = ValueError if passes == 1 else RuntimeError
    with pytest.raises(error, match="it was too much"):
        reprune.compensate(model, small, plan, images(16))
    assert same(values(small), before)
    assert threading.active_count() == threads


def test_a_loader_that_fails_is_passed_on(networks):
    def loader():
        yield images(4)
        raise OSError("the disk is gone")

    before = values(networks[1])
    with pytest.raises(OSError, match="the disk is gone"):
        reprune.compensate(*networks, loader())
    assert same(values(networks[1]), before)


def test_the_progress_may_stop_it(networks):
    def stop(stage, done, total):
        assert stage == "compensate"
        if done == total // 2:
            raise KeyboardInterrupt

    before, threads = values(networks[1]), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        reprune.compensate(*networks, images(16), progress=stop)
    assert same(values(networks[1]), before)
    assert threading.active_count() == threads


def test_dense_network_modes_and_generators_stay():
    model = small_resnet()
    small, plan = reprune.prune(model, images(2), flops=0.5)
    model.train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    before, identities = values(model), [id(p) for p in small.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002

    def loader():
        for _ in range(4):
            torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
            yield images(4)

    done = []
    reprune.compensate(model, small, plan, loader(), progress=lambda stage, k, n: done.append((k, n)))
    assert same(values(model), before)
    assert [module.training for module in model.modules()] == modes
    assert [id(p) for p in small.parameters()] == identities
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2][1])  # noqa: NPY002
    assert done[0][0] == 0
    assert done[-1][0] == done[-1][1] == len(done) - 1


def test_labels_are_ignored_and_arguments_are_not():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x, y):
            return self.b(torch.relu(self.a(x + y)))

    torch.manual_seed(0)
    model, x, y, labels = Sum(), images(12), images(12, seed=1), torch.arange(12)
    found = []
    for batches in (
        [(x[:5], y[:5]), (x[5:], y[5:])],
        [(x, y, labels)],
        [[(x, y), labels]],
        [{"x": x, "y": y}],
        {"x": x, "y": y},
    ):
        small, plan = reprune.prune(model, (x[:2], y[:2]), keep={"a": 4})
        reprune.compensate(model, small, plan, batches)
        found.append(values(small))
    assert all(same(found[0], other) for other in found)


def test_no_more_than_so_many_images_are_read(networks, monkeypatch):
    monkeypatch.setattr(reading, "MOST", 10)
    read = []

    def endless():
        while True:
            read.append(1)
            yield images(4)

    assert reprune.compensate(*networks, endless()).images == 10
    assert len(read) == 3
    monkeypatch.setattr(reading, "BYTES", 6 * images(1).nbytes)
    assert reprune.compensate(*networks, images(50)).images == 6


def test_images_join_late_where_memory_is_short(monkeypatch):
    together = []

    class Shrinking(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.c, self.d = nn.Conv2d(16, 24, 3), nn.Conv2d(24, 8, 1)

        def forward(self, x):
            together.append(len(x))
            x = nn.functional.avg_pool2d(torch.relu(self.b(torch.relu(self.a(x)))), 8)
            return self.d(torch.relu(self.c(x)))

    torch.manual_seed(0)
    model, x = Shrinking(), images(200, size=32)
    small, plan = reprune.prune(model, x[:2], keep={"a": 8, "c": 12})
    whole = reprune.compensate(model, small, plan, x)
    assert [layer.images for layer in whole.layers] == [200] * 3
    monkeypatch.setattr(memory, "MEMORY", 2**22)
    small, plan = reprune.prune(model, x[:2], keep={"a": 8, "c": 12})
    together.clear()
    report = reprune.compensate(model, small, plan, x)
    assert max(together) * 16 * 32 * 32 * 4 < 2**22  # those that join run through the first maps too
    first, *_, last = (layer.images for layer in report.layers)
    assert 8 <= first < last == 200
    with torch.no_grad():
        wanted = model(x)
        assert (small(x) - wanted).square().mean() < 0.05 * wanted.var()


class Overflowing(nn.Module):
    """Makes infinity of large inputs, and calls its last layer once or twice."""

    def __init__(self, twice=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(()))
        self.twice = twice

    def forward(self, x):
        x = self.c((self.b(self.a(x)) * self.scale).exp())
        return self.c(x) if self.twice else x


def pruned_linear(model, x, keep):
    return reprune.prune(
        model.eval(), x[:2], keep=keep, layers="linear", select=lambda problem: np.arange(problem.keep)
    )


def test_images_on_which_a_network_overflows_are_refused():
    model, x = Overflowing(), torch.full((8, 4), 1e30)
    with torch.no_grad():
        model.b.bias += 1e3
    small, plan = pruned_linear(model, x, {"a": 3})
    before = values(small)
    message = "expected images on which all is finite; c of the dense network gives NaN or infinity"
    with pytest.raises(ValueError, match=f"^images: {message}"):
        reprune.compensate(model, small, plan, x)
    with pytest.raises(ValueError, match=f"^calibrate: {message}"):
        reprune.prune(model, x[:2], keep={"a": 3}, layers="linear", calibrate=x)
    assert same(values(small), before)


@pytest.mark.parametrize("twice", [False, True])
def test_a_layer_of_the_small_network_that_overflows_is_left(twice):
    torch.manual_seed(0)
    model, x = Overflowing(twice), torch.randn(32, 4)
    small, plan = pruned_linear(model, x, {"a": 3})
    small.scale.fill_(1e30)
    report = reprune.compensate(model, small, plan, x)
    assert {layer.name: layer.reason for layer in report.layers} == {
        "b": "",
        "c": "it takes or gives NaN or infinity",
    }
    assert all(torch.isfinite(value).all() for value in small.state_dict().values())
    assert torch.equal(small.c.weight, model.c.weight)


def test_a_weight_that_is_too_large_for_half_precision_is_not_taken():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1)).half().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1e-4, 0.0], [1.0, 0.0]]))  # the second is 10,000 times the first
        model[1].weight.fill_(60.0)
    x = torch.randn(64, 2)
    small, plan = pruned_linear(model, x[:2].half(), {"0": 1})
    before = values(small)
    (layer,) = reprune.compensate(model, small, plan, x).layers
    assert layer.reason == "what would do better is too large for float16"
    assert layer.after == layer.before
    assert same(values(small), before)
