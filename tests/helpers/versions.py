"""Which versions tests run on: what the oldest supported ones lack is skipped, with the reason."""

import torch

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
