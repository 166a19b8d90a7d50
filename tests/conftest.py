"""The networks of the tests are small: one thread of torch's is faster than two that wait for each other."""

import torch

torch.set_num_threads(1)
