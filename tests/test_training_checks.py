"""A training goes on from a file as a whole, or nothing is changed."""

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

import reprune
from reprune.files.codec import decode, encode
from tests.helpers.digests import digest
from tests.helpers.trainings import SGD, build, epoch, everything, file_of


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "training.safetensors"
    file_of(path)
    return path


def others_with(**more):
    model, optimizer, pruner, others = build()
    return model, optimizer, pruner, {**others, **more}


def with_scheduler(make):
    model, optimizer, pruner, others = build()
    return model, optimizer, pruner, {**others, "s": make(optimizer)}


def swapped():
    model, optimizer, pruner, others = build()
    return model, optimizer, pruner, {**others, "s": others["ema"], "ema": others["s"]}


def of_another_pruner():
    (model, *_), (_, optimizer, pruner, others) = build(), build()
    return model, optimizer, pruner, others


def with_another_optimizer():
    model, _, pruner, others = build()
    return model, torch.optim.SGD(list(model.parameters())[:-1], **SGD), pruner, others


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: build(lambda p: torch.optim.AdamW(p, lr=0.01)), "optimizer: it has the state of a SGD"),
        (lambda: build(torch.optim.RMSprop), "optimizer: it has the state of a SGD, given is a RMSprop"),
        (lambda: build(torch.optim.Adagrad), "optimizer: it has the state of a SGD, given is a Adagrad"),
        (lambda: build(lambda p: torch.optim.SGD(p[::-1], **SGD)), "build it with the same order"),
        (lambda: build(lambda p: torch.optim.SGD([p[1], p[0], *p[2:]], **SGD)), "with the same order"),
        (
            lambda: build(lambda p: torch.optim.SGD([{"params": p[:3]}, {"params": p[3:]}], **SGD)),
            "groups of",
        ),
        (lambda: with_scheduler(lambda o: OneCycleLR(o, 0.1, total_steps=9)), "given is a OneCycleLR"),
        (swapped, "the state of a (AveragedModel|StepLR)"),
        (lambda: others_with(ema=torch.Generator()), "others.'ema'.: it has the state of a AveragedModel"),
        (lambda: others_with(s=nn.Linear(2, 2)), "others.'s'.: it has the state of a StepLR"),
        (lambda: others_with(more=torch.Generator()), "others: it has ema, g, s, given are ema, g, more, s"),
        (lambda: build(seed=5), "pruner with seed=0, this one has 5"),
        (lambda: build(mode="mask"), "pruner with mode='shrink'"),
        (lambda: build(until=4), "pruner with until=3"),
        (lambda: build(network={"channels": 10}), "of another model"),
        (lambda: build(network={"classes": 7}), "of another model"),
        (lambda: build(ema=False), "others: it has ema"),
        (of_another_pruner, "model: expected the one that the pruner was made with"),
        (with_another_optimizer, "optimizer: expected the one that the pruner was made with"),
    ],
    ids=range(19),
)
def test_another_training(file, make, message):
    given = make()
    before = everything(*given)
    with pytest.raises(ValueError, match=message):
        reprune.load_training(file, *given)
    assert everything(*given) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, None, None, None), "model: expected a torch.nn.Module; got a NoneType"),
        ((1, None), "optimizer: expected a torch.optim.Optimizer"),
        ((2, None), "pruner: expected a reprune.Pruner; got a NoneType"),
        ((3, [1]), "others: expected a dictionary; got a list"),
        ((3, {"x": 3}), r"others\['x'\]: expected something with state_dict"),
    ],
)
def test_arguments(file, tmp_path, arguments, message):
    given = list(build())
    given[arguments[0]] = arguments[1]
    for call, path in ((reprune.load_training, file), (reprune.save_training, tmp_path / "x")):
        with pytest.raises(TypeError, match=message):
            call(path, *given)
    assert not (tmp_path / "x").exists()


class Failing(StepLR):
    """Takes a part of the state, and then no more."""

    error: BaseException = RuntimeError("odd")

    def load_state_dict(self, state):
        if self.error is not None:
            self.last_epoch = 77
            error, Failing.error = self.error, None
            random.random()
            raise error
        super().load_state_dict(state)


@pytest.mark.parametrize(
    "mode, epochs, before", [("shrink", 2, 1), ("shrink", 4, 0), ("mask", 1, 0), ("mask", 4, 3)]
)
def test_an_error_while_loading_changes_nothing(tmp_path, monkeypatch, mode, epochs, before):
    """Of the last object to be loaded; all others are put back, and the training can go on."""

    def start():
        given = build(mode=mode)
        given[3]["z"] = Failing(given[1], 1)
        given[3]["s"] = given[3].pop("s")
        for _ in range(before):
            epoch(*given)
        return given

    monkeypatch.setattr(Failing, "error", None)
    done = build(mode=mode)
    done[3]["z"] = Failing(done[1], 1)
    for _ in range(epochs):
        epoch(*done)
    if epochs > 3:
        done[2].finalize()
    reprune.save_training(tmp_path / "x", *done)

    given, twin = start(), start()
    found = everything(*given)
    for error, expected in ((RuntimeError("odd"), ValueError), (KeyboardInterrupt(), KeyboardInterrupt)):
        monkeypatch.setattr(Failing, "error", error)
        with pytest.raises(expected):
            reprune.load_training(tmp_path / "x", *given)
        assert everything(*given) == found
    state = torch.get_rng_state()
    for training in (given, twin):
        torch.set_rng_state(state)
        epoch(*training)
    assert str(given[0]) == str(twin[0])
    assert all(torch.equal(a, b) for a, b in zip(given[0].parameters(), twin[0].parameters(), strict=True))
    assert given[2].plan.to_json() == twin[2].plan.to_json()


def test_an_error_of_the_optimizer_or_the_model(file, monkeypatch):
    class Odd(torch.optim.SGD):
        def load_state_dict(self, state):
            super().load_state_dict(state)
            raise KeyError("odd")

    Odd.__name__ = "SGD"
    for given in (build(lambda p: Odd(p, **SGD)), build()):
        if type(given[1]) is not Odd:
            given[0].register_load_state_dict_post_hook(lambda *_: 1 / 0)
        before = everything(*given)
        with pytest.raises(ValueError, match=r"training.safetensors: it could not be loaded .*(odd|zero)"):
            reprune.load_training(file, *given)
        assert everything(*given) == before


@pytest.mark.parametrize("epochs, mode", [(0, "mask"), (1, "shrink"), (1, "mask"), (4, "mask")])
def test_files_of_earlier_versions(tmp_path, epochs, mode):
    """They know no checksum, nor what the training was built of."""
    path = tmp_path / "x"
    done = file_of(path, epochs, mode)
    write(path, content_of(path), lambda content: content.pop("built"))
    given = build(mode=mode)
    reprune.load_training(path, *given)
    assert str(given[0]) == str(done[0])
    assert digest(*map(Plain, done)) == digest(*map(Plain, given))
    fresh = build(lambda p: torch.optim.SGD(p[::-1], **SGD), mode=mode)
    if epochs == 1 and mode == "shrink":
        before = everything(*fresh)
        with pytest.raises(ValueError, match="build it with the same order"):
            reprune.load_training(path, *fresh)
        assert everything(*fresh) == before


class Plain:
    """The state of something, without the objects that hold it."""

    def __init__(self, thing):
        states = thing if isinstance(thing, dict) else {"": thing}
        self.states = [s.state_dict() for s in states.values() if hasattr(s, "state_dict")]


def content_of(path):
    """The content of a file."""
    with safe_open(path, framework="pt") as file:
        tensors = [file.get_tensor(str(k)).clone() for k in range(len(file.keys()))]
        return decode(json.loads(file.metadata()["reprune_training"])["content"], tensors)


def write(path, content, change):
    """A file of `content` after `change`, without a checksum."""
    change(content)
    tensors = []
    head = {"format": 1, "content": encode(content, tensors, "content")}
    numbered = {str(k): tensor for k, tensor in enumerate(tensors)}
    save_file(numbered, path, metadata={"reprune_training": json.dumps(head)})


def at(*keys):
    """Set what is at `keys` in a content to the last of them."""

    def change(content):
        for key in keys[:-2]:
            content = content[key]
        content[keys[-2]] = keys[-1]

    return change


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


NUMPY = ("MT19937", np.arange(624, dtype=np.uint32), 624, 0, 0.0)
CHANGES = [
    *(without(key) for key in ("model", "optimizer", "pruner", "others", "random")),
    *(at(key, 3) for key in ("model", "optimizer", "pruner", "others", "random", "built")),
    *(
        without("pruner", key)
        for key in ("alive", "settings", "store", "history", "epoch", "finished", "mode")
    ),
    at("pruner", "alive", torch.ones(3, dtype=torch.bool)),
    at("pruner", "alive", "all"),
    lambda content: content["pruner"]["alive"].zero_(),
    lambda content: content["pruner"].update(alive=content["pruner"]["alive"].int()),
    at("pruner", "epoch", -1),
    at("pruner", "epoch", "1"),
    at("pruner", "epoch", True),
    at("pruner", "finished", 1),
    at("pruner", "settings", "seed", torch.zeros(3)),
    at("pruner", "settings", "extra", 3),
    at("pruner", "coverage", {}),
    at("pruner", "coverage", "expand", 1.5),
    at("pruner", "coverage", "expand", math.nan),
    at("pruner", "history", 3),
    at("pruner", "history", [3]),
    at("pruner", "history", 0, "epoch", "x"),
    at("pruner", "history", 0, "kept", 3),
    at("pruner", "history", 0, "more", 3),
    at("pruner", "store", {}),
    at("pruner", "store", "odd", torch.zeros(3)),
    at("pruner", "store", "state/momentum_buffer/odd", torch.zeros(3)),
    at("pruner", "store", "model/expand.weight", torch.zeros(3)),
    without("pruner", "store", "model/expand.weight"),
    without("pruner", "store", "copy0/expand.weight"),
    at("model", "expand.weight", torch.zeros(24, 12, 1, 1)),
    at("model", "expand.weight", 3),
    lambda content: content["model"].update({"expand.weight": content["model"]["expand.weight"].half()}),
    without("model", "expand.weight"),
    at("model", "more", torch.zeros(3)),
    at("optimizer", "param_groups", 3),
    at("optimizer", "param_groups", []),
    at("optimizer", "param_groups", [3]),
    at("optimizer", "param_groups", 0, "params", [0, 1]),
    at("optimizer", "state", 5),
    at("optimizer", "state", {99: {}}),
    at("optimizer", "state", {0: 3}),
    at("optimizer", "state", {"x": {}}),
    lambda c: c["optimizer"]["state"].update(
        {2: {"momentum_buffer": torch.zeros(3, 5)}, 3: {"x": torch.ones(7)}}
    ),
    at("random", "torch", torch.zeros(3, dtype=torch.uint8)),
    at("random", "torch", 3),
    at("random", "python", (3, (1, 2), None)),
    at("random", "python", (3, (*range(624), 700), None)),
    at("random", "numpy", (*NUMPY[:2], 10**9, *NUMPY[3:])),
    at("random", "numpy", (*NUMPY[:2], -1, *NUMPY[3:])),
    at("random", "numpy", ("MT19937", np.arange(3, dtype=np.uint32), *NUMPY[2:])),
    at("random", "numpy", ("PCG64", *NUMPY[1:])),
    at("random", "numpy", 3),
    without("random", "cuda"),
    at("built", "parameters", [[]]),
    at("built", "parameters", 3),
    at("built", "others", {}),
    at("built", "optimizer", "Adam"),
    at("others", "g", torch.zeros(3)),
    at("others", "ema", {}),
    at("others", "ema", 3),
    at("others", "s", 3),
]


def test_changed_contents(file, tmp_path):
    """Without a checksum that would tell: one kind of error, which names the file; and nothing is changed."""
    given = build()
    before = everything(*given)
    path, content = tmp_path / "changed", content_of(file)
    for number, change in enumerate(CHANGES):
        write(path, copy.deepcopy(content), change)
        with pytest.raises(ValueError, match="changed: ") as caught:
            reprune.load_training(path, *given)
        assert everything(*given) == before, (number, caught.value)
    reprune.load_training(file, *given)


def test_changed_states_of_the_pruner(file):
    """As above, of the pruner alone."""
    given = build()
    done = build()
    epoch(*done)
    before = everything(*given)
    for change in CHANGES[11:42]:
        content = {"pruner": done[2].state_dict()}
        content["pruner"]["store"] = dict(content["pruner"]["store"])
        try:
            change(content)
        except KeyError:  # not of the pruner
            continue
        with pytest.raises(ValueError, match="state: "):
            given[2].load_state_dict(content["pruner"])
        assert everything(*given) == before
    with pytest.raises(TypeError, match="state: expected what state_dict"):
        given[2].load_state_dict(3)
    given[2].load_state_dict(done[2].state_dict())
    assert str(given[0]) == str(done[0])


def test_saving_what_does_not_belong_together(tmp_path):
    (model, optimizer, pruner, others), (other, other_optimizer, *_) = build(), build()
    for given, what in (
        ((other, optimizer, pruner), "model"),
        ((model, other_optimizer, pruner), "optimizer"),
    ):
        with pytest.raises(ValueError, match=f"{what}: expected the one that the pruner was made with"):
            reprune.save_training(tmp_path / "x", *given, others)
    assert not (tmp_path / "x").exists()


def test_another_generator_of_numpy(tmp_path):
    given = build()
    before = np.random.get_bit_generator() if hasattr(np.random, "get_bit_generator") else None
    if before is None:
        pytest.skip("numpy.random has no set_bit_generator")
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        reprune.save_training(tmp_path / "x", *given)
        expected = np.random.random()  # noqa: NPY002
        reprune.load_training(tmp_path / "x", *given)
        assert np.random.random() == expected  # noqa: NPY002
    finally:
        np.random.set_bit_generator(before)
