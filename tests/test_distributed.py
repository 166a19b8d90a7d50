"""Several processes: every one clusters its share, and all end with one plan and one network."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from reprune.distributed import gathered, owners, rank_and_size
from reprune.pruner.decide import cost
from reprune.pruner.structure import Structure
from reprune.targets import checked
from tests.helpers.processes import run_module


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_torchrun(processes):
    """What two forked processes do in test_ranks.py, as users start it."""
    run = run_module(
        "torch.distributed.run",
        *("--standalone", "--nproc-per-node", processes, "-m", "tests.programs.workers", "shrink", "mask"),
        variables={"OMP_NUM_THREADS": "1", "REPRUNE_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["shrink", "mask"]


def test_shares_of_resnet50_are_balanced():
    """By the cost model."""
    model = resnet50()
    structure = Structure(model, torch.randn(1, 3, 64, 64), checked(sparsity=0.5))
    source = structure.source(model, {})
    alive = structure.graph.everything()
    costs = [cost(g, source, alive, g.atoms.size // 2) for g in structure.graph.groups]
    assert len(costs) == 33  # conv1 of the stem, two of every block
    for size in (2, 3):
        owner = np.array(owners(costs, size))
        shares = [sum(np.array(costs)[owner == rank]) for rank in range(size)]
        assert max(shares) / min(shares) < 1.2


def test_owners():
    assert owners([5, 4, 3, 3, 3], 2) == [0, 1, 1, 0, 1]
    assert owners([1.0, 1.0], 3) == [0, 1]
    assert owners([], 2) == []


def test_one_process_is_alone():
    assert rank_and_size() == (0, 1)
    assert gathered("mine") == ["mine"]
