"""Cycles are collected later while a model is traced, and then as before."""

import gc
import threading

import pytest
import torch
from torch import nn

import reprune
from reprune.graph.collecting import collecting_later

KEPT, SEEN = [], []


def to_a_cycle(side):
    cycle = [side]
    cycle.append(cycle)


class Net(nn.Module):
    """Two convolutions, and a third whose result goes `to` somewhere else."""

    def __init__(self, to=to_a_cycle):
        super().__init__()
        self.one, self.side, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.to_where = to.__name__

    def forward(self, x):
        globals()[self.to_where](self.side(x))
        SEEN.append(gc.isenabled())
        return self.two(self.one(x))


def to_a_list(side):
    KEPT.append(side)


def fails(side):
    raise RuntimeError("no")


@pytest.fixture(autouse=True)
def collected():
    assert gc.isenabled()
    SEEN.clear()
    yield
    KEPT.clear()
    gc.enable()


def test_nothing_is_collected_in_a_pass_and_then_it_is_as_before():
    model, x = Net(), torch.randn(1, 3, 8, 8)
    traced = reprune.trace(model, x)
    assert gc.isenabled()
    reprune.make_plan(model, traced, sparsity=0.5, rule="uniform")
    assert gc.isenabled()
    assert len(SEEN) > 1
    assert not any(SEEN)


def test_who_has_turned_collection_off_finds_it_off():
    gc.disable()
    reprune.trace(Net(), torch.randn(1, 3, 8, 8))
    assert not gc.isenabled()


def test_collection_is_on_again_after_an_error():
    with pytest.raises(ValueError, match="forward pass"):
        reprune.trace(Net(fails), torch.randn(1, 3, 8, 8))
    assert gc.isenabled()


def test_two_threads_leave_it_on():
    entered, left = threading.Event(), threading.Event()

    def other():
        with collecting_later():
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    with collecting_later():
        thread.start()
        assert entered.wait(10)
    left.set()
    thread.join()
    assert gc.isenabled()


@pytest.mark.parametrize("to, stays", [(to_a_cycle, False), (to_a_list, True)])
def test_what_only_a_cycle_keeps_is_no_output(to, stays):
    plan = reprune.make_plan(Net(to), torch.randn(1, 3, 8, 8), sparsity=0.5, rule="uniform")
    assert ("side" in plan.keep) != stays
    assert ("left unused" in plan.skipped.get("side", "")) == stays
