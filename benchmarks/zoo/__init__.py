"""Every network of torchvision and 60 of timm, pruned: `python -m benchmarks.zoo`.

__main__        runs each network in a process of its own and writes the page
measure         one network: exactness, ONNX, latency, planning
networks        how each is built, with random weights, and what it is run on
"""
