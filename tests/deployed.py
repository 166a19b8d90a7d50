"""What runs where a pruned network is deployed, in a process of its own:

    python deployed.py FOLDER

It knows the code of the network (`networks.py`) and the file that `reprune.save` wrote, nothing else.  It
loads ``small.safetensors``, exports it, and writes what each form of it answers to ``images.safetensors``.
"""

import sys
from pathlib import Path

import torch
from networks import SmallResNet
from safetensors.torch import load_file, save_file

import reprune


def exported(model, images):
    """A program that takes any number of images."""
    return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", max=1024)},))


def in_onnxruntime(file, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def main(folder):
    images = load_file(folder / "images.safetensors")["images"]
    model = reprune.load(folder / "small.safetensors", SmallResNet()).eval()
    with torch.no_grad():
        answers = {"eager": model(images)}
        program = exported(model, images[:2])
    torch.export.save(program, folder / "small.pt2")
    answers["export"] = torch.export.load(folder / "small.pt2").module()(images).detach()
    torch.onnx.export(program, dynamo=True, verbose=False).save(folder / "small.onnx")
    answers["onnxruntime"] = in_onnxruntime(folder / "small.onnx", images)
    save_file(answers, folder / "answers.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
