"""Every network of torchvision, 60 of timm and 40 others, pruned: `python -m benchmarks.zoo`.

__main__         runs each network in a process of its own and keeps its row
page             the page that is written of the rows
measure          one network: exactness, ONNX, latency, planning
peer             the same network pruned by Torch-Pruning
networks         how each is built, with random weights, and what it is run on
of_transformers  those of transformers
of_smp           those of segmentation_models_pytorch
of_yolo          detectors in one stage, written for this benchmark
"""
