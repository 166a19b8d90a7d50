"""What runs where a pruned network is deployed, in a process and a folder of its own.

It knows the code of the network (`tests/helpers/networks.py`) and `small.safetensors`, which `reprune.save`
wrote. It loads the network, exports it, and writes what each form answers to `answers.safetensors`. The test
makes ONNX of what was exported: its packages take long to import, and that process has them.
"""

import sys

import torch
from safetensors.torch import load_file, save_file

import reprune
from tests.helpers.networks import SmallResNet


def main():
    torch.set_num_threads(int(sys.argv[1]))
    images = load_file("images.safetensors")["images"]
    model = reprune.load("small.safetensors", SmallResNet()).eval()
    with torch.no_grad():
        answers = {"eager": model(images)}
    batch = torch.export.Dim("batch", max=1024)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    torch.export.save(program, "small.pt2")
    answers["export"] = torch.export.load("small.pt2").module()(images).detach()
    save_file(answers, "answers.safetensors")


if __name__ == "__main__":
    main()
