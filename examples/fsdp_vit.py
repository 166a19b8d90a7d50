"""A vision transformer in parts on several processes (FSDP2), pruned while it trains: heads and hidden units.

ViT-B/16 on folders of images, with AdamW, a cosine, and an event after every second epoch of the first half::

    torchrun --nproc-per-node 8 examples/fsdp_vit.py --data imagenet --flops 0.5
    python examples/fsdp_vit.py --smoke                 # generated images, one process, seconds

No process holds the whole network at any time. `--data DIR` has the folder `train`, a folder of images for
each class. docs/training.md says how such a training is saved and resumed.
"""

import argparse
import functools
from pathlib import Path

import common
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision import datasets, models, transforms

import reprune


def data(folder: Path | None, side: int) -> torch.utils.data.Dataset[tuple[Tensor, int]]:
    """Images and labels; generated where `folder` is None."""
    if folder is None:
        labels = torch.arange(64) % 10
        patterns = torch.randn(10, 3, side, side, generator=torch.Generator().manual_seed(0))
        return TensorDataset(patterns[labels] + torch.randn(64, 3, side, side), labels)
    steps = [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    return datasets.ImageFolder(str(folder / "train"), transforms.Compose(steps))


def network(smoke: bool) -> models.VisionTransformer:
    """ViT-B/16, or a very small one."""
    sizes = (32, 8, 2, 4, 32, 64) if smoke else (224, 16, 12, 12, 768, 3072)
    return models.VisionTransformer(*sizes, num_classes=10 if smoke else 1000)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard every block, and what is around them."""
    for block in model.encoder.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def main(arguments: list[str] | None = None) -> None:
    """Train, prune on the way, save the small network."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--batch", type=int, default=128, help="images of a process, default %(default)s")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--workers", type=int, default=8)
    options = common.options_of(parser, 0.5, arguments)
    interval = 2
    if options.smoke:
        options.batch, options.epochs, options.workers, interval = 16, 4, 0, 1

    rank, size, device = common.join()
    if size == 1:  # without torchrun; fully_shard works in a group
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    torch.manual_seed(0)  # the same weights on all processes
    model = network(options.smoke).to(device)
    side = model.image_size
    images = data(options.data, side)
    sampler = DistributedSampler(images, size, rank)
    loader = DataLoader(images, options.batch, sampler=sampler, drop_last=True, num_workers=options.workers)
    example = torch.randn(1, 3, side, side, device=device)

    parts = functools.partial(shard, mesh=init_device_mesh(device.type, (size,)))
    parts(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    pruner = reprune.Pruner(
        model,
        optimizer,
        example,
        flops=options.flops,
        interval=interval,
        until=options.epochs // 2,
        layers="linear",
        rule="uniform",
        shard=parts,
    )
    for epoch in range(options.epochs):
        model.train()
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
        scheduler.step()
        pruner.step()
        model = pruner.model  # a new one after an event
        if rank == 0:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.4f}", flush=True)
    plan = pruner.finalize()
    file = options.out / "vit-small.safetensors"
    reprune.save(model, file)  # on all processes; the first one writes
    if rank == 0:
        print(pruner.history)
        print(f"FLOPs {plan.flops[0]:,} -> {plan.flops[1]:,}; {file}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
