"""What planning allocates, and that it is counted."""

import ctypes
import json
import sys

import pytest

from tests.helpers.processes import run_code

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="counted by glibc's malloc"
)


def test_memory_of_every_kind_is_counted():
    program = """
import json, numpy as np, torch
from benchmarks.memory import peak_of
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from time import sleep
table = np.random.default_rng(0).standard_normal((2000, 1000, 1), dtype=np.float32)
problem = LayerProblem("x", (table,), 500)
def held(make):
    def step():
        x = make()
        sleep(0.05)
    return peak_of(step)
print(json.dumps({
    "torch": held(lambda: torch.empty(2**24, dtype=torch.uint8)) / 2**24,
    "numpy": held(lambda: np.empty(2**24, dtype=np.uint8)) / 2**24,
    "Python": held(lambda: bytes(2**24)) / 2**24,
    "Python's small objects": held(lambda: [str(k) for k in range(10**6, 10**6 + 2**18)]) / 2**24,
    "the core": peak_of(lambda: select_layers([problem], labels=False)) / table.nbytes,
    "nothing": peak_of(lambda: sleep(0.05)) / 2**24,
}))
"""
    variables = {"PYTHONMALLOC": "malloc", "REPRUNE_NUM_THREADS": "1"}
    found = json.loads(run_code(program, check=True, variables=variables).stdout)
    for kind in ("torch", "numpy", "Python"):
        assert 1 <= found[kind] < 1.1, kind
    assert 0.8 < found["Python's small objects"] < 2  # 56 bytes each and a place in the list
    assert 0.5 < found["the core"] < 1.5  # two bytes of labels for four of the weight, and what threads need
    assert found["nothing"] < 0.1


def test_planning_takes_little_memory_beside_the_model():
    """Half of the parameters write to one residual stream, whose labels take half as much as these."""
    program = """
import torch, reprune
from torch import nn
from benchmarks.memory import peak_of, size_of
class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))
def planned(width, hidden, blocks):
    blocks = [Block(width, hidden) for _ in range(blocks)]
    model = nn.Sequential(nn.Linear(4, width), *blocks, nn.Linear(width, 4))
    settings = {"sparsity": 0.25, "rule": "uniform", "layers": "linear", "scope": "all"}
    return peak_of(lambda: reprune.make_plan(model, torch.ones(2, 4), **settings)) / size_of(model)
planned(8, 16, 2)
print(planned(512, 1024, 16))
"""
    done = run_code(program, check=True, variables={"REPRUNE_NUM_THREADS": "1"})
    assert 0.25 < float(done.stdout) < 0.45
