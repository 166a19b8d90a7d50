"""Is an installed wheel all there?  Needs no test tools: ``python -P tests/tools/installed.py``."""

import numpy as np
import torch
from torch import nn

import reprune
from reprune import _core

points = np.random.default_rng(0).normal(size=(4, 50, 9))
for method in ("ward", "single", "complete", "average"):
    ours, expected = (reprune.linkage(points, method, backend=backend) for backend in ("cpp", "reference"))
    assert np.array_equal(ours, expected), method

network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
small, plan = reprune.prune(network, torch.randn(1, 3, 8, 8), keep={"0": 6})
assert small[0].out_channels == 6
assert len(plan.keep["0"]) == 6

print(f"reprune {reprune.__version__}, {_core.isa()} instructions, from {reprune.__file__}")
