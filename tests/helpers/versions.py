"""Which versions tests run on: what the oldest supported ones lack is skipped, with the reason."""

import torch

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
SHARDED_ON_CPU = hasattr(torch.cpu.Stream, "record_event")
"""Whether a model that fully_shard has sharded can be run on the CPU, which torch 2.6 cannot."""
